"""Operations on maps [z, y, x] and on stacks of images [n, y, x], as relion_image_handler does them (ALGORITHM.md 8).

A function with an argument `images` treats its first axis as a list of images when that is true, as z when it is false.
"""

from aurefine.image_operations.chain import Operations, apply
from aurefine.image_operations.filters import bandpass_gain, bfactor_gain, filter_directional, filter_radial, laplacian_of_gaussian_gain
from aurefine.image_operations.geometry import centre_of_mass, flip, invert_hand, rescale, shift, symmetrise, window
from aurefine.image_operations.spectra import adjust_power, fourier_filter, power_spectrum, randomise_phases, shell_correlation

__all__ = [
    "Operations", "adjust_power", "apply", "bandpass_gain", "bfactor_gain", "centre_of_mass", "filter_directional", "filter_radial", "flip",
    "fourier_filter", "invert_hand", "laplacian_of_gaussian_gain", "power_spectrum", "randomise_phases", "rescale", "shell_correlation", "shift",
    "symmetrise", "window",
]  # fmt: skip
