"""The command line: exit codes, one message for a mistake, help without heavy imports."""

from __future__ import annotations

import errno
import subprocess
import sys
from types import SimpleNamespace

import pytest

import aurefine
from aurefine.cli import main as cli
from aurefine.errors import InputError
from aurefine.jobs.options import Option

OPTIONS = (
    Option("count", "--count", "Count", "Main", 1, "int", "How many"),
    Option("--pool", "--pool", "Pool", "Main", None, "text", "nothing is pooled", effect="ignored"),
)


def job(run):
    return SimpleNamespace(SUMMARY="A job for a test.", OPTIONS=OPTIONS, run=run)


@pytest.fixture
def fake_job(monkeypatch):
    def install(run):
        monkeypatch.setitem(cli.JOBS, "fake", ("fake", "for a test"))
        monkeypatch.setattr(cli, "import_module", lambda name: job(run))

    return install


def test_a_job_gets_the_values_that_were_given_and_the_arguments_as_typed(fake_job, capsys):
    seen = []
    fake_job(lambda values, arguments: seen.append((values, arguments)) or 0)
    assert cli.main(["fake", "--count", "3", "--pool", "8"]) == 0
    assert seen == [({"count": 3}, ["--count", "3", "--pool", "8"])]
    assert capsys.readouterr().out == " Note: --pool has no effect here: nothing is pooled.\n"


def raise_error(error):
    def run(values, arguments):
        raise error

    return run


def test_a_users_mistake_is_one_message_and_exit_code_2(fake_job, capsys):
    fake_job(raise_error(InputError("particles.star, row 7: a number was expected")))
    assert cli.main(["fake", "--count", "1"]) == 2
    assert capsys.readouterr().err == "aurefine: particles.star, row 7: a number was expected\n"
    assert cli.main(["fake", "--count", "1", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_full_disk_is_a_message(fake_job, capsys):
    fake_job(raise_error(OSError(errno.ENOSPC, "No space left on device", "run_it003_data.star")))
    assert cli.main(["fake", "--count", "1"]) == 2
    assert capsys.readouterr().err.startswith("aurefine: run_it003_data.star: No space left on device.")


def test_memory_that_is_too_short_is_a_message(fake_job, capsys):
    fake_job(raise_error(MemoryError("Unable to allocate 8.00 TiB")))
    assert cli.main(["fake", "--count", "1"]) == 2
    assert capsys.readouterr().err.startswith("aurefine: memory is too short (Unable to allocate 8.00 TiB). Take a machine with more")


def test_a_fault_of_the_program_is_not_hidden(fake_job):
    fake_job(raise_error(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        cli.main(["fake", "--count", "1"])


@pytest.mark.parametrize(("line", "message"), [(["refin"], "Did you mean refine?"), (["refine", "--ctff"], "--ctf"), (["fly"], "The jobs are")])
def test_a_wrong_name_is_answered_with_the_nearest(line, message, capsys):
    assert cli.main(line) == 2
    assert message in capsys.readouterr().err


def test_help_lists_the_options_by_tab(capsys):
    assert cli.main(["refine", "--help"]) == 0
    text = capsys.readouterr().out
    for expected in ("I/O:", "Auto-sampling:", "--particle_diameter", "accepted, without effect here: ", "not supported: "):
        assert expected in text


def test_help_and_version_do_not_import_torch():
    code = "import sys; from aurefine.cli.main import main; main(['refine', '--help']); main(['--version']); sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert f"aurefine {aurefine.__version__}" in result.stdout


def test_refining_what_is_not_there_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["refine", "--i", "a.star", "--ref", "b.mrc", "--o", "run"]) == 2
    assert "--i a.star: there is no such file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
