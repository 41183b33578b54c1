"""What the image handler prints about images, and the averages that it writes over all of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from aurefine import mrc
from aurefine.errors import InputError
from aurefine.image_files import ImageInput
from aurefine.image_operations import centre_of_mass, power_spectrum, shell_correlation
from aurefine.image_operations.spectra import transform
from aurefine.job_control import JobControl
from aurefine.jobs.image_handler_flags import read_operand, size_text
from aurefine.jobs.outputs import free


def show(images: ImageInput, pixel_sizes: list[float], given: Mapping[str, Any], control: JobControl) -> None:
    """Print statistics, centres of mass, power spectra or correlations of every map and image, in RELION's words."""
    other = read_operand(given["fsc"], "--fsc", images) if given["fsc"] else None
    for file, pixel_size in zip(images.files, pixel_sizes):
        for values, labels in file.batches():
            control.check()
            for label, image in zip(labels, [values] if file.is_map else values):
                if given["stats"]:
                    print(_statistics(label, image, pixel_size))
                if given["com"]:
                    print(_centre(label, image))
                if given["power"]:
                    _print_curve("power", "rlnReferenceSpectralPower", power_spectrum(image), image.shape[-1], pixel_size)
                if other is not None:
                    curve = shell_correlation(image, other if file.is_map else other[0])
                    _print_curve("fsc", "rlnFourierShellCorrelation", curve, image.shape[-1], pixel_size)


def write_average(images: ImageInput, pixel_size: float, given: Mapping[str, Any], control: JobControl) -> None:
    """Write the average of all images, or of the (squared) amplitudes of their transforms."""
    output = free(given["output"], given["overwrite"])
    total, count = np.zeros(()), 0
    for file in images.files:
        for values, labels in file.batches():
            control.check()
            for label, image in zip(labels, [values] if file.is_map else values):
                part = _part(image, given)
                if count and part.shape != total.shape:
                    raise InputError(f"{label} has {size_text(image.shape)} pixels, unlike the images before it; average images of one size")
                total = total + part
                count += 1
    average = (total / count).astype(np.float32)
    if average.ndim == 3:
        mrc.write_map(output, average, pixel_size)
    else:
        mrc.write_stack(output, average[None], pixel_size)
    print(f" Written out: {output} (average of {count})")


def _part(image: np.ndarray, given: Mapping[str, Any]) -> np.ndarray:
    if given["average_power"]:
        return np.abs(transform(image)).astype(np.float64) ** 2
    return np.abs(transform(image)).astype(np.float64) if given["average_amplitude"] else image.astype(np.float64)


def _statistics(label: str, image: np.ndarray, pixel_size: float) -> str:
    depth = f" x {image.shape[0] if image.ndim == 3 else 1} x 1"
    smallest, largest, mean, spread = mrc.statistics(image)
    return (f"{label} : (x,y,z,n)= {image.shape[-1]} x {image.shape[-2]}{depth} ; avg= {mean:g} stddev= {spread:g} "
            f"minval= {smallest:g} maxval= {largest:g}; angpix = {pixel_size:g}")  # fmt: skip


def _centre(label: str, image: np.ndarray) -> str:
    centre = centre_of_mass(image)[::-1]
    return f"{label} : center of mass (relative to XmippOrigin)" + "".join(f" {axis} {value:g}" for axis, value in zip("xyz", centre))


def _print_curve(name: str, label: str, curve: np.ndarray, box: int, pixel_size: float) -> None:
    index = np.arange(len(curve))
    with np.errstate(divide="ignore"):
        angstrom = np.where(index > 0, box * pixel_size / index, 999.0)  # RELION's number for "no limit"
    columns = {"rlnSpectralIndex": index, "rlnResolution": 1 / angstrom, "rlnAngstromResolution": angstrom, label: curve}
    from aurefine.star_write import table_text  # only here: see image_files.py

    print("".join(table_text(name, columns, False, 30001)), end="")
