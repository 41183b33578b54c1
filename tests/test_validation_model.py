"""Map-model FSC and the hand: of a model that is in its place, one that is not, one of the other hand, and one fitted to a half map's noise."""

from __future__ import annotations

import json

import numpy as np
import pytest

from aurefine import molecule, mrc
from aurefine.cli import main as cli
from aurefine.job_control import JobControl
from aurefine.validation import ValidateOptions, Validation, model, resolution
from aurefine.validation.inputs import read

gemmi = pytest.importorskip("gemmi")

BOX, PIXEL_SIZE = 32, 4.0
SHAPE = molecule.Shape(400, 3, (32.0, 24.0, 20.0))
HALF = BOX // 2 * PIXEL_SIZE


def write_model(path, positions):
    """Carbon atoms at `positions` [n, 3] about the box's centre, in the frame of a map whose first voxel is the origin."""
    structure, atoms, chain = gemmi.Structure(), gemmi.Model("1"), gemmi.Chain("A")
    for number, position in enumerate(positions + HALF):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid = "ALA", gemmi.SeqId(number % 9999 + 1, " ")
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*position)
        residue.add_atom(atom)
        chain.add_residue(residue)
    atoms.add_chain(chain)
    structure.add_model(atoms)
    structure.make_mmcif_document().write_file(str(path))
    return path


def write_halves(folder, body, noises=(0.4, 0.4)):
    density = body.density(BOX, PIXEL_SIZE)
    for half, noise in enumerate(noises, 1):
        values = density + np.random.default_rng(half).normal(0, noise * density.std(), density.shape)
        mrc.write_map(folder / f"run_half{half}_class001_unfil.mrc", values, PIXEL_SIZE)


@pytest.fixture(scope="module")
def body():
    return molecule.generate("C1", 5, SHAPE)


@pytest.fixture(scope="module")
def run(body, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    write_halves(folder, body)
    write_model(folder / "model.cif", body.positions)
    return folder


def measured(run, **options):
    """The rows on the half maps and on the model."""
    chosen = ValidateOptions(run=str(run), **{name: value if isinstance(value, bool) else str(value) for name, value in options.items()})
    given, found = read(chosen), Validation()
    for step in (resolution.measure, model.measure):
        step(found, given, chosen, JobControl())
    return {each.key: each for each in found.measures}


def test_the_command_line_measures_a_model(run, tmp_path):
    assert cli.main(["validate", "--i", str(run), "--o", str(tmp_path), "--model", str(run / "model.cif"), "--skip_hand"]) == 0
    found = json.loads((tmp_path / "validation.json").read_text())
    assert any(each["key"] == "model_fsc" and each["verdict"] == "good" for each in found["measures"])
    assert max(found["curves"]["model_fsc"]["model"]) > 0.9 and len(found["curves"]["model_fsc"]["expected"]) == BOX // 2 + 1


def test_a_model_in_its_place_agrees_with_both_halves_and_has_their_hand(run, tmp_path):
    found = measured(run, model=run / "model.cif")
    assert found["model_fsc"].verdict == "good" and found["model_fsc"].value < 1.35 * found["fsc_masked"].value
    assert found["model_halves"].verdict == "good"
    assert found["hand"].verdict == "good" and found["hand"].value > 0.1


def test_the_model_that_was_moved_is_written_where_it_fits(run, body, tmp_path):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    away = write_model(tmp_path / "away.cif", body.moved(turn, np.array([15.0, 5.0, -9.0])).positions)
    words = ["validate", "--i", str(run), "--o", str(tmp_path / "out"), "--model", str(away), "--fit_model", "--skip_hand"]
    assert cli.main(words) == 0
    placed = molecule.from_model(tmp_path / "out" / "model_fitted.cif", centred=False).positions - HALF
    assert np.linalg.norm(placed - body.positions, axis=1).max() < 0.5


def test_a_model_elsewhere_is_said_to_be_so_and_fitted_when_asked(run, body, tmp_path):
    turn = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]])
    away = write_model(tmp_path / "away.cif", body.moved(turn, np.array([15.0, 5.0, -9.0])).positions)
    found = measured(run, model=away)
    assert found["model_fsc"].verdict == "poor" and "does not lie in the map" in found["model_fsc"].text and "turned by" in found["model_fsc"].text
    assert found["hand"].verdict == "good"
    fitted = measured(run, model=away, fit_model=True, skip_hand=True)
    assert fitted["model_fsc"].verdict == "good" and "hand" not in fitted


def test_a_map_of_the_other_hand_is_told(run, body, tmp_path):
    write_halves(tmp_path, body.moved(np.diag([1.0, 1.0, -1.0]), np.zeros(3)))
    found = measured(tmp_path, model=run / "model.cif")
    assert found["hand"].verdict == "poor" and "--invert_hand" in found["hand"].text
    mrc.write_map(tmp_path / "reference.mrc", body.density(48, 3.0), 3.0)
    found = measured(tmp_path, reference_map=tmp_path / "reference.mrc")
    assert found["hand"].verdict == "poor" and "model_fsc" not in found


def test_a_hand_that_cannot_be_told_is_said_to_be_so(run, body, tmp_path):
    mirror_symmetric = molecule.Molecule(np.concatenate([body.positions, body.positions * [1, 1, -1]]), np.tile(body.weights, 2), body.blur)
    write_halves(tmp_path, mirror_symmetric)
    mrc.write_map(tmp_path / "reference.mrc", mirror_symmetric.density(BOX, PIXEL_SIZE), PIXEL_SIZE)
    found = measured(tmp_path, reference_map=tmp_path / "reference.mrc")
    assert found["hand"].verdict == "info" and "cannot be told" in found["hand"].text


def test_a_model_fitted_to_one_halfs_noise_is_told(run, body, tmp_path):
    write_halves(tmp_path, body, noises=(0.0, 1.5))
    found = measured(tmp_path, model=run / "model.cif", skip_hand=True)
    assert found["model_halves"].verdict == "warning" and "half 1" in found["model_halves"].text


def test_the_maps_origin_counts(run, body, tmp_path):
    for half in (1, 2):
        name = f"run_half{half}_class001_unfil.mrc"
        raw = bytearray((run / name).read_bytes())
        raw[196:208] = np.array([-HALF, -HALF, 10 - HALF], "<f4").tobytes()
        (tmp_path / name).write_bytes(raw)
    assert mrc.read_header(tmp_path / name).origin == (-HALF, -HALF, 10 - HALF)
    moved = write_model(tmp_path / "model.cif", body.positions - HALF + [0, 0, 10])
    assert measured(tmp_path, model=moved, skip_hand=True)["model_fsc"].verdict == "good"


def test_mistakes_are_one_message(run, tmp_path, capsys):
    def message(*arguments):
        assert cli.main(["validate", "--i", str(run), "--o", str(tmp_path / "out"), *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "--model nowhere.cif: there is no such file" in message("--model", "nowhere.cif")
    assert "--model" in message("--fit_model")
    (tmp_path / "text.pdb").write_text("no atoms here")
    assert "holds no atoms" in message("--model", tmp_path / "text.pdb")
    mrc.write_map(tmp_path / "flat.mrc", np.zeros((8, 16, 16), np.float32), 2.0)
    assert "a cube" in message("--reference_map", tmp_path / "flat.mrc")
