"""`aurefine <job> [options]`: parse the job's option table, run the job, turn a user's mistake into one message."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType
from typing import NoReturn

import aurefine
from aurefine.distributed import place
from aurefine.errors import AlreadyTold, InputError
from aurefine.job_control import JobTerminated, job_control
from aurefine.jobs.programs import JOBS

# Their matrix products are small; OpenBLAS would start a thread for each core when numpy is imported, which takes longer than a small map.
_ONE_THREAD_OF_BLAS = ("extract", "image_handler", "jobs", "mask_create", "postprocess", "select", "star")
_CONTROL = "--pipeline_control"
_OBJECTS_BEFORE_A_COLLECTION = 100_000  # Python's 700 make it search for cycles hundreds of times while torch and Numba are loaded
EXIT_FAILURE, EXIT_INPUT_ERROR, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


def command() -> NoReturn:
    """The command line as a process of its own: `main`, and the end without taking apart every object that the process holds.

    That takes half a second after a refinement, and the system does it at once. What was registered to be done at the end is done.
    """
    code = main()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0 done, 2 a mistake in the input (one message), 1 anything else."""
    gc.set_threshold(_OBJECTS_BEFORE_A_COLLECTION)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        code = _dispatch(given)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; Python would complain again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except InputError as error:
        return _fail(str(error), EXIT_INPUT_ERROR, debug)
    except AlreadyTold as told:
        return told.code
    except KeyboardInterrupt as stop:
        code = EXIT_TERMINATED if isinstance(stop, JobTerminated) else EXIT_INTERRUPTED
        return _fail(str(stop) or "interrupted.", code, debug)
    except MemoryError as error:
        advice = "Take a machine with more, or end other programs. A refinement goes on with --resume."
        return _fail(f"memory is too short ({str(error) or 'MemoryError'}). {advice}", EXIT_INPUT_ERROR, debug)
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return _fail(f"{str(error.filename)[:100]}...: {error.strerror}; is it a name of a file?", EXIT_INPUT_ERROR, debug)
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise
        name = f"{error.filename}: " if error.filename else ""
        advice = "Free some space, or choose another place with --o." if error.errno in (errno.ENOSPC, errno.EDQUOT) else "Check the permissions."
        return _fail(f"{name}{error.strerror}. {advice} A refinement goes on with --resume.", EXIT_INPUT_ERROR, debug)


def _fail(message: str, code: int, debug: bool) -> int:
    if debug:
        import traceback  # slow to import

        traceback.print_exc()
    print(message if message.startswith("aurefine ") else f"aurefine: {message}", file=sys.stderr)
    return code


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("--version", "version"):
        print(f"aurefine {aurefine.__version__}")
        return 0
    name, rest = arguments[0], arguments[1:]
    if name not in JOBS:
        raise InputError(_unknown_job(name))
    if name in _ONE_THREAD_OF_BLAS:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    return _run(name, import_module(JOBS[name][0]), rest)


def _run(name: str, job: ModuleType, arguments: list[str]) -> int:
    from aurefine.jobs.options import help_text, parse

    if hasattr(job, "command_line"):  # its words are not only flags
        return int(job.command_line(arguments, JOBS))
    program = f"aurefine {name}"
    if not arguments or "-h" in arguments or "--help" in arguments:
        print(help_text(program, job.SUMMARY, job.OPTIONS))
        return 0 if arguments else EXIT_INPUT_ERROR
    known = any(option.flag == _CONTROL for option in job.OPTIONS)
    directory, others = _pipeline_control(arguments)
    shared = getattr(job, "SHARED", False)  # whether several processes are one job: then the first of them speaks for all
    elsewhere = getattr(job, "submits", lambda words: False)(arguments) or (shared and not place.keeps_exit_files())
    with place.only_the_first_speaks(shared), job_control("" if elsewhere else directory):
        # also a job whose flags are wrong has failed
        values, notes = parse(program, job.SUMMARY, job.OPTIONS, arguments if known else others)
        for note in notes:
            print(f" Note: {note}.")
        return int(job.run(values, arguments) or 0)


def _pipeline_control(arguments: list[str]) -> tuple[str, list[str]]:
    """The directory of the files that say how the job ended, a flag that every job takes, and the other arguments."""
    if _CONTROL not in arguments[:-1]:
        return "", arguments
    position = arguments.index(_CONTROL)
    return arguments[position + 1], arguments[:position] + arguments[position + 2 :]


def _overview() -> str:
    width = max(map(len, JOBS)) + 2
    jobs = "\n".join(f"  {name:<{width}}{summary}" for name, (_, summary) in JOBS.items())
    return (
        f"aurefine {aurefine.__version__}: gold-standard cryo-EM auto-refinement that reads and writes RELION's files\n\n"
        f"usage: aurefine <job> [options]\n\n{jobs}\n\n"
        "`aurefine <job> --help` lists a job's options; --debug shows the traceback of an error.\n"
        "A command line that RELION printed runs when its program's name is replaced by `aurefine refine`."
    )


def _unknown_job(name: str) -> str:
    from aurefine.jobs.options import nearest_names

    nearest = nearest_names(name, list(JOBS))
    hint = f"Did you mean {' or '.join(nearest)}? " if nearest else ""
    return f"there is no job {name!r}. {hint}The jobs are {', '.join(JOBS)}."


if __name__ == "__main__":
    sys.exit(main())
