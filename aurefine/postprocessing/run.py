"""One post-processing job from its half maps to its files (ALGORITHM.md 9.2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Thread

import numpy as np

from aurefine import folders, fourier, mrc
from aurefine import mtf as mtf_room
from aurefine.atomic import without_waiting_for_the_disk
from aurefine.job_control import JobControl
from aurefine.mtf import Mtf
from aurefine.postprocessing import curves as curve_room
from aurefine.postprocessing import messages, tables
from aurefine.postprocessing.curves import Curves
from aurefine.postprocessing.inputs import HalfMaps, Mask, fraction_of_weight, read_half_maps, read_mask
from aurefine.postprocessing.options import PostprocessOptions, refuse_existing, validate
from aurefine.postprocessing.sharpen import Guinier, Spectrum, sharpen
from aurefine.threads import at_once, in_parts, thread_count, use_threads


@dataclass(frozen=True)
class PostprocessResult:
    """What a job found: resolution in Angstrom, B-factor in square Angstrom, the sharpened map [z, y, x] (not masked)."""

    resolution: float
    bfactor: float
    pixel_size: float
    map: np.ndarray
    curves: Curves
    guinier: Guinier


def postprocess(options: PostprocessOptions, control: JobControl | None = None) -> PostprocessResult:
    """Sharpen the sum of two half maps and measure its resolution; writes all files of RELION's job under `options.output`.

    InputError for a mistake in the input, before anything is written.
    """
    with use_threads(thread_count(options.threads)), without_waiting_for_the_disk(not (control and control.in_project)):
        return _postprocess(options, control or JobControl(), messages.speaker(options.verbosity))


def _postprocess(options: PostprocessOptions, control: JobControl, say: messages.Say) -> PostprocessResult:
    halves, mask, mtf = prepare(options, say)
    _tell_mask(halves, mask, options, say)
    Thread(target=_load_figures).start()
    one, two = at_once(partial(fourier.transform_map, halves.one), partial(fourier.transform_map, halves.two))
    transforms = (one, two)
    spectrum = Spectrum(_mean(one, two), halves.pixel_size)
    kept = tuple(transform.copy() for transform in transforms) if options.half_maps else ()
    control.check()
    curves = curve_room.measure(halves, transforms, mask, options)
    resolution = curve_room.resolution_of(curve_room.last_shell(curves.corrected), halves)
    _tell_curves(halves, mask, curves, options, say)
    del transforms, one, two
    control.check()
    guinier, bfactor = sharpen(spectrum, curves.corrected, resolution, mtf, options)
    _tell_sharpening(resolution, guinier, bfactor, mtf, options, say)
    result = PostprocessResult(resolution, bfactor, halves.pixel_size, fourier.inverse_map(spectrum.values, halves.box), curves, guinier)
    control.check()
    _write(result, halves, mask, options, say)
    if kept:
        _write_halves(kept, result, mask, mtf, options, say)
    return result


def _load_figures() -> None:
    """Drawing takes a while to start, in which the maps can be transformed."""
    import aurefine.postprocessing.figures  # noqa: F401


def _mean(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """The mean of two transforms."""
    result = np.empty_like(one)

    def work(part: slice) -> None:
        for plane, first, second in zip(result[part], one[part], two[part], strict=True):
            np.add(first, second, out=plane)
            plane *= 0.5

    in_parts(work, len(one))
    return result


def prepare(options: PostprocessOptions, say: messages.Say) -> tuple[HalfMaps, Mask | None, Mtf | None]:
    """Read and check all input, and make the folder of the output."""
    validate(options)
    refuse_existing(options)
    for line in messages.reading((options.half1, options.second_half)):
        say(line)
    halves = read_half_maps(options)
    if options.pixel_size <= 0:
        messages.warn(f"You did not specify --angpix. The pixel size in the image header, {halves.pixel_size:g} A/px, is used.")
    if options.mtf_pixel_size <= 0:
        say(messages.assumed_mtf_pixel(halves.pixel_size))
    mask, mtf = read_mask(options, halves), mtf_room.read(options.mtf) if options.mtf else None
    folders.make(Path(options.output).parent)
    return halves, mask, mtf


def _say_all(say: messages.Say, lines: Iterable[str]) -> None:
    for line in lines:
        say(line)


def _tell_mask(halves: HalfMaps, mask: Mask | None, options: PostprocessOptions, say: messages.Say) -> None:
    if options.molecular_weight > 0:
        fraction = fraction_of_weight(halves.box, halves.pixel_size, options.molecular_weight)
        _say_all(say, messages.weight_lines(options.molecular_weight, fraction))
    if mask is None:
        say(messages.NO_MASK)
    else:
        _say_all(say, messages.mask_lines(mask.name, mask.fraction(), mask.molecular_weight(halves.pixel_size)))
        say(messages.MASKING)


def _tell_curves(halves: HalfMaps, mask: Mask | None, curves: Curves, options: PostprocessOptions, say: messages.Say) -> None:
    if mask is not None:
        say(messages.randomised_from(curve_room.resolution_of(curves.randomised_from, halves)))
    if curves.unmasked_is_better and options.force_mask:
        messages.warn("the unmasked FSC extends beyond the solvent-corrected FSC.")
    elif curves.unmasked_is_better:
        messages.warn("the unmasked FSC extends beyond the solvent-corrected FSC. Skip masking for now, but you may want to adjust you mask!\n"
                      "          You can force the mask by the '--force_mask' option.")  # fmt: skip
    if (curves.corrected[1:] >= curve_room.THRESHOLD).all():
        messages.warn(f"the FSC never drops below {curve_room.THRESHOLD}: the resolution given is Nyquist's. Was the data binned too far, "
                      "or are particles or noise shared between the half sets?")  # fmt: skip


def _tell_sharpening(resolution: float, guinier: Guinier, bfactor: float, mtf: Mtf | None, options: PostprocessOptions, say: messages.Say) -> None:
    if mtf is not None:
        _say_all(say, messages.mtf_lines(mtf.name))
    if not options.skip_fsc_weighting:
        say(messages.WEIGHTING)
    if options.auto_bfactor:
        _say_all(say, messages.fit_lines(options.auto_lowres, options.auto_highres, guinier.slope, guinier.intercept, guinier.correlation, bfactor))
        if bfactor == 0:
            messages.warn(f"no B-factor was applied: fewer than two shells hold signal beyond {options.auto_lowres:g} A (--autob_lowres); "
                          "give one with --adhoc_bfac, or fit from a lower resolution")  # fmt: skip
        elif bfactor > 0:
            messages.warn("the fitted B-factor is positive: it blurs the map instead of sharpening it; look at the Guinier plot")
    elif bfactor != 0:
        _say_all(say, messages.sharpening_lines(bfactor))
    if options.low_pass != 0:
        _say_all(say, messages.filter_lines(resolution if options.low_pass < 0 else options.low_pass))


def _write(result: PostprocessResult, halves: HalfMaps, mask: Mask | None, options: PostprocessOptions, say: messages.Say) -> None:
    from aurefine.postprocessing import figures  # only here: drawing takes a while to start

    root = options.output
    say(messages.WRITING)

    def write_curves() -> None:
        curves = tables.fsc_table(halves, mask, result.curves, options)
        tables.write_xml(Path(f"{root}_fsc.xml"), tables.resolutions(halves), result.curves.corrected)
        figures.draw(result, curves, options)
        content = [tables.general(halves, mask, result.curves, result.guinier, result.bfactor, options), curves, tables.guinier_table(result.guinier)]
        tables.write_star(Path(f"{root}.star"), content, options.command_line)

    writes = [write_curves, lambda: mrc.write_map(f"{root}.mrc", result.map, halves.pixel_size)]
    if mask is not None:
        writes.append(lambda: mrc.write_map(f"{root}_masked.mrc", result.map * mask.values, halves.pixel_size))
    at_once(*writes)  # each waits for the disk
    say(messages.field("Processed map", f"{root}.mrc"))
    if mask is not None:
        say(messages.field("Processed masked map", f"{root}_masked.mrc"))
    say(messages.field("Metadata file", f"{root}.star"))
    say(messages.field("FINAL RESOLUTION", result.resolution))


def _write_halves(transforms: tuple[np.ndarray, ...], result: PostprocessResult, mask: Mask | None, mtf: Mtf | None,
                  options: PostprocessOptions, say: messages.Say) -> None:  # fmt: skip
    """Both halves after the steps that the sum went through."""
    from dataclasses import replace

    say(messages.HALVES)
    fixed = replace(options, auto_bfactor=False, adhoc_bfactor=result.bfactor)
    for number, transform in enumerate(transforms, start=1):
        spectrum = Spectrum(transform, result.pixel_size)
        sharpen(spectrum, result.curves.corrected, result.resolution, mtf, fixed)
        values = fourier.inverse_map(spectrum.values, spectrum.box)
        mrc.write_map(f"{options.output}_half{number}.mrc", values, result.pixel_size)
        if mask is not None:
            mrc.write_map(f"{options.output}_half{number}_masked.mrc", values * mask.values, result.pixel_size)
        say(f"  + half{number}")
