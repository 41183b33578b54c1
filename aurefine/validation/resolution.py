"""FSC of the half maps: whole, masked, and corrected by randomised phases (the cheap form of the noise-substitution test)."""

from __future__ import annotations

import numpy as np

from aurefine import fsc
from aurefine.job_control import JobControl
from aurefine.validation.inputs import Given
from aurefine.validation.options import ValidateOptions
from aurefine.validation.result import Measure, Validation

ROSENTHAL = "Rosenthal & Henderson 2003"
CHEN = "Chen et al. 2013"
_SEEN = 0.05  # a mask that adds this much FSC beyond the randomisation is too tight


def measure(found: Validation, given: Given, options: ValidateOptions, control: JobControl) -> None:
    """Rows `fsc_unmasked`, `fsc_masked`, `fsc_corrected` (Angstrom at 0.143), and how much the mask itself adds."""
    halves = given.halves
    if halves is None or given.mask is None:
        found.missing("Half maps, FSC 0.143", "fsc_unmasked", f"{given.files.name}: there are no unfiltered half maps", ROSENTHAL)
        return
    curves = fsc.mask_corrected(halves.one, halves.two, given.mask, seed=options.random_seed)
    if curves.randomised_from < 0:
        masked = fsc.of_maps(*given.masked)
    else:
        masked = curves.masked
    at = {name: fsc.resolution_at(curve, 0.143, halves.box, halves.pixel_size)
          for name, curve in (("unmasked", curves.unmasked), ("masked", masked), ("corrected", curves.corrected))}  # fmt: skip
    nyquist = f"whole box; Nyquist {2 * halves.pixel_size:.2f} A"
    found.add(Measure("fsc_unmasked", "Half maps, FSC 0.143", at["unmasked"], "A", "info", nyquist, ROSENTHAL),
              Measure("fsc_masked", "Half maps, masked", at["masked"], "A", "info", f"mask: {given.masked_by}", ROSENTHAL))  # fmt: skip
    frequency = np.arange(halves.box // 2 + 1) / (halves.box * halves.pixel_size)
    found.curves["fsc"] = {"frequency": frequency, "unmasked": curves.unmasked, "masked": masked}
    if curves.randomised_from < 0:
        found.missing("Phase-randomised correction", "fsc_corrected", "the FSC never falls below 0.8: there is no noise to randomise", CHEN)
        return
    tail = curves.randomised[curves.randomised_from + 2 :]
    added = float(tail.mean()) if len(tail) else 0.0
    start = halves.box * halves.pixel_size / max(curves.randomised_from, 1)
    words = "the mask adds little correlation" if added < _SEEN else "the mask adds correlation of its own: use a wider, softer one"
    found.add(Measure("fsc_corrected", "Half maps, corrected", at["corrected"], "A", "good" if added < _SEEN else "warning",
                      f"{words} (mean FSC {added:.3f} with phases randomised beyond {start:.1f} A)", CHEN))  # fmt: skip
    found.curves["fsc"] |= {"randomised": curves.randomised, "corrected": curves.corrected}
