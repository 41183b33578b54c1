"""RELION's own projections of a single voxel (`relion_project --ctf`): the answer is analytic, so it settles every convention."""

from __future__ import annotations

from types import SimpleNamespace

import mrcfile
import numpy as np
import pytest

from aurefine import ctf, euler, star

BOX, PIXEL, DISTANCE = 64, 3.54, 17.0  # the voxel of value 1 lies at x = +17, y = z = 0 from the centre
STACKS = {1: "relion_proj_batch.mrcs", 2: "relion_proj_batch_pfac2.mrcs", 3: "relion_proj_batch_pfac3.mrcs"}
OPTICS = SimpleNamespace(voltage=200.0, spherical_aberration=1.4, amplitude_contrast=0.1)


def frequencies():
    """Integer frequencies of the half-transform inside the Nyquist circle, and the mask that picks them."""
    y, x = np.meshgrid(np.fft.fftfreq(BOX) * BOX, np.arange(BOX // 2 + 1), indexing="ij")
    inside = x**2 + y**2 < (BOX // 2) ** 2
    return x[inside], y[inside], inside


@pytest.fixture(scope="module")
def oracle(shared_data):
    folder = shared_data / "oracle_pointmass"
    columns = star.read(folder / "relion_proj_batch.star")["particles"].columns
    column = {name: np.asarray(values) for name, values in columns.items()}
    x, y, inside = frequencies()
    names = {"defocus_u": "DefocusU", "defocus_v": "DefocusV", "defocus_angle": "DefocusAngle"}
    names |= {"bfactor": "CtfBfactor", "scale": "CtfScalefactor", "phase_shift": "PhaseShift"}
    table = SimpleNamespace(**{field: column[f"rln{label}"] for field, label in names.items()})
    images = {padding: mrcfile.read(folder / name) for padding, name in STACKS.items()}
    return SimpleNamespace(
        x=x,
        y=y,
        rotation=euler.to_matrix(np.stack([column[f"rlnAngle{name}"] for name in ("Rot", "Tilt", "Psi")], axis=1)),
        offset=np.stack([column["rlnOriginXAngst"], column["rlnOriginYAngst"]], axis=1) / PIXEL,
        ctf=ctf.evaluate(table, np.arange(24), OPTICS, x / (BOX * PIXEL), y / (BOX * PIXEL)),
        transforms={padding: np.fft.rfft2(np.fft.ifftshift(stack, axes=(1, 2)))[:, inside] for padding, stack in images.items()},
    )


def ramp(oracle, position):
    """Transform of points at `position [24, 2]` (pixels from the centre)."""
    return np.exp(-2j * np.pi * (position[:, :1] * oracle.x + position[:, 1:] * oracle.y) / BOX)


def test_points_lie_at_the_rotated_place_minus_the_offset(oracle):
    """p_image = A p_volume, and the offset in the file is what has to be applied to the image to undo the shift."""
    expected = DISTANCE * oracle.rotation[:, :2, 0] - oracle.offset
    model = oracle.ctf * ramp(oracle, expected)
    data = oracle.transforms[3]
    slopes = -2j * np.pi / BOX * np.stack([oracle.x * model, oracle.y * model], axis=1)  # one Gauss-Newton step is exact enough
    for image in range(24):
        columns = np.concatenate([slopes[image], model[image : image + 1]])
        design = np.concatenate([columns.real, columns.imag], axis=1).T
        dx, dy, amplitude = np.linalg.lstsq(design, np.concatenate([data[image].real, data[image].imag]), rcond=None)[0]
        assert abs(dx) < 0.05 and abs(dy) < 0.05
        assert amplitude == pytest.approx(1, abs=0.01)


def test_the_transfer_function_is_relions_in_every_shell(oracle):
    """Amplitude of the data along the model, shell by shell: within 1 % for all images."""
    model = oracle.ctf * ramp(oracle, DISTANCE * oracle.rotation[:, :2, 0] - oracle.offset)
    shell = np.rint(np.hypot(oracle.x, oracle.y)).astype(int)
    for s in range(2, 31):
        along = np.sum((oracle.transforms[3] * model.conj()).real[:, shell == s], axis=1)
        np.testing.assert_allclose(along / np.sum(np.abs(model[:, shell == s]) ** 2, axis=1), 1, atol=0.01)


@pytest.mark.parametrize("padding", STACKS)
def test_with_the_interpolation_written_out_the_agreement_is_exact(oracle, padding):
    """Trilinear interpolation in the padded transform (linear along x for this point), sinc^2 correction, shift and CTF: 2e-7."""
    x = padding * (oracle.rotation[:, 0, 0, None] * oracle.x + oracle.rotation[:, 1, 0, None] * oracle.y)
    below, angle = np.floor(x), 2 * np.pi * DISTANCE / (BOX * padding)
    slice_ = (1 - (x - below)) * np.exp(-1j * angle * below) + (x - below) * np.exp(-1j * angle * (below + 1))
    model = oracle.ctf * slice_ / np.sinc(DISTANCE / (BOX * padding)) ** 2 * ramp(oracle, -oracle.offset)
    inner = oracle.x**2 + oracle.y**2 <= 30**2  # RELION leaves out what its projector does not hold
    np.testing.assert_allclose(oracle.transforms[padding][:, inner], model[:, inner], atol=5e-7)
