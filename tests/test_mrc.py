from __future__ import annotations

import errno
import os

import mrcfile
import numpy as np
import pytest

from aurefine import mrc
from aurefine.errors import InputError


@pytest.fixture
def volume():
    return np.random.default_rng(1).normal(size=(4, 6, 8)).astype(np.float32)


def test_a_written_map_is_read_back_and_valid_for_others(tmp_path, volume):
    path = tmp_path / "map.mrc"
    mrc.write_map(path, volume, 1.37)
    again, pixel_size = mrc.read_map(path)
    assert np.array_equal(again, volume) and pixel_size == 1.37 and again.dtype == np.float32
    assert mrcfile.validate(path)
    with mrcfile.open(path) as other:
        assert np.array_equal(other.data, volume) and other.is_volume() and abs(float(other.voxel_size.x) - 1.37) < 1e-6
        assert np.isclose(other.header.rms, volume.std()) and np.isclose(other.header.dmax, volume.max())
        assert other.header.nxstart == 0 and other.header.origin.x == 0 and bytes(other.header.machst) == b"\x44\x41\x00\x00"


@pytest.mark.parametrize("float16", [False, True])
def test_a_written_stack_is_read_by_index(tmp_path, float16):
    images = np.random.default_rng(2).normal(size=(7, 4, 4)).astype(np.float16).astype(np.float32)
    path = tmp_path / "s.mrcs"
    mrc.write_stack(path, images, 2.0, float16)
    assert mrcfile.validate(path)
    with mrcfile.open(path) as other:
        assert other.is_image_stack() and other.data.dtype == (np.float16 if float16 else np.float32)
    stack = mrc.Stack(path)
    assert (stack.count, stack.height, stack.width, stack.pixel_size) == (7, 4, 4, 2.0)
    wanted = [5, 1, 2, 3, 3, 0]
    assert np.array_equal(stack.read(wanted), images[wanted]) and stack.read([]).shape == (0, 4, 4)


@pytest.mark.parametrize(("mode", "dtype"), [(0, "i1"), (1, "i2"), (2, "f4"), (6, "u2"), (12, "f2")])
@pytest.mark.parametrize("order", "<>")
def test_every_mode_is_read_in_both_byte_orders(tmp_path, mode, dtype, order):
    path = tmp_path / "m.mrc"
    values = np.random.default_rng(mode).integers(0, 100, size=(3, 4, 5))
    words = np.zeros(256, dtype=order + "i4")
    words[:4] = 5, 4, 3, mode
    words[7:10] = 5, 4, 3
    words.view(order + "f4")[10:13] = np.array([5, 4, 3]) * 1.5
    words[23] = 80  # an extended header
    path.write_bytes(words.tobytes() + b"x" * 80 + values.astype(order + dtype).tobytes())
    read, pixel_size = mrc.read_map(path)
    assert np.array_equal(read, values) and pixel_size == 1.5


@pytest.mark.parametrize("axes", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2), (2, 1, 3), (1, 3, 2)])
def test_every_axis_order_gives_the_same_map(tmp_path, volume, axes):
    path = tmp_path / "m.mrc"
    column, row, section = axes
    stored = np.ascontiguousarray(volume.transpose([3 - section, 3 - row, 3 - column]))  # array axes are z, y, x
    mrc.write_map(path, stored, 1.0)
    with mrcfile.open(path, "r+", permissive=True) as other:
        other.header.mapc, other.header.mapr, other.header.maps = axes
        other.header.nxstart = -5
        other.header.origin.x = 100
    assert np.array_equal(mrc.read_map(path)[0], volume)


def test_a_truncated_file_is_named(tmp_path):
    path = tmp_path / "s.mrcs"
    mrc.write_stack(path, np.zeros((5, 4, 4)), 1.0)
    path.write_bytes(path.read_bytes()[:-70])
    with pytest.raises(InputError, match=r"s\.mrcs: truncated: the header claims 5 sections .* only 3 whole"):
        mrc.Stack(path)


def test_foreign_missing_and_complex_files_are_named(tmp_path):
    path = tmp_path / "x.mrc"
    with pytest.raises(InputError, match="no such file"):
        mrc.read_map(path)
    path.write_text("data_particles\n" * 100)
    with pytest.raises(InputError, match="not an MRC file"):
        mrc.read_map(path)
    path.write_bytes(b"short")
    with pytest.raises(InputError, match="not an MRC file"):
        mrc.read_map(path)
    mrc.write_map(path, np.zeros((2, 2, 2)), 1.0)
    raw = bytearray(path.read_bytes())
    raw[12] = 4
    path.write_bytes(raw)
    with pytest.raises(InputError, match="mode 4 is not supported"):
        mrc.read_map(path)


def test_voxels_that_are_not_finite_are_counted(tmp_path, volume):
    volume[0, 0, :3] = np.nan
    mrc.write_map(tmp_path / "m.mrc", volume, 1.0)
    with pytest.raises(InputError, match="3 of 192 voxels are not finite"):
        mrc.read_map(tmp_path / "m.mrc")


def test_an_image_beyond_the_stack_is_named(tmp_path):
    mrc.write_stack(tmp_path / "s.mrcs", np.zeros((5, 4, 4)), 1.0)
    with pytest.raises(InputError, match="image 6 was asked for, but the stack holds 5"):
        mrc.Stack(tmp_path / "s.mrcs").read([1, 5])


def test_values_too_large_for_float16_are_refused(tmp_path):
    with pytest.raises(InputError, match="float16"):
        mrc.write_stack(tmp_path / "s.mrcs", np.full((1, 2, 2), 1e6), 1.0, float16=True)


def test_a_full_disk_leaves_no_partial_map(tmp_path, monkeypatch):
    def full(_descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"cannot write .*m\.mrc: no space is left"):
        mrc.write_map(tmp_path / "m.mrc", np.zeros((2, 2, 2)), 1.0)
    assert os.listdir(tmp_path) == []


def test_a_header_without_a_cell_means_one_angstrom(tmp_path):
    path = tmp_path / "m.mrc"
    with mrcfile.new(path) as other:
        other.set_data(np.zeros((2, 2, 2), dtype=np.float32))
    header = mrc.read_header(path)
    assert header.pixel_size == 1.0 and not header.states_pixel_size


def test_public_maps_with_odd_headers_agree_with_mrcfile(shared_data):
    files = sorted((shared_data / "maps").glob("*.map"))
    assert files
    for path in files:
        values, pixel_size = mrc.read_map(path)
        with mrcfile.open(path, permissive=True) as other:
            assert np.array_equal(values, other.data) and np.isclose(pixel_size, float(other.voxel_size.x))


def test_statistics_of_values_that_are_no_numbers_are_none(tmp_path):
    values = np.ones((2, 8, 8), dtype=np.float32)
    values[1, 2, 3] = np.nan
    assert np.isnan(mrc.statistics(values)[2:]).all() and mrc.statistics(values[:1])[2:] == (1.0, 0.0)
    with mrc.stack_writer(tmp_path / "s.mrcs", 2, 8, 1.0) as stack:
        stack.append(values)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert np.isnan(file.header.rms) and np.isnan(file.header.dmean)


def test_a_large_images_statistics_are_summed_in_double_precision(tmp_path):
    image = np.random.default_rng(0).standard_normal((1, 2048, 2048)).astype(np.float32)
    with mrc.stack_writer(tmp_path / "s.mrcs", 1, 2048, 1.0) as stack:
        stack.append(image)
    with mrcfile.open(tmp_path / "s.mrcs") as file:
        assert float(file.header.rms) == pytest.approx(image.std(dtype=np.float64), rel=2e-6)
