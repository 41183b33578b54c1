"""A command line becomes the script of a batch system: ours for Slurm, or RELION's template."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from aurefine import mrc
from aurefine.cli.main import main
from aurefine.jobs import submit
from aurefine.project import submission


@pytest.fixture
def words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command line whose files are there."""
    import numpy as np

    monkeypatch.chdir(tmp_path)
    Path("particles.star").touch()
    mrc.write_map("ref.mrc", np.zeros((4, 4, 4), np.float32), 1.0)
    return ["refine", "--i", "particles.star", "--ref", "ref.mrc", "--o", "Refine3D/job001/run", "--ini_high", "50"]


def test_the_dry_run_shows_a_slurm_script_and_writes_nothing(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    further = ["--gpu", "0:1:2:3", "--j", "8", "--submit", "--nodes", "2", "--queue=gpu", "--qsub_extra", "--time=2-0 --mem=0", "--dry_run"]
    assert main([*words, *further]) == 0
    script = capsys.readouterr().out
    for line in ("--partition=gpu", "--nodes=2", "--ntasks=8", "--cpus-per-task=8", "--gpus-per-node=4", "--time=2-0", "--mem=0",
                 "--output=Refine3D/job001/run.out", "--job-name=Refine3D/job001/"):  # fmt: skip
        assert f"#SBATCH {line}\n" in script
    command = script.splitlines()[-1]
    assert command.startswith("srun --ntasks=8 --cpus-per-task=8 ")
    assert command.endswith(f"{sys.executable} -m aurefine {' '.join(words)} --gpu 0:1:2:3 --j 8")
    assert "XXX" not in script and not Path("Refine3D").exists()
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_without_gpus_and_queue_nothing_is_asked_of_them(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words, "--processes", "3", "--submit", "--dry_run"]) == 0
    script = capsys.readouterr().out
    assert "gpus" not in script and "partition" not in script and "#SBATCH --ntasks=3\n" in script


def test_relions_template_is_filled_in_and_handed_over(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    Path("template.sh").write_text(
        "#!/bin/bash\n#Q XXXqueueXXX XXXnodesXXX x XXXdedicatedXXX, XXXcoresXXX XXXmpinodesXXX XXXthreadsXXX XXXextra1XXX XXXnameXXX\n"
        "#E XXXerrfileXXX XXXoutfileXXX\nmpirun -n XXXmpinodesXXX XXXcommandXXX\n"
    )
    Path("queue").write_text("#!/bin/sh\necho submitted $1\n")
    Path("queue").chmod(0o755)
    further = ["--processes", "2", "--j", "3", "--submit", "template.sh", "--nodes", "2", "--queue", "long", "--qsub", "./queue", "--qsub_extra", "a"]
    assert main([*words, *further, "--pipeline_control", "Refine3D/job001/"]) == 0
    assert "submitted Refine3D/job001/run_submit.script" in capsys.readouterr().out
    lines = Path("Refine3D/job001/run_submit.script").read_text().splitlines()
    assert lines[1] == "#Q long 2 x 6, 12 4 3 a Refine3D/job001/"
    assert lines[2] == "#E Refine3D/job001/run.err Refine3D/job001/run.out"
    assert lines[3].startswith("mpirun -n 4 ") and lines[3].endswith("--processes 2 --j 3 --pipeline_control Refine3D/job001/")
    assert not list(Path("Refine3D/job001").glob("RELION_JOB_EXIT_*"))  # it has not run yet


@pytest.mark.parametrize(
    ("further", "said"),
    [
        (["--queue", "long; touch pwned"], "may not go into a submission script"),
        (["--nodes", "0"], "--nodes 0"),
        (["--qsub", "sbatch 'open"], "the command that submits \"sbatch 'open\": a quote is not closed"),
        (["--qsub_extra=--time='2-0"], "--qsub_extra \"--time='2-0\": a quote is not closed"),
        (["--qsub", " "], "the command that submits (qsub) is empty"),
        (["--qsub", "./not_there"], "./not_there Refine3D/job001/run_submit.script failed"),
        (["--submit", "missing.sh"], "missing.sh cannot be read"),
        (["--submit", "extra.sh"], "extra.sh: nothing is known of XXXextra1XXX"),
        (["--ref", "missing.mrc"], "--ref missing.mrc: there is no such file"),
    ],
)
def test_what_cannot_be_submitted_is_told_before(words: list[str], further: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("extra.sh").write_text("XXXextra1XXX XXXcommandXXX\n")
    assert main([*words, "--submit", *further]) == 2
    assert said in capsys.readouterr().err and not Path("pwned").exists()


def test_the_script_runs_the_command_line_without_the_words_about_its_submission() -> None:
    words = "--i a.star --submit t.sh --dry_run --queue=x --j 4 --nodes 2 --submit --gpu 0:1 --min_dedicated 8 --qsub_extra=--mem=0".split()
    assert submit.without_flags(words) == ["--i", "a.star", "--j", "4", "--gpu", "0:1"]


def test_a_command_with_blanks_stays_one() -> None:
    request = submission.Request("job/", ("aurefine", "refine", "--o", "a b/run"))
    assert submission.slurm_script(request).endswith("aurefine refine --o 'a b/run'\n")
