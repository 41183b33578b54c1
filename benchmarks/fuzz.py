"""Long fuzzing of every reader: by coverage with atheris where it is installed (`pip install atheris`), else by plain mutation.

python benchmarks/fuzz.py [--target star] [--seconds 1800] [--engine atheris] [--corpus FOLDER] [--output benchmarks/results/fuzz.json]

Each target runs in a process of its own, with a limit of its memory. What a reader raises beyond InputError, a file that takes more than
`--limit` seconds of processor time, and any file that appears outside the job's folder are findings: they are printed, and kept in --corpus.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
MEMORY = 6 << 30  # bytes of address space; numba's compiler needs one or two


def mutation(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Random changes of the seeds for the time given; returns counts and findings."""
    import fuzz_targets as fuzz

    rng, start, executed, accepted, slowest = random.Random(given.seed), time.monotonic(), 0, 0, 0.0
    findings: dict[str, str] = {}
    with fuzz.temporary() as folder:
        place = fuzz.Workplace(folder)
        os.chdir(place.root)
        corpus = fuzz.seeds(name, place, given.shared)
        while time.monotonic() - start < given.seconds:
            data = fuzz.mutate(rng, rng.choice(corpus), corpus)
            before = time.process_time()
            try:
                accepted += fuzz.run(name, place, data)
            except Exception as error:  # every kind is a finding
                frame = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/aurefine/" in f.filename), None)
                where = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}" if frame else repr(error)
                if where not in findings:
                    findings[where] = _keep(given, name, data)
            used = time.process_time() - before
            slowest, executed = max(slowest, used), executed + 1
            if used > given.limit:
                findings[f"{used:.0f} s of processor time"] = _keep(given, name, data)
        findings |= {f"wrote {path}": "" for path in fuzz.strays(place)}
    return {"executed": executed, "accepted": accepted, "slowest_seconds": round(slowest, 3), "findings": findings}


def coverage(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Guided by coverage (atheris, libFuzzer); ends at the first finding of a process and starts the next."""
    end, executed, findings, start = time.monotonic() + given.seconds, 0, {}, given.seed
    folder = given.corpus / name
    while (left := int(end - time.monotonic())) > 0:
        command = [sys.executable, __file__, "--child", name, "--seconds", str(left), "--seed", str(start), "--corpus", str(given.corpus)]
        done = subprocess.run([*command, *(["--shared", str(given.shared)] if given.shared else [])], capture_output=True, text=True)
        counts = re.findall(r"^#(\d+)\s", done.stderr, re.MULTILINE)
        executed, start = executed + max(map(int, counts), default=0), start + 1
        if done.returncode == 0:
            break
        raised = re.findall(r"(?:exception: ===\s+|libFuzzer: )([^\n]+)", done.stderr) or [done.stderr[-300:]]
        kept = (re.findall(r"Test unit written to (\S+)", done.stderr) or [""])[-1]
        if "-timeout-" not in kept or _processor_seconds(name, Path(kept)) > given.limit:  # a machine that stood still is no finding
            findings[raised[-1][:200]] = kept
    return {"executed": executed, "corpus": len(list(folder.glob("*"))), "findings": findings}


def _processor_seconds(name: str, path: Path) -> float:
    """What one file takes by itself; it is known to raise nothing."""
    import fuzz_targets as fuzz

    with fuzz.temporary() as folder:
        start = time.process_time()
        fuzz.run(name, fuzz.Workplace(folder), path.read_bytes())
        return time.process_time() - start


def child(name: str, given: argparse.Namespace) -> None:
    """One libFuzzer process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["aurefine"]):
        import fuzz_targets as fuzz
    folder = given.corpus / name
    folder.mkdir(parents=True, exist_ok=True)
    place = fuzz.Workplace(fuzz.temporary().name)
    place.root.mkdir(parents=True, exist_ok=True)
    place = fuzz.Workplace(place.root.parents[1])
    os.chdir(place.root)
    for number, data in enumerate(fuzz.seeds(name, place, given.shared)):
        (folder / f"seed{number:03d}").write_bytes(data)
    words = given.corpus / "words.dict"
    words.write_text("".join('"' + "".join(f"\\x{byte:02x}" for byte in word) + '"\n' for word in fuzz.WORDS))

    calls = itertools.count()

    def one(data: bytes) -> None:
        fuzz.run(name, place, data)
        if next(calls) % 64 == 0 and (stray := fuzz.strays(place)):
            raise AssertionError(f"written outside the job's folder: {stray}")

    options = [f"-max_total_time={given.seconds:.0f}", f"-seed={given.seed + 1}", "-timeout=120", "-rss_limit_mb=4096", "-max_len=20000",
               f"-dict={words}", f"-artifact_prefix={given.corpus}/{name}-"]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(folder)], one)
    atheris.Fuzz()


def _keep(given: argparse.Namespace, name: str, data: bytes) -> str:
    given.corpus.mkdir(parents=True, exist_ok=True)
    path = given.corpus / f"{name}-{abs(hash(data)) % 10**10:010d}"
    path.write_bytes(data)
    return str(path)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--target", default="", help="one or several, joined by commas; all without it")
    parser.add_argument("--seconds", type=float, default=60, help="for each target")
    parser.add_argument("--engine", choices=("atheris", "mutation"), default="atheris" if importlib.util.find_spec("atheris") else "mutation")
    parser.add_argument("--corpus", type=Path, default=Path("fuzz_corpus"))
    parser.add_argument("--shared", type=Path, default=None, help="folder with star/, files of other programs to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=5, help="seconds of processor time that a file may take")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.corpus = given.corpus.resolve()
    return given


def main() -> int:
    """Fuzz each target, print and keep the counts; 1 when there are findings."""
    given = _arguments()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    warnings.simplefilter("ignore")
    given.output = given.output and given.output.resolve()
    if given.child:
        child(given.child, given)
    import fuzz_targets as fuzz

    results: dict[str, dict[str, object]] = {}
    home = Path.cwd()
    for name in given.target.split(",") if given.target else fuzz.TARGETS:
        results[name] = (coverage if given.engine == "atheris" else mutation)(name, given)
        os.chdir(home)
        print(name, json.dumps(results[name]), flush=True)
    if given.output:
        given.output.write_text(json.dumps({"engine": given.engine, "seconds": given.seconds, "targets": results}, indent=1) + "\n")
    return int(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
