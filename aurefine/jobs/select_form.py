"""The subset selection job as RELION's GUI knows it (ALGORITHM.md 6.9, 10.4); picking classes by hand in a window is RELION's own."""

from __future__ import annotations

from pathlib import Path

from aurefine.errors import InputError
from aurefine.jobs.form import OTHER_ARGS, QUEUE, Form, JobType, other_arguments, yes
from aurefine.jobs.options import FormField


def _given(_: str) -> str:
    return "Yes"


FORM = (
    FormField("fn_model", "Select classes from job:", "I/O", "", "file"),
    FormField("fn_mic", "OR select from micrographs.star:", "I/O", "", "file"),
    FormField("fn_data", "OR select from particles.star:", "I/O", "", "file", flag="--i"),
    FormField("do_class_ranker", "Automatically select 2D classes?", "Class options", "No", "bool", since=4),
    FormField("rank_threshold", "Minimum threshold for auto-selection:", "Class options", "0.5", "float", (0, 1, 0.05), since=4),
    FormField("select_nr_parts", "Select at least this many particles:", "Class options", "-1", "float", (-1, 10000, 500), since=4),
    FormField("select_nr_classes", "OR: select at least this many classes:", "Class options", "-1", "float", (-1, 24, 1), since=4),
    FormField("do_recenter", "Re-center the class averages?", "Class options", "No", "bool"),
    FormField("do_regroup", "Regroup the particles?", "Class options", "No", "bool", flag="--regroup", from_flag=_given),
    FormField("nr_groups", "Approximate nr of groups:", "Class options", "1", "float", flag="--regroup"),
    FormField("do_select_values", "Select based on metadata values?", "Subsets", "No", "bool", flag="--select", from_flag=_given),
    FormField("select_label", "Metadata label for subset selection:", "Subsets", "rlnCtfMaxResolution", flag="--select"),
    FormField("select_minval", "Minimum metadata value:", "Subsets", "-9999.", "float", flag="--minval"),
    FormField("select_maxval", "Maximum metadata value:", "Subsets", "9999.", "float", flag="--maxval"),
    FormField("do_discard", "OR: select on image statistics?", "Subsets", "No", "bool", flag="--discard_on_stats"),
    FormField("discard_label", "Metadata label for images:", "Subsets", "rlnImageName", flag="--discard_label"),
    FormField("discard_sigma", "Sigma-value for discarding images:", "Subsets", "4", "float", (1, 10, 0.1), flag="--discard_sigma"),
    FormField("do_split", "OR: split into subsets?", "Subsets", "No", "bool", flag="--split"),
    FormField("do_random", "Randomise order before making subsets?:", "Subsets", "No", "bool", flag="--random_order"),
    FormField("split_size", "Subset size:", "Subsets", "100", "float", (100, 10000, 100), flag="--size_split"),
    FormField("nr_split", "OR: number of subsets:", "Subsets", "-1", "float", (1, 50, 1), flag="--nr_split"),
    FormField("do_remove_duplicates", "OR: remove duplicates?", "Duplicates", "No", "bool", flag="--remove_duplicates", from_flag=_given),
    FormField("duplicate_threshold", "Minimum inter-particle distance (A)", "Duplicates", "30", "float", (0, 1000, 1), flag="--remove_duplicates"),
    FormField("image_angpix", "Pixel size before extraction (A)", "Duplicates", "-1", "float", (-1, 10, 0.01), flag="--image_angpix"),
    FormField("do_filaments", "OR: select filaments by dendrogram?", "Filaments", "No", "bool", since=5),
    FormField("dendrogram_threshold", "Dendrogram threshold:", "Filaments", "0.85", "float", since=5),
    FormField("dendrogram_minclass", "Minimum class size:", "Filaments", "-1000", "float", since=5),
    *QUEUE,
    OTHER_ARGS,
)
_SOURCES = ("fn_model", "fn_mic", "fn_data")
_WAYS = {  # row that asks for it -> ending of the label in RELION 4 and 5
    "do_select_values": "onvalue",
    "do_discard": "discard",
    "do_split": "split",
    "do_remove_duplicates": "removeduplicates",
}


def arguments_from_form(form: Form, directory: str) -> list[str]:
    """The command line (without the program's name) that RELION's GUI makes of a complete form, in its order (ALGORITHM.md 10.4).

    Raises InputError for a choice made by hand in a window, and for more than one way of selecting.
    """
    way = _way(form)
    sources = [key for key in _SOURCES if form[key]]
    if not sources:
        raise InputError("fn_data (OR select from particles.star), fn_mic and fn_model are empty; give one of them")
    if len(sources) > 1:
        raise InputError(f"{' and '.join(sources)} are given; choose one of them, and empty the others")
    parts = ["--i", form[sources[0]], "--o", directory + _result(form)]
    if way == "do_select_values":
        parts += ["--select", form["select_label"], "--minval", form["select_minval"], "--maxval", form["select_maxval"]]
    elif way == "do_discard":
        parts += ["--discard_on_stats", "--discard_label", form["discard_label"], "--discard_sigma", form["discard_sigma"]]
    elif way == "do_split":
        parts += _split_arguments(form)
    elif way == "do_remove_duplicates":
        parts += ["--remove_duplicates", form["duplicate_threshold"]]
        parts += ["--image_angpix", form["image_angpix"]] if float(form["image_angpix"]) > 0 else []
    return [*parts, *_regroup_arguments(form), *other_arguments(form, directory)]


def _regroup_arguments(form: Form) -> list[str]:
    if not yes(form, "do_regroup"):
        return []
    if float(form["nr_groups"]) < 1:
        raise InputError(f"nr_groups (Approximate nr of groups) is {form['nr_groups']}, but do_regroup is Yes; a number from 1 was expected")
    return ["--regroup", form["nr_groups"]]


def _split_arguments(form: Form) -> list[str]:
    parts = ["--split"] + (["--random_order"] if yes(form, "do_random") else [])
    size, number = float(form["split_size"]), float(form["nr_split"])
    if size <= 0 and number <= 0:
        raise InputError("split_size (Subset size) and nr_split are not positive; give one of them")
    parts += ["--nr_split", form["nr_split"]] if number > 0 else []
    return parts + (["--size_split", form["split_size"]] if size > 0 else [])


def _way(form: Form) -> str:
    """The one way of selecting that is asked for; "" where `other_args` says it (such as --classes)."""
    if yes(form, "do_class_ranker") or yes(form, "do_filaments"):
        raise InputError("do_class_ranker and do_filaments need RELION's own programs: run this job with RELION")
    asked = [key for key in _WAYS if yes(form, key)]
    if len(asked) > 1:
        raise InputError(f"{' and '.join(asked)} are Yes; choose one of them")
    if not asked and not yes(form, "do_regroup") and not form["other_args"]:
        raise InputError(f"this job picks by hand in RELION's window; say how to select: one of {', '.join(_WAYS)}=Yes, or `aurefine select`'s "
                         "flags, such as other_args='--classes 1,3'")  # fmt: skip
    return asked[0] if asked else ""


def _result(form: Form) -> str:
    return "particles.star" if form["fn_data"] or not form["fn_mic"] else "micrographs.star"


def _label(form: Form) -> str:
    return f"{'ParticleGroupMetadata' if _result(form) == 'particles.star' else 'MicrographGroupMetadata'}.star.relion"


def _found(form: Form, folder: Path) -> list[tuple[str, str]]:
    """The subsets, whose number only the job knows where their size was given."""
    if not yes(form, "do_split"):
        return []
    names = sorted(folder.glob(_result(form).replace(".star", "_split*.star")), key=lambda path: (len(path.name), path.name))
    return [(path.name, _label(form)) for path in names]


def _read_back(given: dict[str, list[str]], form: Form) -> Form:
    """The classification, where it is its model that is selected from."""
    source = " ".join(given.get("--i", ()))
    return {"fn_model": source, "fn_data": ""} if source.endswith("_optimiser.star") else {}


def _outputs(form: Form, directory: str) -> list[tuple[str, str]]:
    name, label = _result(form).removesuffix(".star"), _label(form)
    if not yes(form, "do_split"):
        return [(f"{directory}{name}.star", label)]
    return [(f"{directory}{name}_split{part}.star", label) for part in range(1, int(float(form["nr_split"])) + 1)]


JOB_TYPE = JobType(
    name="Select", label="relion.select.interactive", code=7, command="select", fields=FORM, to_arguments=arguments_from_form, outputs=_outputs,
    places={"--o": "particles.star"},
    inputs={"--i": "ParticleGroupMetadata.star"},
    found=_found,
    read_back=_read_back,
    full_label=lambda form: next((f"relion.select.{label}" for key, label in _WAYS.items() if yes(form, key)), "relion.select.interactive"),
)  # fmt: skip
