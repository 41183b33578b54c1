from __future__ import annotations

import numpy as np
import pytest

from aurefine import euler, healpix


def vectors(order, pixel=None):
    angles = healpix.centres(order, pixel)
    return euler.view_direction(angles[..., 0], angles[..., 1])


@pytest.mark.parametrize("order", [0, 1, 2, 4, 6])
def test_centres_are_distinct_and_balanced(order):
    centres = vectors(order)
    assert len(centres) == 12 * 4**order == len(np.unique(np.round(centres, 9), axis=0))
    np.testing.assert_allclose(centres.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose((centres**2).mean(axis=0), 1 / 3, atol=0.6 / 4**order)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_every_pixel_lies_around_its_children(order):
    children = vectors(order + 1, healpix.children(np.arange(12 * 4**order), 1))
    parents = vectors(order)
    angle = np.degrees(np.arccos(np.clip(np.einsum("pcj,pj->pc", children, parents), -1, 1)))
    assert angle.max() < healpix.max_pixel_radius(order)
    middle = children.mean(axis=1)
    middle /= np.linalg.norm(middle, axis=1)[:, None]
    assert np.degrees(np.arccos(np.einsum("pj,pj->p", middle, parents))).max() < 0.25 * healpix.max_pixel_radius(order)


def test_rings_of_the_belt_and_the_caps_are_where_the_definition_puts_them():
    z = np.unique(np.round(vectors(2)[:, 2], 10))
    caps = [1 - i**2 / 48 for i in (1, 2, 3)]
    belt = [2 / 3 - i / 6 for i in range(9)]
    np.testing.assert_allclose(z, sorted(caps + belt + [-c for c in caps]), atol=1e-9)


def test_rot_is_wrapped_as_relion_wraps_it():
    rot = healpix.centres(4)[:, 0]
    assert rot.min() > -180 and rot.max() <= 180


@pytest.mark.parametrize("order", [0, 3, 7, 12])
def test_agrees_with_astropy_healpix(order):
    astropy_healpix = pytest.importorskip("astropy_healpix", reason="astropy-healpix is not installed")
    pixel = np.random.default_rng(order).integers(0, 12 * 4**order, 2000)
    longitude, latitude = astropy_healpix.healpix_to_lonlat(pixel, 2**order, order="nested")
    np.testing.assert_allclose(vectors(order, pixel), euler.view_direction(longitude.deg, 90 - latitude.deg), atol=1e-13)


@pytest.mark.parametrize("order", [-1, 13])
def test_orders_that_do_not_exist_are_refused(order):
    with pytest.raises(ValueError, match="outside 0..12"):
        healpix.centres(order)


def test_pixels_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="from 0 to 191"):
        healpix.centres(2, [192])
