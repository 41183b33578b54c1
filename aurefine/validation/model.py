"""The map against an atomic model (map-model FSC, also of each half map), and which hand of a model or reference map fits.

Sources: Rosenthal & Henderson (2003), J. Mol. Biol. 333, 721 (FSC 0.5 of a map with a perfect one, and C_ref = sqrt(2 FSC / (1 + FSC)));
Amunts et al. (2014), Science 343, 1485, and Brown et al. (2015), Acta Cryst. D71, 136 (each half map against a model refined into one of them).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aurefine import fourier, fsc, maps, molecule, mrc, rigid_fit
from aurefine.errors import InputError
from aurefine.image_operations.geometry import invert_hand
from aurefine.job_control import JobControl
from aurefine.validation.inputs import Given
from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation, Verdict

ROSENTHAL = "Rosenthal & Henderson 2003"
BROWN = "Amunts et al. 2014; Brown et al. 2015"
HAND = "rigid-body search with both hands"
PRESENT = 0.25  # mean correlation up to the map's resolution below which a model or reference does not lie in the map
_TELLS = 0.05  # difference of the mean correlations of both hands below which hands are not told apart
_SHARE = 0.05  # mean difference of the halves' FSC from which a model was fitted to one of them
_FINER, _COARSER = 0.85, 1.35  # FSC 0.5 with a good model lies near FSC 0.143 of the half maps
_FARTHEST = 60.0  # Angstrom; below, a map has no shape to search by
_BFACTOR = 50.0
_MIRROR = np.diag([1.0, 1.0, -1.0])


@dataclass(frozen=True, eq=False)
class Body:
    """What the map is compared with: a model about the box's centre, or a map [n, n, n] on the half maps' grid."""

    name: str
    model: molecule.Molecule | None = None
    volume: np.ndarray | None = None

    def density(self, box: int, pixel_size: float, mirrored: bool = False) -> np.ndarray:
        """Its map, float32 [n, n, n], or that of its mirror image."""
        if self.model is not None:
            placed = self.model.moved(_MIRROR, np.zeros(3)) if mirrored else self.model
            return placed.density(box, pixel_size, _BFACTOR, single=True)
        assert self.volume is not None
        volume = invert_hand(self.volume) if mirrored else self.volume
        return volume if len(volume) == box else maps.fourier_rescale(volume, box, single=True)


def measure(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """Rows `model_fsc`, `model_halves`, `hand`, and the curves `model_fsc`; nothing where neither a model nor a reference map was given."""
    if not (options.model or options.reference_map):
        return
    if given.halves is None:
        reason = f"{given.files.name}: there are no unfiltered half maps"
        if options.model:
            found.missing("Map and model, FSC 0.5", "model_fsc", reason, ROSENTHAL)
        found.missing("Hand", "hand", reason, HAND)
        return
    model = read_model(options.model, given) if options.model else None
    body = model or read_reference(options.reference_map, given)
    resolution = min(_FARTHEST, found.value("fsc_masked") or _FARTHEST)
    pixel_size, box = given.halves.pixel_size, given.halves.box
    small = rigid_fit.working_box(box, pixel_size, resolution)  # a fit needs no finer map, and large ones take long
    full, coarser = maps.fourier_rescale(_full(given), small, single=True), pixel_size * box / small

    def fitted(mirrored: bool) -> rigid_fit.Fit:
        return rigid_fit.search(full, body.density(small, coarser, mirrored), coarser, resolution, given.symmetry, control.check)

    stands = rigid_fit.score(full, body.density(small, coarser), coarser, resolution)
    fit = fitted(mirrored=False) if options.fit_model or not options.skip_hand else None
    if model is not None and model.model is not None:
        used = model.model.moved(fit.rotation, fit.shift) if fit is not None and options.fit_model else model.model
        _correlate(found, given, used.density(box, pixel_size, _BFACTOR, single=True), _placed(stands, fit, options))
        if fit is not None and options.fit_model:
            shift = fit.shift + (np.eye(3) - fit.rotation) @ centre(given)
            found.files["model_fitted.cif"] = molecule.moved_model(options.model, fit.rotation, shift)
    if fit is not None and not options.skip_hand:
        _hand(found, body, fit, fitted(mirrored=True), resolution)


def read_model(path: str, given: Given) -> Body:
    """The model where its coordinates put it in the map: the first voxel lies at the header's origin. InputError for what is no model."""
    return Body(path, molecule.from_model(path, centred=False).moved(np.eye(3), -centre(given)))


def centre(given: Given) -> np.ndarray:
    """The place [3] (x, y, z, Angstrom) of the box's centre in a model's coordinates."""
    assert given.halves is not None
    return np.array(mrc.read_header(given.halves.names[0]).origin) + given.halves.box // 2 * given.halves.pixel_size


def read_reference(path: str, given: Given) -> Body:
    """A map resampled to the half maps' pixels; InputError for what is no cubic map with an even box."""
    assert given.halves is not None
    values, pixel_size = mrc.read_map(path)
    if len(set(values.shape)) != 1 or len(values) % 2:
        raise InputError(f"--reference_map {path}: a cube with an even number of voxels was expected, but it has {values.shape[::-1]}")
    if not mrc.read_header(path).states_pixel_size:
        raise InputError(f"--reference_map {path}: the header gives no pixel size; write it with `aurefine image_handler --angpix`")
    return Body(path, volume=maps.fit_to(values, pixel_size, given.halves.box, given.halves.pixel_size)[0])


def _full(given: Given) -> np.ndarray:
    """Mean of the half maps under the mask."""
    assert given.halves is not None and given.mask is not None
    return 0.5 * (given.halves.one + given.halves.two) * given.mask


@dataclass(frozen=True)
class _Placement:
    """Whether the model lies in the map, and a sentence on it."""

    present: bool
    words: str


def _placed(stands: float, fit: rigid_fit.Fit | None, options: ValidateOptions) -> _Placement:
    if fit is None:
        words = "" if stands >= PRESENT else f"the model does not lie in the map (correlation {stands:.2f}); --fit_model looks for its place"
        return _Placement(stands >= PRESENT, words)
    off = f"turned by {fit.angle:.1f} degrees and moved by {np.linalg.norm(fit.shift):.1f} A"
    if options.fit_model:
        return _Placement(fit.score >= PRESENT, f"the model was {off} (correlation {stands:.2f}, then {fit.score:.2f})")
    if stands >= PRESENT and stands > fit.score - 0.1:
        return _Placement(True, "")
    if fit.score < PRESENT:
        scores = f"correlation {stands:.2f} where it stands, {fit.score:.2f} at best"
        return _Placement(False, f"the model fits nowhere ({scores}): is it of this molecule, and of this hand?")
    return _Placement(stands >= PRESENT, f"the model does not lie in the map: correlation {stands:.2f} where it stands, {fit.score:.2f} when {off}; "
                      "--fit_model does so")  # fmt: skip


def _correlate(found: Validation, given: Given, density: np.ndarray, placement: _Placement) -> None:
    """Curves and rows of the model's map [n, n, n] against the full and the half maps, all under the mask."""
    halves, mask = given.halves, given.mask
    assert halves is not None and mask is not None
    full = 0.5 * (halves.one + halves.two)
    density = with_power_of(density, full) * mask
    each = {"model": full, "model_half1": halves.one, "model_half2": halves.two}
    curves = {name: fsc.of_maps(volume * mask, density) for name, volume in each.items()}
    frequency = np.arange(halves.box // 2 + 1) / (halves.box * halves.pixel_size)
    between = found.curves["fsc"].get("corrected", found.curves["fsc"]["masked"])
    expected = np.sqrt(2 * np.clip(between, 0, 1) / (1 + np.clip(between, 0, 1)))
    found.curves["model_fsc"] = {"frequency": frequency, **curves, "expected": expected}
    at = {name: fsc.resolution_at(curve, 0.5, halves.box, halves.pixel_size) for name, curve in curves.items()}
    reached = found.value("fsc_corrected") or found.value("fsc_masked") or at["model"]
    verdict, words = _judged(at["model"], reached, placement)
    found.add(Measure("model_fsc", "Map and model, FSC 0.5", at["model"], "A", verdict,
                      f"{words}{placement.words and '; ' + placement.words}", ROSENTHAL))  # fmt: skip
    last = max(2, min(halves.box // 2, int(halves.box * halves.pixel_size / reached)))
    apart = float((curves["model_half1"] - curves["model_half2"])[1 : last + 1].mean())
    both = f"FSC 0.5 at {at['model_half1']:.2f} and {at['model_half2']:.2f} A"
    alike = abs(apart) < _SHARE
    told = "both halves alike" if alike else f"the model fits half {1 if apart > 0 else 2} better: it was refined into it, and over-fitted"
    graded: Verdict = "info" if not placement.present else "good" if alike else "warning"
    found.add(Measure("model_halves", "Model, half 1 - half 2", apart, "", graded,
                      f"{told} (mean difference of FSC, marked from {_SHARE:g}); {both}", BROWN))  # fmt: skip


def _judged(resolution: float, reached: float, placement: _Placement) -> tuple[Verdict, str]:
    if not placement.present:
        return "poor", "map and model do not agree"
    told = f"half maps reach {reached:.2f} A at 0.143"
    if resolution < _FINER * reached:
        return "warning", f"finer than the data allow: the model was fitted to noise, or the half maps are not of this map ({told})"
    if resolution > _COARSER * reached:
        return "warning", f"the model explains less than the half maps share ({told}): it is incomplete, wrong in places, or in another state"
    return "good", f"in keeping with the half maps ({told})"


def with_power_of(volume: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A map with the power of each shell of another: under a mask, strong shells of one leak into weak ones as those of the other do."""
    shell, transform = fourier.shell_index_3d(len(volume)), fourier.transform_map(volume)
    wanted, is_there = fourier.power_spectrum(other), fourier.power_spectrum(volume)
    gain = np.append(np.sqrt(wanted / np.maximum(is_there, 1e-30)) * (is_there > 1e-12 * is_there.max()), 0.0)
    return fourier.inverse_map((transform * gain[np.minimum(shell, len(gain) - 1)]).astype(np.complex64), len(volume))


def _hand(found: Validation, body: Body, fit: rigid_fit.Fit, other: rigid_fit.Fit, resolution: float) -> None:
    margin = fit.score - other.score
    what = "the model" if body.model is not None else "the reference"
    scores = f"correlation {fit.score:.3f} as it is, {other.score:.3f} mirrored, to {resolution:.1f} A"
    verdict: Verdict
    if max(fit.score, other.score) < PRESENT:
        verdict, words = "info", f"cannot be told: {what} fits with neither hand"
    elif abs(margin) < _TELLS:
        verdict, words = "info", f"cannot be told: {what} fits as well mirrored, as anything does at low resolution or with a mirror symmetry"
    elif margin > 0:
        verdict, words = "good", f"the hand of {what}"
    else:
        verdict, words = "poor", f"the other hand than {what}: mirror the map (`aurefine image_handler --invert_hand`)"
    found.add(Measure("hand", "Hand", margin, "", verdict, f"{words} ({scores})", HAND))


def check_files(options: ValidateOptions) -> None:
    """InputError for a name that is no file, or for an option that needs another one."""
    for flag, path in (("--model", options.model), ("--reference_map", options.reference_map)):
        if path and not Path(path).is_file():
            raise InputError(f"{flag} {path}: there is no such file; names are relative to {Path.cwd()}")
    if options.fit_model and not options.model:
        raise InputError("--fit_model places an atomic model: give one with --model")
