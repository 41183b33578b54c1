"""Long fuzzing of every reader: by coverage with atheris where it is installed (`pip install atheris`), else by plain mutation; and value by value.

python benchmarks/fuzz.py [--target star] [--seconds 1800] [--engine atheris|mutation|values] [--corpus FOLDER] [--output fuzz.json]

The targets run one after the other, with atheris in processes of their own, and may take a gibibyte beyond what they start with. What a reader raises
beyond InputError, a file that takes more than `--limit` seconds of processor time, and whatever Python is asked to do outside the job's folder
or may never do (unpickle, start a program, open a connection: sys.addaudithook) are findings: they are printed, and kept in --corpus.
Mutation starts from what atheris has gathered in --corpus, too; values replaces each word of the seeds by each hostile value, once. --output
adds to the executions that the file holds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
MEMORY = 1 << 30  # bytes of address space that reading may take
MOST_FINDINGS = 20  # kept of each target


class TooLong(Exception):
    """A file took more than its processor time."""


def _limit_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))


def _limit_time() -> None:
    def stop(number: int, frame: object) -> None:
        raise TooLong

    signal.signal(signal.SIGVTALRM, stop)


def _run(name: str, place: object, data: bytes, seen: list[str], limit: float) -> bool:
    """Feed one file within its time; raises what is a finding."""
    import fuzzing as fuzz

    signal.setitimer(signal.ITIMER_VIRTUAL, limit)
    try:
        accepted = fuzz.run(name, place, data)
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    if seen:
        raise AssertionError(f"a reader may not do this: {seen.pop()}")
    return accepted


def _files(rng: random.Random, corpus: list[bytes], given: argparse.Namespace, end: float) -> Iterator[bytes]:
    """Files to read until the time has come; of the values engine, each word of the seeds replaced by each hostile value once."""
    import fuzzing as fuzz

    if given.engine == "values":
        yield from (data for seed in corpus for data in fuzz.every_value(seed) if time.process_time() < end)
    while given.engine != "values" and time.process_time() < end:
        yield fuzz.mutate(rng, rng.choice(corpus), corpus)


def mutation(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Random changes of the seeds and of what atheris kept, for the processor time given; returns counts and findings."""
    import fuzzing as fuzz

    rng, executed, accepted = random.Random(f"{name} {given.seed}"), 0, 0
    findings: dict[str, str] = {}
    with fuzz.temporary() as folder:
        place = fuzz.Workplace(folder)
        os.chdir(place.root)
        corpus = fuzz.seeds(name, place, given.shared)
        if given.engine == "mutation":
            corpus += [path.read_bytes() for path in sorted((given.corpus / name).glob("*"))]
        for data in corpus[:20]:
            fuzz.run(name, place, data)  # loads whatever is loaded on demand
        _limit_memory()
        _limit_time()
        with fuzz.watched(place) as seen:
            for data in _files(rng, corpus, given, time.process_time() + given.seconds):
                executed += 1
                try:
                    accepted += _run(name, place, data, seen, given.limit)
                except Exception as error:  # every kind is a finding
                    frame = next((f for f in reversed(traceback.extract_tb(error.__traceback__)) if "/aurefine/" in f.filename), None)
                    where = f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}" if frame else repr(error)
                    if where not in findings and len(findings) < MOST_FINDINGS:
                        findings[where] = _keep(given, name, data)
                    seen.clear()
        findings |= {f"wrote {path}": "" for path in fuzz.strays(place)}
    return {"executed": executed, "accepted": accepted, "findings": findings}


def coverage(name: str, given: argparse.Namespace) -> dict[str, object]:
    """Guided by coverage (atheris, libFuzzer); ends at the first finding of a process and starts the next."""
    end, executed, findings, start = time.monotonic() + given.seconds, 0, {}, given.seed
    folder = given.corpus / name
    while (left := int(end - time.monotonic())) > 0:
        command = [sys.executable, __file__, "--child", name, "--seconds", str(left), "--seed", str(start), "--limit", str(given.limit),
                   "--corpus", str(given.corpus)]  # fmt: skip
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
    import fuzzing as fuzz

    with fuzz.temporary() as folder:
        start = time.process_time()
        fuzz.run(name, fuzz.Workplace(folder), path.read_bytes())
        return time.process_time() - start


def child(name: str, given: argparse.Namespace) -> None:
    """One libFuzzer process; does not return."""
    import atheris

    with atheris.instrument_imports(include=["aurefine"]):
        import fuzzing as fuzz
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

    for data in fuzz.seeds(name, place, given.shared):
        fuzz.run(name, place, data)  # loads whatever is loaded on demand
    _limit_memory()
    _limit_time()
    watch = fuzz.watched(place)
    seen = watch.__enter__()

    def one(data: bytes) -> None:
        _run(name, place, data, seen, given.limit)

    options = [f"-max_total_time={given.seconds:.0f}", f"-seed={given.seed + 1}", "-timeout=120", "-rss_limit_mb=4096", "-max_len=8000",
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
    parser.add_argument("--seconds", type=float, default=60, help="for each target: of processor time, with atheris of wall time")
    usual = "atheris" if importlib.util.find_spec("atheris") else "mutation"
    parser.add_argument("--engine", choices=("atheris", "mutation", "values"), default=usual)
    parser.add_argument("--corpus", type=Path, default=Path("fuzz_corpus"))
    parser.add_argument("--shared", type=Path, default=None, help="folder with star/, files of other programs to start from")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=5, help="seconds of processor time that a file may take")
    parser.add_argument("--output", type=Path, default=None)
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.corpus = given.corpus.resolve()
    return given


def _together(names: list[str], given: argparse.Namespace) -> Iterator[tuple[str, dict[str, object]]]:
    """Several targets one after the other in a process of their own, by mutation; what it said when it ended badly is a finding."""
    words = [sys.executable, __file__, "--only", ",".join(names), "--engine", given.engine, "--seconds", str(given.seconds),
             "--seed", str(given.seed), "--limit", str(given.limit), "--corpus", str(given.corpus),
             *(["--shared", str(given.shared)] if given.shared else [])]  # fmt: skip
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        for name in names:
            line = process.stdout.readline()
            if not line:
                yield name, {"executed": 0, "findings": {f"the process ended: {process.stderr.read()[-300:]}": ""}}
                return
            yield name, json.loads(line)


def _added(path: Path, engine: str, results: dict[str, dict[str, object]]) -> dict[str, object]:
    """The figures of the file with these added."""
    kept = json.loads(path.read_text()) if path.exists() else {"executions": {}}
    for name, result in results.items():
        counts = kept["executions"].setdefault(name, {})
        counts[engine] = counts.get(engine, 0) + result["executed"]
    kept["total"] = sum(sum(counts.values()) for counts in kept["executions"].values())
    return kept


def main() -> int:
    """Fuzz each target, print and keep the counts; 1 when there are findings."""
    given = _arguments()
    warnings.simplefilter("ignore")
    if given.child:
        child(given.child, given)
    if given.only:
        home = Path.cwd()
        for name in given.only.split(","):
            result = mutation(name, given) if given.engine != "atheris" else coverage(name, given)
            os.chdir(home)
            print(json.dumps(result), flush=True)
        return 0
    import fuzzing as fuzz

    names = given.target.split(",") if given.target else list(fuzz.TARGETS)
    results: dict[str, dict[str, object]] = {}
    for name, result in _together(names, given):
        results[name] = result
        print(name, json.dumps(result), flush=True)
        if given.output:
            given.output.write_text(json.dumps(_added(given.output, given.engine, {name: result}), indent=1) + "\n")
    return int(any(result["findings"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
