"""`aurefine report`: a run, RELION's or ours, as a page, a paragraph, ChimeraX commands and curves; only what its files say is told."""

from __future__ import annotations

import csv
import io
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from gui_client import write_iteration, write_postprocess

from aurefine import mrc, star
from aurefine.cli.main import main
from aurefine.project import job_types, labels
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.project.runner import last_optimiser
from aurefine.reporting import chimerax, history, methods, sheet
from aurefine.reporting.documents import Documents, directions_csv
from aurefine.reporting.facts import read_facts


@pytest.fixture(scope="module")
def relion_report(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> Path:
    """The report of RELION's run on beta-galactosidase."""
    folder = tmp_path_factory.mktemp("relion") / "report"
    assert main(["report", "--i", str(shared_data / "relion5_betagal_run"), "--o", str(folder)]) == 0
    return folder


def test_the_methods_paragraph_tells_what_relions_files_say(relion_report: Path) -> None:
    text = (relion_report / "methods.txt").read_text()
    for said in ("1,534 particles from 10 micrographs", "200 kV", "64 x 64 pixels of 3.54 Å", "RELION 5.0.1", "755 and 779 particles", "D2 symmetry",
                 "low-pass filtered to 50 Å", "circle of 200 Å", "local searches from iteration 8", "1.74°", "after 12 iterations", "7.31 Å",
                 "--auto_local_healpix_order 4", "Scheres"):  # fmt: skip
        assert said in text, said
    assert "unknown" not in text and "Post-processing" not in text


def test_particles_that_were_set_aside_are_told_of(tmp_path: Path) -> None:
    write_iteration(tmp_path, 0, 40.0)
    assert "set aside" not in methods.paragraph(read_facts(tmp_path))
    reasons = ["not_finite", "constant", "background_sd_9_times_the_median", *3 * ["likelihood_ratio_more_than_6_sigma_low"]]
    rejected = {"rlnImageName": np.full(6, "1@in/stack.mrcs", object), "aurefineRejectionReason": np.array(reasons, object)}
    star.write(tmp_path / "run_rejected.star", [star.Table("particles", rejected)])
    facts = read_facts(tmp_path)
    told = "Further particles were set aside: 3 with images that are unusable or duplicated and 3 in whose images the map was hardly found."
    assert told in methods.paragraph(facts)
    assert ("Set aside", "6") in methods.parameters(facts)


def test_the_runs_warnings_are_told_in_every_document(tmp_path: Path) -> None:
    write_iteration(tmp_path, 0, 30.0)
    (tmp_path / "run_warnings.txt").write_text("the alignment has failed: fewer than half <of them>\nno CTF\n")
    documents = Documents(tmp_path, tmp_path)
    assert documents.facts.warnings == ("the alignment has failed: fewer than half <of them>", "no CTF")
    assert "<li>the alignment has failed: fewer than half &lt;of them&gt;</li><li>no CTF</li>" in documents.make("report.html").decode()
    assert "Warnings of the run\n* the alignment has failed" in documents.make("methods.txt").decode()
    letters = [each.get_text() for each in documents.pages[0]().texts]
    assert "Warnings of the run" in letters and any(each.endswith("•  no CTF") or "no CTF" in each for each in letters)


def test_the_html_holds_everything_itself(relion_report: Path) -> None:
    page = (relion_report / "report.html").read_text()
    assert not re.findall(r"(?:src|href)=\"(?!data:)[^\"]*", page) and "<script" not in page and "@import" not in page
    downloads = re.findall(r'download="([\w.]+)"', page)
    assert {f"{name}.{kind}" for name in ("fsc", "resolution", "spectra", "directions") for kind in ("png", "pdf", "csv")} <= set(downloads)
    assert all((relion_report / "plots" / name).is_file() for name in downloads)


def test_the_pdf_is_one_page_of_a4(relion_report: Path) -> None:
    data = (relion_report / "report.pdf").read_bytes()
    assert len(re.findall(rb"/Type /Page\b", data)) == 1
    box = re.search(rb"/MediaBox \[\s*0 0 ([\d.]+) ([\d.]+)", data)
    assert box and [round(float(value) / 72 * 25.4) for value in box.groups()] == [210, 297]


def test_the_curves_are_the_models_numbers(relion_report: Path, shared_data: Path) -> None:
    rows = list(csv.DictReader(io.StringIO((relion_report / "plots" / "fsc.csv").read_text())))
    final = [float(row["value"]) for row in rows if row["series"] == "final"]
    lines = (shared_data / "relion5_betagal_run" / "run_model.star").read_text().partition("data_model_class_1")[2].splitlines()
    column = next(int(line.split("#")[1]) for line in lines if line.startswith("_rlnGoldStandardFsc ")) - 1
    table = [line.split() for line in lines if len(line.split()) > 5][: len(final)]
    np.testing.assert_allclose(final, [float(row[column]) for row in table], atol=1e-6)
    width, height = struct.unpack(">II", (relion_report / "plots" / "fsc.png").read_bytes()[16:24])
    assert width > 1000 and height > 600


def test_chimerax_finds_the_files_where_it_lies(relion_report: Path) -> None:
    text = (relion_report / "view.cxc").read_text()
    names = re.findall(r'open "([^"]+)"', text)
    assert len(names) == 4 and all((relion_report / name).is_file() for name in names)
    level = re.search(r"volume #1 .*level ([\d.]+)", text)
    assert level
    values, _ = mrc.read_map(relion_report / names[0])
    inside = float((values > float(level.group(1))).sum()) * 3.54**3
    assert 0.2 < inside / (465e3 * 1.21) < 3  # 465 kDa at 1.21 A^3 a dalton, at 7 A


def test_an_unfinished_run_says_so_and_tells_nothing_it_does_not_know(tmp_path: Path) -> None:
    write_iteration(tmp_path, 0, 40.0)
    write_iteration(tmp_path, 1, 20.0)
    paragraph = methods.paragraph(read_facts(tmp_path))
    assert "has not converged" in paragraph and "iteration 1" in paragraph and "20 Å" in paragraph
    assert not re.search("kV|seed|reference|unknown|None|nan", paragraph)
    commands = Documents(tmp_path, tmp_path / "report").make("view.cxc").decode()
    assert 'open "../run_it001_half1_class001.mrc" name "map"' in commands


def test_iterations_beyond_999_are_shown(tmp_path: Path) -> None:
    for number in (2, 999, 1000, 1001):
        write_iteration(tmp_path, number, 40.0)
    assert [each.number for each in history.iterations(tmp_path / "run")] == [2, 999, 1000, 1001]
    assert last_optimiser(tmp_path.parent, f"{tmp_path.name}/") == f"{tmp_path.name}/run_it1001_optimiser.star"


def test_a_mistake_is_one_message(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_iteration(tmp_path, 0, 40.0)
    (tmp_path / "taken").write_text("")
    for arguments, said in (
        (["--i", str(tmp_path / "absent")], "no finished iteration"), (["--o", "x"], "--i is missing"),
        (["--i", str(tmp_path), "--o", str(tmp_path / "taken")], "there is a file of that name"),
        (["--i", str(tmp_path), "--truth", "truth.mrc"], "--truth goes with a picture"),
    ):  # fmt: skip
        assert main(["report", *arguments]) == 2
        assert said in capsys.readouterr().err
    assert main(["report", "--i", str(tmp_path), "--o", str(tmp_path / "one.png")]) == 0 and (tmp_path / "one.png").stat().st_size > 10_000


def test_lines_are_as_wide_as_the_page_whatever_the_letters() -> None:
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    text = "Å 3.54 iiii WWWW $1 reference_map.mrc, " * 12
    lines = sheet.wrapped(text, 300, 8)
    assert " ".join(lines) == text.strip() and len(lines) > 3
    widths = [TextPath((0, 0), line.replace("$", "S"), prop=FontProperties(size=8)).get_extents().width for line in lines]
    assert max(widths) < 303 and min(widths[:-1]) > 200


def test_a_contour_lies_between_solvent_and_particle() -> None:
    noise = np.random.default_rng(1).normal(0, 0.02, (32, 32, 32)).astype(np.float32)
    z, y, x = np.indices(noise.shape) - 16
    noise[z**2 + y**2 + x**2 < 64] += 1
    assert 0.2 < chimerax.contour(noise) < 0.8


def test_directions_are_written_as_the_particle_file_has_them() -> None:
    assert directions_csv(np.array([[10.0, 95.5]])) == b"rot_degree,tilt_degree\n10,95.5\n"


def test_a_name_with_a_dollar_is_no_formula(tmp_path: Path) -> None:
    job = tmp_path / "$x_1$" / "job^2"
    write_iteration(job, 0, 40.0)
    assert Documents(job, job).make("report.pdf").startswith(b"%PDF")


def test_what_other_jobs_made_of_the_half_maps_is_told(tmp_path: Path) -> None:
    Project.create(tmp_path, "5")
    with Project.open(tmp_path).edit("a test") as pipeline:
        for name, code in (("Refine3D/job001/", 10), ("PostProcess/job002/", 15)):
            pipeline.add_process(Process(name, "None", job_types.by_name(name.split("/")[0]).label, labels.SUCCEEDED), code)
        pipeline.add_output("Refine3D/job001/", "Refine3D/job001/run_half1_class001_unfil.mrc", "DensityMap.mrc")
        pipeline.add_input("Refine3D/job001/run_half1_class001_unfil.mrc", "DensityMap.mrc", "PostProcess/job002/")
    write_iteration(tmp_path / "Refine3D/job001", 0, 40.0)
    write_postprocess(tmp_path / "PostProcess/job002", "Refine3D/job001")
    documents = Documents(tmp_path / "Refine3D/job001", tmp_path)
    paragraph = methods.paragraph(documents.facts)
    assert "with the mask mask.mrc" in paragraph and "5.33 Å at FSC 0.143" in paragraph and "B-factor of -61.5 Å²" in paragraph
    curves = documents.postprocessed
    assert curves and curves.corrected[3] == pytest.approx(0.64) and [plot.name for plot in curves.plots] == ["fsc", "guinier"]
    write_postprocess(tmp_path / "PostProcess/job002", "Refine3D/job005")  # of another refinement
    assert Documents(tmp_path / "Refine3D/job001", tmp_path).postprocessed is None
