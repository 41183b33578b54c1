"""A running page and a browser's part of the talk with it, for the tests of `aurefine gui`."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from aurefine import mrc
from aurefine.project import job_types, labels
from aurefine.project.pipeline import Process
from aurefine.project.project import Project
from aurefine.web.app import create_app
from aurefine.web.guard import Session
from aurefine.web.server import bind


@dataclass
class Answer:
    """Status, headers in small letters, and body."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Page:
    """The page at a port; `enter` takes the token as a browser does."""

    port: int
    session: Session
    tokens: list[str]
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        kind = {"Content-Type": "application/json"} if body is not None else {}
        sent = {"Host": f"localhost:{self.port}", **self.headers, **kind, **(headers or {})}
        connection.request(method, path, json.dumps(body) if body is not None else None, sent)
        response = connection.getresponse()
        answer = Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
        connection.close()
        return answer

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: object) -> Answer:
        return self.ask("POST", path, body)

    def enter(self) -> Page:
        answer = self.get(f"/?token={self.session.token}")
        match = re.match(r"(\w+=[^;]+)", answer.headers["set-cookie"])
        assert match
        self.headers["Cookie"] = match.group(1)
        return self

    @property
    def address(self) -> str:
        return f"http://localhost:{self.port}/?token={self.session.token}"


@contextmanager
def serving(root: Path) -> Iterator[Page]:
    """The page of the project in `root`, in a thread, until the block ends."""
    tokens: list[str] = []
    session = Session(tokens.append)
    listener = bind(0)
    server = uvicorn.Server(uvicorn.Config(create_app(Project.open(root), session), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server has not started"
        time.sleep(0.01)
    try:
        yield Page(listener.getsockname()[1], session, tokens)
    finally:
        server.should_exit = True
        thread.join(20)


def write_particles(path: Path, ctf: bool = True) -> None:
    """Three particles of 16 px at 2 A in a stack beside the STAR file."""
    columns = ["rlnImageName", "rlnOpticsGroup", *(["rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"] if ctf else [])]
    rows = "".join(f"{i:06d}@in/stack.mrcs 1{' 10000 10000 0' if ctf else ''}\n" for i in (1, 2, 3))
    optics = ["rlnOpticsGroup", "rlnOpticsGroupName", "rlnImagePixelSize", "rlnImageSize", "rlnVoltage", "rlnSphericalAberration",
              "rlnAmplitudeContrast"]  # fmt: skip
    path.write_text(_loop("optics", optics, "1 opticsGroup1 2.0 16 300 2.7 0.1\n") + _loop("particles", columns, rows))
    mrc.write_stack(path.with_name("stack.mrcs"), np.random.default_rng(1).normal(size=(3, 16, 16)).astype(np.float32), 2.0)


def _loop(name: str, labels: list[str], rows: str) -> str:
    return f"\ndata_{name}\n\nloop_\n" + "".join(f"_{label} #{i}\n" for i, label in enumerate(labels, 1)) + rows


def write_iteration(folder: Path, number: int, resolution: float) -> None:
    """What the page reads of one iteration of a refinement with a box of 16 px at 2 A."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = folder / f"run_it{number:03d}"
    curve = np.clip(1.2 - np.arange(9) / (4 + number), 0, 1)
    shells = "".join(f"{i} {i / 32} {999 if i == 0 else 32 / i} 10 {value} 1 1 {1 / (i + 1)}\n" for i, value in enumerate(curve))
    labels = ["rlnSpectralIndex", "rlnResolution", "rlnAngstromResolution", "rlnSsnrMap", "rlnGoldStandardFsc", "rlnFourierCompleteness",
              "rlnReferenceSigma2", "rlnReferenceTau2"]  # fmt: skip
    general = (f"data_model_general\n_rlnOriginalImageSize 16\n_rlnCurrentResolution {resolution}\n_rlnCurrentImageSize 12\n_rlnPixelSize 2.0\n"
               "_rlnOrientationalPriorMode 0\n_rlnAveragePmax 0.4\n")  # fmt: skip
    classes = _loop("model_classes", ["rlnReferenceImage", "rlnAccuracyRotations", "rlnAccuracyTranslationsAngst"], "x.mrc 2.5 1.5\n")
    noise = _loop("model_optics_group_1", ["rlnSpectralIndex", "rlnSigma2Noise"], "".join(f"{i} 0.01\n" for i in range(9)))
    sampling = "data_sampling_general\n_rlnHealpixOrder 2\n_rlnSymmetryGroup C1\n_rlnOffsetRange 10\n_rlnOffsetStep 4\n"
    optimiser = ("data_optimiser_general\n_rlnAdaptiveOversampleOrder 1\n_rlnChangesOptimalOrientations 3.5\n_rlnChangesOptimalOffsets 0.5\n"
                 "_rlnHasConverged 0\n")  # fmt: skip
    volume = np.random.default_rng(number).normal(size=(16, 16, 16)).astype(np.float32)
    for half in ("half1", "half2"):
        mrc.write_map(f"{stem}_{half}_class001.mrc", volume + 0.1 * (half == "half2"), 2.0)
    Path(f"{stem}_sampling.star").write_text(sampling)
    Path(f"{stem}_optimiser.star").write_text(optimiser)
    labelled = ["rlnImageName", "rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnLogLikeliContribution", "rlnMaxValueProbDistribution"]
    scores = ((1, 20.0), (2, 30.0), (3, 10.0))
    particles = "".join(f"{i:06d}@in/stack.mrcs {i} 90 0 {value} 0.5\n" for i, value in scores)
    Path(f"{stem}_data.star").write_text(_loop("particles", labelled, particles))
    Path(f"{stem}_half1_model.star").write_text(general + classes + _loop("model_class_1", labels, shells) + noise)


def write_postprocess(folder: Path, refinement: str) -> None:
    """A `postprocess.star` as RELION 5 writes it, of the half maps of a refinement with a box of 16 px at 2 A."""
    folder.mkdir(parents=True, exist_ok=True)
    general = (f"data_general\n_rlnFinalResolution 5.333333\n_rlnBfactorUsedForSharpening -61.5\n_rlnUnfilteredMapHalf1 {refinement}"
               "/run_half1_class001_unfil.mrc\n_rlnMaskName mask.mrc\n_rlnRandomiseFrom 12.8\n_rlnFittedSlopeGuinierPlot -15.4\n"
               "_rlnFittedInterceptGuinierPlot -3.5\n")  # fmt: skip
    columns = ["rlnSpectralIndex", "rlnResolution", "rlnAngstromResolution", "rlnFourierShellCorrelationCorrected",
               "rlnFourierShellCorrelationMaskedMaps"]  # fmt: skip
    shells = "".join(f"{i} {i / 32 or 0.001001:.6f} {32 / i if i else 999:.6f} {1 - 0.12 * i:.6f} {1 - 0.1 * i:.6f}\n" for i in range(9))
    amplitudes = "".join(f"{(i / 32) ** 2:.6f} {-3 - i:.5f} {-99 if i == 8 else -2 - i:.5f}\n" for i in range(9))
    guinier = _loop("guinier", ["rlnResolutionSquared", "rlnLogAmplitudesOriginal", "rlnLogAmplitudesSharpened"], amplitudes)
    (folder / "postprocess.star").write_text(general + _loop("fsc", columns, shells) + guinier)


def write_validation(folder: Path, **more: object) -> None:
    """A `validation.json` with one measure and three curves; `more` are further entries."""
    measure = {"key": "cfar", "label": "cFAR <b>", "value": 0.3, "unit": "", "verdict": "poor", "text": "uneven", "source": "x", "shown": "0.300"}
    frequency = [0.0, 0.05, 0.1]
    curves = {"fsc": {"frequency": frequency, "unmasked": [1, 0.7, None], "masked": [1, 0.8, 0.1]},
              "sampling": {"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "times_even": [1, 0.5, 1.5]},
              "reslog": {"particles": [100, 200], "resolution": [10, None], "line": [10, 9], "fitted": [1, 1]}}  # fmt: skip
    (folder / "validation.json").write_text(json.dumps({**more, "notes": {"Run": "job001"}, "measures": [measure], "curves": curves}))


def wait_for(page: Page, job: str, *wanted: str) -> dict:
    """The job as soon as it has one of the states."""
    end = time.monotonic() + 240  # the first run on a machine compiles the kernels
    while time.monotonic() < end:
        found = page.get(f"/api/job/{job}").json
        if found["status"] in wanted:
            return found
        time.sleep(0.2)
    raise AssertionError(f"{job} is {found['status']}: {found['startLog']}")


def add_job(
    root: Path, name: str, status: str = labels.SUCCEEDED, inputs: tuple[str, ...] = (), outputs: tuple[str, ...] = (),
    kind: str = "ParticleGroupMetadata.star",
) -> None:  # fmt: skip
    """A job's place in the pipeline of the project at `root`, with an empty directory; `kind` is that of its inputs and outputs."""
    job_type = job_types.by_name(name.split("/")[0])
    with Project.open(root).edit("a test") as pipeline:
        process = Process(name, "None", job_type.label, status)
        pipeline.add_process(process, job_type.code)
        pipeline.counter = max(pipeline.counter, process.number + 1)
        for node in inputs:
            pipeline.add_input(node, kind, name)
        for node in outputs:
            pipeline.add_output(name, node, kind)
    (root / name).mkdir(parents=True)
