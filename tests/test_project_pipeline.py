"""The pipeline of a RELION project is read, changed and written without loss, and under RELION's lock."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aurefine import process_record, star
from aurefine.errors import InputError
from aurefine.process_record import FILE as RECORD
from aurefine.process_record import ProcessRecord
from aurefine.project import job_directory, labels, pipeline
from aurefine.project.lock import DIRECTORY, FILE, project_lock
from aurefine.project.pipeline import Pipeline, Process
from aurefine.project.project import Project

RELION_31 = """
# version 30001

data_pipeline_general

_rlnPipeLineJobCounter                       3
 

# version 30001

data_pipeline_processes

loop_ 
_rlnPipeLineProcessName #1 
_rlnPipeLineProcessAlias #2 
_rlnPipeLineProcessType #3 
_rlnPipeLineProcessStatus #4 
MaskCreate/job001/       None           12            2 
MaskCreate/job002/ MaskCreate/mymask/           12            1 
 

# version 30001

data_pipeline_nodes

loop_ 
_rlnPipeLineNodeName #1 
_rlnPipeLineNodeType #2 
Class3D/job016/r.mrc            6 
MaskCreate/job001/mask.mrc            7 
MaskCreate/job002/mask.mrc            7 
 

# version 30001

data_pipeline_input_edges

loop_ 
_rlnPipeLineEdgeFromNode #1 
_rlnPipeLineEdgeProcess #2 
Class3D/job016/r.mrc MaskCreate/job001/ 
Class3D/job016/r.mrc MaskCreate/job002/ 
 

# version 30001

data_pipeline_output_edges

loop_ 
_rlnPipeLineEdgeProcess #1 
_rlnPipeLineEdgeToNode #2 
MaskCreate/job001/ MaskCreate/job001/mask.mrc 
MaskCreate/job002/ MaskCreate/job002/mask.mrc 
 
"""  # noqa: W291, W293  (RELION's own blanks)
EMPTY_31 = "\n# version 30001\n\ndata_pipeline_general\n\n_rlnPipeLineJobCounter                       1\n \n"
MASK = "Mask3D.mrc.relion"


@pytest.fixture
def old_project(tmp_path: Path) -> Path:
    """A project of RELION 3.1."""
    (tmp_path / pipeline.FILE).write_text(RELION_31)
    return tmp_path


def rewritten(path: Path, target: Path) -> bytes:
    pipeline.read(path).write(target)
    return target.read_bytes()


def test_a_pipeline_of_relion_31_is_rewritten_to_the_byte(old_project: Path) -> None:
    assert rewritten(old_project / pipeline.FILE, old_project / "again.star") == RELION_31.encode()


def test_an_empty_pipeline_is_rewritten_to_the_byte(tmp_path: Path) -> None:
    (tmp_path / "a.star").write_text(EMPTY_31)
    assert rewritten(tmp_path / "a.star", tmp_path / "b.star") == EMPTY_31.encode()


def test_a_pipeline_of_relion_5_is_rewritten_to_the_byte(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "star" / "relion5_project" / pipeline.FILE
    assert rewritten(path, tmp_path / "again.star") == path.read_bytes()


def test_the_jobs_of_a_real_project_are_read(shared_data: Path) -> None:
    graph = pipeline.read(shared_data / "star" / "relion5_project" / pipeline.FILE)
    assert (graph.generation, graph.counter, len(graph.processes)) == (5, 84, 80)
    found = graph.process("Refine3D/bin6")
    assert found == Process("Refine3D/job012/", "Refine3D/bin6/", "relion.refine3d.tomo", labels.SUCCEEDED)
    assert found.number == 12
    assert "Refine3D/job012/run_class001.mrc" in graph.outputs(found.name)
    assert set(graph.inputs(found.name)) <= set(graph.nodes())


def test_a_job_added_to_a_real_project_changes_nothing_else(shared_data: Path, tmp_path: Path) -> None:
    graph = pipeline.read(shared_data / "star" / "relion5_project" / pipeline.FILE)
    before = star.read(shared_data / "star" / "relion5_project" / pipeline.FILE)
    graph.add_process(Process("MaskCreate/job084/", "None", "relion.maskcreate", labels.RUNNING), 12)
    graph.add_input("Refine3D/job074/run_class001.mrc", "DensityMap.mrc", "MaskCreate/job084/")
    graph.add_output("MaskCreate/job084/", "MaskCreate/job084/mask.mrc", MASK)
    graph.write(tmp_path / "new.star")
    after = star.read(tmp_path / "new.star")
    for name, table in before.items():
        for label, column in table.columns.items():
            assert after[name][label][: table.count].tolist() == column.tolist(), (name, label)
    assert after["pipeline_nodes"]["rlnPipeLineNodeTypeLabelDepth"][-1] == 1
    assert after["pipeline_nodes"].count == before["pipeline_nodes"].count + 1  # the map was there already


def test_a_job_added_to_relion_31_is_written_in_its_numbers(old_project: Path) -> None:
    with Project.open(old_project).edit("test") as graph:
        graph.add_process(Process("Refine3D/job003/", "None", "relion.refine3d", labels.RUNNING), 10)
        graph.add_output("Refine3D/job003/", "Refine3D/job003/run_half1_class001_unfil.mrc", "DensityMap.mrc.relion.halfmap.refine3d")
        graph.add_output("Refine3D/job003/", "Refine3D/job003/run_optimiser.star", "OptimiserData.star.relion.refine3d")
        graph.counter = 4
    text = (old_project / pipeline.FILE).read_text()
    assert "Refine3D/job003/       None           10            0 \n" in text
    assert "Refine3D/job003/run_half1_class001_unfil.mrc           10 \n" in text
    assert "run_optimiser.star" not in text  # RELION 3.1's refinements have no such node
    assert pipeline.read(old_project / pipeline.FILE).counter == 4


def test_status_changes_only_the_one_job(old_project: Path) -> None:
    graph = pipeline.read(old_project / pipeline.FILE)
    graph.set_status("MaskCreate/job002/", labels.FAILED)
    assert [process.status for process in graph.processes] == [labels.SUCCEEDED, labels.FAILED]
    graph.write(old_project / "new.star")
    assert (old_project / "new.star").read_text() == RELION_31.replace("/mymask/           12            1", "/mymask/           12            3")


def test_the_part_of_one_job_holds_its_files_only(old_project: Path) -> None:
    part = pipeline.read(old_project / pipeline.FILE).part("MaskCreate/job002/")
    assert [process.name for process in part.processes] == ["MaskCreate/job002/"]
    assert set(part.nodes()) == {"Class3D/job016/r.mrc", "MaskCreate/job002/mask.mrc"}


NAMES = st.from_regex(r"[A-Za-z][A-Za-z0-9_ ]{0,8}\.(star|mrc)", fullmatch=True)
JOBS = st.lists(st.tuples(st.sampled_from(["Refine3D", "Extract"]), st.sampled_from(labels.STATUSES), st.lists(NAMES, max_size=3)), max_size=5)


@settings(max_examples=40, deadline=None)
@given(generation=st.sampled_from([3, 4, 5]), jobs=JOBS)
def test_any_graph_comes_back_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, generation: int, jobs: list) -> None:
    graph = pipeline.new(generation)
    for number, (kind, status, files) in enumerate(jobs, start=1):
        name = f"{kind}/job{number:03d}/"
        graph.add_process(Process(name, "None", f"relion.{kind.lower()}", status), 10 if kind == "Refine3D" else 5)
        for file in files:
            graph.add_input(file, "DensityMap.mrc", name)
            graph.add_output(name, name + file, "ParticleGroupMetadata.star.relion")
        graph.counter = number + 1
    path = tmp_path_factory.mktemp("graph") / pipeline.FILE
    graph.write(path)
    again = pipeline.read(path)
    assert (again.generation, again.counter, again.nodes()) == (generation, graph.counter, graph.nodes())
    assert again.processes == graph.processes
    for process in graph.processes:
        assert again.inputs(process.name) == graph.inputs(process.name)
        assert again.outputs(process.name) == graph.outputs(process.name)
    assert rewritten(path, path.with_name("again.star")) == path.read_bytes()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not a STAR file"),
        ("data_pipeline_general\n\n_rlnOther 1\n", "no pipeline of a RELION project"),
        (RELION_31.replace("_rlnPipeLineNodeType #2 ", "_rlnSomething #2 "), "no column _rlnPipeLineNodeType"),
        (RELION_31[: RELION_31.index("MaskCreate/mymask") + 5], "truncated"),
    ],
)
def test_a_damaged_pipeline_is_one_clear_message(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / pipeline.FILE).write_text(text)
    with pytest.raises(InputError, match=message):
        Project.open(tmp_path).read()


PIECES = ["", '"', "#", "nan", "-1", "data_x\n", "loop_\n", " x "]


@settings(max_examples=100, deadline=None)
@given(start=st.integers(0, len(RELION_31)), length=st.integers(0, 200), put=st.sampled_from(PIECES))
def test_a_pipeline_with_a_piece_missing_or_added_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, put: str
) -> None:
    path = tmp_path_factory.mktemp("damaged") / pipeline.FILE
    path.write_text(RELION_31[:start] + put + RELION_31[start + length :])
    try:
        graph = pipeline.read(path)
    except InputError:
        return
    assert all(set(graph.inputs(process.name)).isdisjoint({""}) for process in graph.processes)
    graph.write(path.with_name("again.star"))
    assert pipeline.read(path.with_name("again.star")).processes == graph.processes


def test_a_folder_without_a_pipeline_is_no_project(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no RELION project .*--new_project"):
        Project.open(tmp_path)


def test_a_failed_change_leaves_the_pipeline_and_no_lock(old_project: Path) -> None:
    with pytest.raises(RuntimeError), Project.open(old_project).edit("test") as graph:
        graph.counter = 99
        raise RuntimeError
    assert (old_project / pipeline.FILE).read_text() == RELION_31
    assert not (old_project / DIRECTORY).exists()


def test_a_write_that_breaks_off_leaves_the_old_pipeline(old_project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space is left"), Project.open(old_project).edit("test") as graph:
        graph.counter = 99
    assert (old_project / pipeline.FILE).read_text() == RELION_31
    assert not list(old_project.glob(".*tmp"))


def test_the_lock_is_relions(tmp_path: Path) -> None:
    with project_lock(tmp_path, "aurefine: testing"):
        assert (tmp_path / ".relion_lock" / "lock_default_pipeline.star").read_text().startswith("aurefine: testing\n")
    assert not (tmp_path / ".relion_lock").exists()


def test_a_lock_that_relion_holds_is_waited_for_and_then_named(tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / FILE).write_text("lock message from RELION\n")
    with pytest.raises(InputError, match="lock message from RELION.*rm -r"), project_lock(tmp_path, "test", wait_seconds=0.2):
        pass
    assert (tmp_path / DIRECTORY / FILE).exists()


def test_the_lock_of_an_aurefine_that_was_killed_is_removed(tmp_path: Path) -> None:
    process = subprocess.Popen(["sleep", "60"])
    record = ProcessRecord.of(process.pid)
    process.kill()
    process.wait()
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / FILE).write_text("aurefine: adding\n" + record.text())
    with project_lock(tmp_path, "test", wait_seconds=5):
        pass
    assert not list(tmp_path.iterdir())


def test_a_process_is_known_by_machine_number_and_start() -> None:
    own = ProcessRecord.own()
    assert ProcessRecord.parse("something\n" + own.text()) == own
    assert ProcessRecord.parse("no record") is None
    assert own.alive() is True
    assert replace(own, host="elsewhere").alive() is None
    if own.start:
        assert replace(own, start="1").alive() is False  # the number is used again
        assert replace(own, boot="before").alive() is False
    assert json.loads(own.text())["pid"] == os.getpid()


@pytest.mark.parametrize("change", [{"pid": "12"}, {"pid": None}, {"pid": 1.5}, {"pid": -1}, {"pid": 1 << 80}, {"start": 3}, {"more": 1}])
def test_a_record_that_holds_something_else_is_none(tmp_path: Path, change: dict[str, object]) -> None:
    (tmp_path / RECORD).write_text(json.dumps(asdict(ProcessRecord.own()) | change))
    assert ProcessRecord.load(tmp_path) is None and not job_directory.has_died(tmp_path)
    (tmp_path / RECORD).write_bytes(b"\xff" + b"[" * 100_000)
    assert ProcessRecord.load(tmp_path) is None


def test_a_process_of_another_container_is_not_declared_dead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has this machine's name and boot, but its number means nothing here."""
    inside = replace(ProcessRecord.own(), pid=1, start="1", namespace="pid:[1]")
    assert inside.alive() is None
    assert replace(inside, namespace="").alive() is False  # a record of an earlier version
    (tmp_path / DIRECTORY).mkdir()
    (tmp_path / DIRECTORY / FILE).write_text("aurefine: adding\n" + inside.text())
    with pytest.raises(InputError, match="another program has held this project"), project_lock(tmp_path, "test", wait_seconds=0):
        pass
    monkeypatch.setattr(process_record, "_namespace", lambda: "")
    assert inside.alive() is None


def test_a_record_of_an_earlier_version_is_read() -> None:
    record = ProcessRecord.parse('{"host": "a", "boot": "b", "pid": 3, "start": "4"}')
    assert record == ProcessRecord("a", "b", 3, "4")


@pytest.mark.parametrize("label", ["DensityMap.mrc.relion.refine3d", MASK, "ParticleGroupMetadata.star.relion", "LogFile.pdf.relion.postprocess"])
def test_the_kinds_of_files_have_relion_3_numbers(label: str) -> None:
    code = labels.node_code(label)
    assert code is not None
    assert label.startswith(labels.node_label(code))


def test_new_projects_have_the_layout_of_the_relion_that_opens_them(tmp_path: Path) -> None:
    assert isinstance(Project.create(tmp_path, "5").read(), Pipeline)
    assert Project.open(tmp_path).read().generation == 5
    with pytest.raises(InputError, match="already"):
        Project.create(tmp_path, "5")
    with pytest.raises(InputError, match="3.1, 4 or 5"):
        Project.create(tmp_path / "other", "2")
