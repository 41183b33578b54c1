"""A paragraph for the methods section, and the table of parameters: sentences are there only where a file of the run says what they tell."""

from __future__ import annotations

from aurefine import __version__
from aurefine.errors import InputError
from aurefine.reporting.facts import Facts, Optics
from aurefine.reporting.validation_plots import read_validation

REFERENCES = (
    ("RELION's method", "Scheres, S. H. W. (2012). RELION: implementation of a Bayesian approach to cryo-EM structure determination. "
     "J. Struct. Biol. 180, 519-530."),
    ("half-sets", "Scheres, S. H. W. & Chen, S. (2012). Prevention of overfitting in cryo-EM structure determination. Nat. Methods 9, 853-854."),
    ("FSC 0.143", "Rosenthal, P. B. & Henderson, R. (2003). Optimal determination of particle orientation, absolute hand, and contrast loss in "
     "single-particle electron cryomicroscopy. J. Mol. Biol. 333, 721-745."),
)  # fmt: skip


def number(value: float | None, digits: int = 3) -> str:
    """A number as a paper prints it: 7.31, 200, 0.94."""
    if value is None:
        return "unknown"
    text = f"{value:.{digits}g}" if abs(value) < 10**digits else f"{value:.0f}"
    return text


def paragraph(facts: Facts) -> str:
    """The methods paragraph, one sentence after the other."""
    parts = (_particles, _refinement, _reference, _images, _search, _course, _resolution, _post, _validation)
    return " ".join(sentence for sentence in (part(facts) for part in parts) if sentence)


def text(facts: Facts) -> str:
    """`methods.txt`: the paragraph, the references that go with it, the run's warnings, and how it was made."""
    references = "\n".join(f"* {what}: {entry}" for what, entry in REFERENCES)
    made = f"Written by aurefine {__version__} from the files of {facts.job}; every number is one of theirs. Check it before it is printed."
    command = f"Command line of the run:\n{command_line(facts)}\n\n" if facts.command else ""
    told = "".join(f"* {each}\n" for each in facts.warnings)
    warnings = f"Warnings of the run\n{told}\n" if told else ""
    return f"{paragraph(facts)}\n\nReferences\n{references}\n\n{warnings}{command}{made}\n"


def command_line(facts: Facts) -> str:
    """The run's first command line as its files keep it, without the program's name; "" where they do not."""
    return " ".join(facts.command)


def _particles(facts: Facts) -> str:
    if not facts.particles:
        return ""
    source = f" from {facts.micrographs:,} micrograph{'s' if facts.micrographs > 1 else ''}" if facts.micrographs else ""
    groups = [group for group in facts.optics if group.particles]
    if len(groups) == 1:
        return f"The data were {facts.particles:,} particles{source} ({_microscope(groups[0])}), {_box(facts)}.{_set_aside(facts)}"
    listed = "; ".join(f"{group.particles:,} particles: {_microscope(group)}" for group in groups)
    within = f", in {len(groups)} optics groups ({listed})" if groups else ""
    return f"The data were {facts.particles:,} particles{source}, {_box(facts)}{within}.{_set_aside(facts)}"


def _set_aside(facts: Facts) -> str:
    counts = ((facts.unusable, "with images that are unusable or duplicated"), (facts.without_signal, "in whose images the map was hardly found"))
    told = [f"{count:,} {what}" for count, what in counts if count]
    return f" Further particles were set aside: {' and '.join(told)}." if told else ""


def _box(facts: Facts) -> str:
    model = facts.last.model
    return f"in boxes of {model.box} x {model.box} pixels of {number(model.pixel_size, 4)} Å"


def _microscope(group: Optics) -> str:
    said = []
    if group.voltage:
        said.append(f"{number(group.voltage)} kV")
    if group.spherical_aberration is not None:
        said.append(f"spherical aberration {number(group.spherical_aberration)} mm")
    if group.amplitude_contrast is not None:
        said.append(f"amplitude contrast {number(group.amplitude_contrast)}")
    return ", ".join(said) or f"optics group {group.name}"


def _refinement(facts: Facts) -> str:
    program = f" with {facts.program}" if facts.program else ""
    halves = f" of {facts.halves[0]:,} and {facts.halves[1]:,} particles" if all(facts.halves) else ""
    symmetry = facts.last.symmetry
    imposed = "" if not symmetry else " without symmetry (C1)" if symmetry == "C1" else f", with {symmetry} symmetry imposed"
    joined = facts.setting("rlnJoinHalvesUntilThisResolution")
    low = f"; the two maps were joined up to {number(joined)} Å to keep them in one orientation" if joined and joined > 0 else ""
    blush = " Blush regularisation was used." if facts.setting("rlnDoBlush") else ""
    helix = " Helical symmetry was refined." if facts.setting("rlnDoHelicalRefine") else ""
    return f"The map was refined by 3D auto-refinement{program} from two half-sets{halves} kept apart throughout{imposed}{low}.{blush}{helix}"


def _reference(facts: Facts) -> str:
    lowpass = facts.number("--ini_high")
    if facts.flag("--ref") in (None, ""):
        return ""
    filtered = f", low-pass filtered to {number(lowpass)} Å" if lowpass and lowpass > 0 else ""
    return f"The initial reference was {facts.flag('--ref')}{filtered}."


def _images(facts: Facts) -> str:
    said = []
    if facts.setting("rlnDoCorrectCtf"):
        only = " only from its first peak on" if facts.setting("rlnDoIgnoreCtfUntilFirstPeak") else ""
        said.append(f"the CTF was corrected for{only}")
    elif "rlnDoCorrectCtf" in facts.settings:
        said.append("no CTF correction was made")
    diameter = facts.setting("rlnParticleDiameter")
    if diameter and diameter > 0:
        filled = "zeros" if facts.setting("rlnDoZeroMask") else "noise"
        said.append(f"images were masked to a circle of {number(diameter)} Å diameter and filled with {filled} outside")
    mask = facts.file("rlnSolventMaskName")
    if mask:
        said.append(f"the references were masked with {mask}")
    sentence = "; ".join(said)
    return sentence[:1].upper() + sentence[1:] + "." if sentence else ""


def _search(facts: Facts) -> str:
    last = facts.last
    if last.step is None:
        return ""
    offsets = f" and of offsets {number(last.offset_step)} Å" if last.offset_step else ""
    local = f", with local searches from iteration {facts.local_from} on" if facts.local_from is not None else ", with global searches throughout"
    accuracy, shifts = last.model.accuracy_angles, last.model.accuracy_offsets
    reached = f" The program's estimate of their accuracy was {number(accuracy)}° and {number(shifts)} Å." if accuracy and shifts else ""
    return f"The final step of orientations was {number(last.step)}°{offsets}{local}.{reached}"


def _course(facts: Facts) -> str:
    went_on = " The run was interrupted and continued." if facts.continued else ""
    if facts.finished:
        return f"It converged after {facts.rounds} iterations, and a last one joined the two halves, with data to the Nyquist frequency.{went_on}"
    return f"It has not converged: these are the values of iteration {facts.last.number}.{went_on}"


def _resolution(facts: Facts) -> str:
    if not facts.resolution:
        return ""
    how = "corrected for the solvent mask" if facts.setting("rlnDoSolventFscCorrection") else "of the unmasked half-maps"
    nyquist = number(2 * facts.last.model.pixel_size)
    limit = f" (the curve does not fall below 0.143 before the Nyquist frequency, {nyquist} Å)" if facts.is_nyquist else ""
    return f"The resolution by the Fourier shell correlation {how} at 0.143 was {number(facts.resolution)} Å{limit}."


def _post(facts: Facts) -> str:
    found = facts.related.postprocess
    if found is None:
        return ""
    masked = f" with the mask {found.mask} and corrected for its effect by randomised phases" if found.mask else " without a mask"
    sharpened = f" The map was sharpened with a B-factor of {found.bfactor:.1f} Å²." if found.bfactor else ""
    program = f" by {found.program}" if found.program else ""
    job = f"{found.folder.parent.name}/{found.folder.name}"
    return f"Post-processing{program} ({job}){masked} gave {number(found.resolution)} Å at FSC 0.143.{sharpened}"


_MEASURES = (
    ("cfar", "conical FSC area ratio (cFAR) {}"), ("sphericity", "sphericity of the 3D FSC {}"),
    ("scf", "sampling compensation factor (SCF*) {}"), ("efficiency", "efficiency of the orientation distribution {}"),
    ("model_fsc", "FSC 0.5 with the atomic model at {}"), ("noise_substitution", "FSC 0.143 corrected by noise substitution at {}"),
)  # fmt: skip


def _validation(facts: Facts) -> str:
    """Figures of the newest validation; what was not computed is left out."""
    path = facts.related.validation
    if path is None:
        return ""
    try:
        values = {row.key: row.value for row in read_validation(path).rows if row.verdict != "missing"}
    except InputError:  # cut short, or of a later version
        return ""
    told = [words.format(values[key]) for key, words in _MEASURES if key in values]
    return f"Validation ({path.parent.parent.name}/{path.parent.name}) gave: {'; '.join(told)}." if told else ""


def parameters(facts: Facts) -> list[tuple[str, str]]:
    """Rows of the table of parameters, name and value; only those that are known."""
    model, last = facts.last.model, facts.last
    halves = f" ({facts.halves[0]:,} + {facts.halves[1]:,})" if all(facts.halves) else ""
    rows = [
        ("Job", facts.job),
        ("Program", facts.program),
        ("State", f"converged after {facts.rounds} iterations" if facts.finished else f"not finished, iteration {last.number}"),
        ("Particles", f"{facts.particles:,}{halves}" if facts.particles else ""),
        ("Set aside", f"{facts.unusable + facts.without_signal:,}" if facts.unusable + facts.without_signal else ""),
        ("Micrographs", f"{facts.micrographs:,}" if facts.micrographs else ""),
        *_optics_rows(facts),
        ("Box", f"{model.box} px of {number(model.pixel_size, 4)} Å"),
        ("Symmetry", last.symmetry),
        ("Reference", facts.flag("--ref") or ""),
        ("Initial low-pass", _positive(facts.number("--ini_high"), " Å")),
        ("Particle mask", _positive(facts.setting("rlnParticleDiameter"), " Å")),
        ("Solvent mask", facts.file("rlnSolventMaskName")),
        ("Final angular step", _positive(last.step, "°")),
        ("Final offset step", _positive(last.offset_step, " Å")),
        ("Local searches", f"from iteration {facts.local_from}" if facts.local_from is not None else "none"),
        ("Accuracy, angles", _positive(model.accuracy_angles, "°")),
        ("Accuracy, offsets", _positive(model.accuracy_offsets, " Å")),
        ("Average Pmax", _positive(model.pmax, "")),
        ("Resolution", f"{facts.resolution:.2f} Å, as reported" if facts.resolution else ""),
        ("FSC 0.143 crossing", f"{facts.fsc143:.2f} Å" if facts.fsc143 else ""),
        ("Random seed", number(facts.setting("rlnRandomSeed"), 12)),
        *_post_rows(facts),
    ]
    return [(name, value) for name, value in rows if value not in ("", "unknown")]


def _positive(value: float | None, unit: str) -> str:
    return f"{number(value)}{unit}" if value and value > 0 else ""


def _optics_rows(facts: Facts) -> list[tuple[str, str]]:
    groups = [group for group in facts.optics if group.particles]
    rows = [(f"Optics {group.name}" if len(groups) > 1 else "Optics",
             f"{number(group.voltage)} kV, Cs {number(group.spherical_aberration)} mm, amplitude contrast {number(group.amplitude_contrast)}")
            for group in groups[:4]]  # fmt: skip
    return [*rows, ("Optics, others", f"{len(groups) - 4} more groups")] if len(groups) > 4 else rows


def _post_rows(facts: Facts) -> list[tuple[str, str]]:
    post = facts.related.postprocess
    if post is None:
        return []
    return [("Post-processed", f"{post.resolution:.2f} Å"), ("B-factor", f"{post.bfactor:.1f} Å²" if post.bfactor else ""), ("FSC mask", post.mask)]
