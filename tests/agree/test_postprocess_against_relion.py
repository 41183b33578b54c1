"""Post-processing and local resolution give RELION's curves, B-factor and maps on the same half maps; needs relion_postprocess."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from postprocess_maps import write_halves  # noqa: E402

from aurefine import mask, mrc, star  # noqa: E402
from aurefine.cli.main import main  # noqa: E402

MTF = "data_mtf\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n" + "".join(f"{i / 100:.2f} {1 - i / 90:.4f}\n" for i in range(51))
CASES = {
    "auto": ["--auto_bfac"],
    "fit range, MTF, halves": "--auto_bfac --autob_lowres 12 --autob_highres 5 --mtf mtf.star --mtf_angpix 1.1 --half_maps".split(),
    "ad hoc, low-pass": "--adhoc_bfac -80 --low_pass 7 --molweight 120".split(),
    "no weighting": "--skip_fsc_weighting --low_pass -1 --randomize_at_A 9 --random_seed 3".split(),
    "odd edge": "--filter_edge_width 5 --low_pass 40".split(),
    "calibrated": "--angpix 1.93 --filter_edge_width 4 --low_pass 6 --randomize_at_fsc 0.9".split(),
}


def both(folder: Path, arguments: list[str]) -> None:
    """Run RELION into theirs/ and aurefine into ours/."""
    program = shutil.which("relion_postprocess")
    if program is None:
        pytest.skip("relion_postprocess is not on the PATH")
    (folder / "theirs").mkdir()
    done = subprocess.run([program, *arguments, "--o", "theirs/post"], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert main(["postprocess", *arguments, "--o", "ours/post", "--verb", "0"]) == 0


def maps_agree(folder: Path) -> None:
    """Every map of RELION is there, equal to 1e-5 of its range, with the same pixel size."""
    names = [path.name for path in (folder / "theirs").glob("*.mrc")]
    assert names
    for name in names:
        (theirs, their_pixel), (ours, our_pixel) = mrc.read_map(folder / "theirs" / name), mrc.read_map(folder / "ours" / name)
        assert np.abs(ours - theirs).max() < 1e-5 * np.ptp(theirs), name
        assert our_pixel == pytest.approx(their_pixel, abs=1e-5)


def tables_agree(ours: dict[str, star.Table], theirs: dict[str, star.Table]) -> None:
    """The same tables and columns in the same order, numbers equal to what is printed of them."""
    assert list(ours) == list(theirs)
    for name, table in theirs.items():
        assert list(ours[name].columns) == list(table.columns)
        for label, values in table.columns.items():
            if values.dtype.kind == "f":
                assert np.allclose(ours[name][label], values, rtol=1e-4, atol=3e-5), (name, label)
            else:
                assert list(ours[name][label]) == list(values)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_halves(tmp_path, noise=0.25)
    (tmp_path / "mtf.star").write_text(MTF)
    return tmp_path


@pytest.mark.parametrize("case", CASES, ids=list(CASES))
def test_curves_bfactor_and_maps_are_relions(case, folder):
    both(folder, ["--i", "run_half1_class001_unfil.mrc", "--mask", "mask.mrc", *CASES[case]])
    maps_agree(folder)
    tables_agree(star.read("ours/post.star"), star.read("theirs/post.star"))
    numbers = [re.findall(r">([-\d.e]+)<", Path(side, "post_fsc.xml").read_text()) for side in ("ours", "theirs")]
    assert np.allclose(*[np.array(found, dtype=float) for found in numbers], atol=1e-5)


def test_a_mask_that_does_harm_is_left_aside_as_by_relion(folder):
    mrc.write_map("solvent.mrc", 1 - mask.soft_edge(48, 3, 14, 4), 2.0)
    both(folder, ["--i", "run_half2_class001_unfil.mrc", "--mask", "solvent.mrc", "--auto_bfac"])
    maps_agree(folder)
    tables_agree(star.read("ours/post.star"), star.read("theirs/post.star"))


@pytest.mark.parametrize("extra", ["", "--adhoc_bfac -60 --mtf mtf.star --mtf_angpix 1.1 --locres_minres 12 --locres_maskrad 11"])
def test_local_resolution_and_the_filtered_map_are_relions(extra, folder):
    both(folder, ["--i", "run_half1_class001_unfil.mrc", "--locres", "--locres_sampling", "14", *extra.split()])
    maps_agree(folder)
    text = Path("theirs/post_locres_fscs.star").read_text()
    Path("theirs.star").write_text(re.sub(r"(?m)^ kk=.*$", "", text))  # such lines are no STAR
    tables_agree(star.read("ours/post_locres_fscs.star"), star.read("theirs.star"))


def test_real_half_maps_give_relions_numbers(shared_data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for half in (1, 2):
        shutil.copy(shared_data / "relion5_betagal_run" / f"run_half{half}_class001_unfil.mrc", tmp_path)
    mrc.write_map("mask.mrc", mask.soft_edge(64, 3, 22, 5), 3.54)
    shutil.copy(shared_data / "tutorial" / "mtf_k2_200_ec.star", "mtf.star")
    both(tmp_path, "--i run_half1_class001_unfil.mrc --mask mask.mrc --auto_bfac --mtf mtf.star --mtf_angpix 0.885".split())
    maps_agree(tmp_path)
    tables_agree(star.read("ours/post.star"), star.read("theirs/post.star"))
