"""Readers of a project's files: job.star and run.job, the pipeline, what a refinement's run left."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np

from aurefine import mrc, run_report, star
from aurefine.errors import InputError
from aurefine.jobs import options, refine3d, select
from aurefine.project import job_star, job_types, pipeline
from aurefine.refine import checkpoint, model_reader, run_status
from aurefine.reporting import validation_plots
from aurefine.reporting.plots import to_csv
from aurefine.web import refinement
from fuzzing.place import Workplace
from fuzzing.star_readers import shared_stars
from fuzzing.star_seeds import JOB_SEED, MODEL_SEED, OLD_SEED, OPTIMISER_SEED, PIPELINE_SEED, RUN_JOB_SEED, SAMPLING_SEED, STAR_SEED

RUN_FILES = ("optimiser", "data", "half1_model", "half2_model", "sampling")
VALIDATION_SEED = (
    b'{"notes": {"Run": "job001"}, "measures": [{"label": "cFAR", "verdict": "good", "text": "10 A", "source": "x", "shown": "0.8"}], "curves": '
    b'{"fsc": {"frequency": [0, 0.1], "masked": [1, null]}, "directions": {"resolution_0143": [7.5, 8]}, "reslog": {"particles": [50, 100], '
    b'"resolution": [10, 9.5], "line": [10, 9]}}}'
)
STATUS_SEED = (
    b'{ "state": "running" , "phase": "expectation" , "iteration": 3 , "output": "run" , "particles_done": 5 , "particles": 9 , "rate": 1.5 , '
    b'"seconds_left": 90.0 , "memory_mb": 1 , "peak_memory_mb": 2 , "started": 1e9 , "heartbeat": 1e9 , "interval": 5.0 , "message": "" , '
    b'"version": "1" , "process": { "host": "elsewhere" , "boot": "" , "pid": 12 , "start": "" } }'
)
_PART = b"\n@@@@\n"
_LONGEST = 3000  # bytes of each of a run's files


def job_target(place: Workplace, data: bytes) -> None:
    """A job.star or run.job, and the command line made of it: its outputs lie in the job's directory."""
    job = job_star.read(place.put("job.star", data))
    words = job.job_type.arguments(job.values, "Refine3D/job001/", "job.star")
    for flag in job.job_type.places:
        for word, value in zip(words, words[1:], strict=False):
            assert word != flag or value.startswith("Refine3D/job001/") or value == "", (flag, value)


def pipeline_target(place: Workplace, data: bytes) -> None:
    """A project's pipeline, its jobs' dependents, and the part around each."""
    found = pipeline.read(place.put("default_pipeline.star", data))
    for process in found.processes[:3]:
        found.dependents(process.name)
        found.part(process.name)


def run_target(place: Workplace, data: bytes) -> None:
    """A run's optimiser, data, model and sampling files (parted by a line of @): what --continue, select and report read."""
    for half in (1, 2):
        for name, box in ((f"run_it008_half{half}_class001.mrc", 8), (f"run_it012_half{half}_class001.mrc", 64)):
            if not (place.root / name).exists():
                mrc.write_map(place.root / name, np.zeros((box, box, box), np.float32), 1.5)
    for name, part in zip(RUN_FILES, data.split(_PART), strict=False):
        place.put(f"run_it008_{name}.star", part)
    optimiser = str(place.root / "run_it008_optimiser.star")
    for read in (lambda path: checkpoint.load(path, _command_line), select._load, lambda path: run_report.read_run(place.root / "run")):
        with contextlib.suppress(InputError):
            read(optimiser)


def _command_line(words: list[str]) -> dict[str, object]:
    return options.parse("aurefine refine", refine3d.SUMMARY, refine3d.OPTIONS, words)[0]


def model_target(place: Workplace, data: bytes) -> None:
    """A model file alone; and its spectra as the starting noise and signal of another run."""
    path = place.put("a_model.star", data)
    if not (place.root / "run_it008_half1_class001.mrc").exists():
        mrc.write_map(place.root / "run_it008_half1_class001.mrc", np.zeros((8, 8, 8), np.float32), 1.5)
    particles = star.Table("particles", {"rlnOpticsGroup": np.array([1, 2, 2]), "rlnGroupNumber": np.array([1, 2, 9])})
    for read in (lambda: model_reader.read_model(path, particles), lambda: model_reader.read_noise(path, 2, 5),
                 lambda: model_reader.read_signal(path, 5)):  # fmt: skip
        with contextlib.suppress(InputError):
            read()


def sampling_target(place: Workplace, data: bytes) -> None:
    """A sampling file alone."""
    model_reader.read_sampling(place.put("a_sampling.star", data), 1, star.Table("model_general"))


def validation_target(place: Workplace, data: bytes) -> None:
    """What a validation left, as the page and the report take it: its curves are numbers or gaps."""
    found = validation_plots.read_validation(Path(place.put("validation.json", data)))
    for plot in found.plots:
        to_csv(plot)
        json.dumps(plot.data(), allow_nan=False)


def status_target(place: Workplace, data: bytes) -> None:
    """A run's status.json, and what the page makes of it."""
    status = run_status.read_status(place.put("status.json", data))
    status.verdict()
    refinement._told(place.root)


TARGETS = {
    "job": job_target, "pipeline": pipeline_target, "run": run_target, "model": model_target, "sampling": sampling_target,
    "validation": validation_target, "status": status_target,
}  # fmt: skip


def seeds(name: str, place: Workplace, shared: Path | None) -> list[bytes]:
    """Files made here, and short ones of other programs where the shared data are."""
    if name == "run":
        return _runs(shared)
    if name == "validation":
        return [VALIDATION_SEED]
    if name == "status":
        return [STATUS_SEED]
    if name in ("model", "sampling"):
        return [{"model": MODEL_SEED, "sampling": SAMPLING_SEED}[name], *_shared_of(shared, name)]
    own = {"pipeline": [PIPELINE_SEED], "job": [RUN_JOB_SEED, JOB_SEED, *_jobs(place)]}[name]
    return own + [STAR_SEED, OLD_SEED] + shared_stars(shared)


def run_seed() -> bytes:
    """The files of one iteration of a small run, parted as `run_target` expects them."""
    particles = STAR_SEED.replace(b"_rlnGroupName #15", b"_rlnGroupNumber #15").replace(b" a\n", b" 1\n").replace(b" b\n", b" 2\n")
    return _PART.join([OPTIMISER_SEED, particles, MODEL_SEED, MODEL_SEED.replace(b"half1", b"half2"), SAMPLING_SEED])


def _runs(shared: Path | None) -> list[bytes]:
    """RELION 5's files of one iteration, their long tables cut; without the shared data only the optimiser's outline."""
    made = [run_seed()]
    for number in ("008", "012"):
        files = [shared / "relion5_betagal_run" / f"run_it{number}_{name}.star" for name in RUN_FILES] if shared else []
        if files and all(path.is_file() for path in files):
            made.append(_PART.join(path.read_bytes()[:_LONGEST].rsplit(b"\n", 1)[0] + b"\n" for path in files))
    return made


def _shared_of(shared: Path | None, kind: str) -> list[bytes]:
    paths = sorted((shared / "star").rglob(f"*{kind}*.star")) if shared else []
    return [path.read_bytes()[:_LONGEST].rsplit(b"\n", 1)[0] + b"\n" for path in paths]


def _jobs(place: Workplace) -> list[bytes]:
    """The job.star of every kind of job as its form first shows it."""
    made = []
    for kind in job_types.JOB_TYPES:
        form = {row.key: "a.star" if row.required else row.default for row in kind.fields}
        chosen = {row.key: "Yes" for row in kind.fields if row.key in ("do_rescale", "do_norm", "do_remove_duplicates")}
        job_star.write(place.root / "seed.star", job_star.JobStar(kind, {**form, **chosen}))
        made.append((place.root / "seed.star").read_bytes())
    return made
