"""One validation from its files to its table, picture and maps."""

from __future__ import annotations

from aurefine import folders, mrc
from aurefine.atomic import write_bytes
from aurefine.job_control import JobControl
from aurefine.threads import thread_count, use_threads
from aurefine.validation import anisotropy, model, reslog, resolution, substitution, tables
from aurefine.validation.inputs import Given, read
from aurefine.validation.options import ValidateOptions, check
from aurefine.validation.result import Validation


def validate(options: ValidateOptions, control: JobControl | None = None) -> Validation:
    """Measure all that the input allows and write the files of `options.output`; InputError for a mistake in the input."""
    control = control or JobControl()
    options = check(options).seeded()
    model.check_files(options)
    given = read(options)
    folders.make(options.output)
    found = Validation(notes=_notes(given))
    with use_threads(thread_count(options.threads)):
        for step in (resolution.measure, substitution.measure, model.measure, anisotropy.of_maps, anisotropy.of_views, reslog.add):
            step(found, given, options, control)
            control.check()
    _write(found, given, options)
    return found


def _notes(given: Given) -> dict[str, str]:
    notes = {"Run": given.files.name, "Symmetry": given.symmetry, "Mask": given.masked_by}
    if given.halves is not None:
        notes["Half maps"] = f"{given.halves.box} px at {given.halves.pixel_size:g} A"
    if given.angles is not None:
        notes["Particles"] = f"{len(given.angles)}"
    return notes


def _write(found: Validation, given: Given, options: ValidateOptions) -> None:
    from aurefine.validation import figures  # matplotlib only when there is something to draw

    if given.halves is not None and "conical" in found.arrays:
        step = 1 / (given.halves.box * given.halves.pixel_size)  # 1/Angstrom; headers hold lengths, so a voxel of frequency is one "Angstrom"
        mrc.write_map(options.path("3dfsc.mrc"), found.arrays["conical"].volume(), 1.0)
        found.notes["3D FSC"] = f"3dfsc.mrc, a voxel is {step:.6f} 1/A"
    for name, data in found.files.items():
        write_bytes(options.path(name), data)
    figures.draw(found, options.path("validation.png"), options.path("validation.pdf"))
    tables.write_star(options.path("validation.star"), found, options.command_line)
    tables.write_json(options.path("validation.json"), found, given.files.half1 or given.files.data)
