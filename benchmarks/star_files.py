"""Time and memory of `aurefine star` against `relion_star_handler` on one STAR file of many rows, in turns on the same machine.

python benchmarks/star_files.py [--rows 1000000] [--output benchmarks/results/star_files.json]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np
from paired import AUREFINE, conditions, in_turns

from aurefine import star

CHORES = {
    "select by value": ["--select", "rlnDefocusU", "--maxval", "14000"],
    "multiply two columns": ["--operate", "rlnOriginXAngst", "--operate2", "rlnOriginYAngst", "--multiply_by", "2"],
    "remove duplicates": ["--remove_duplicates", "60"],
}


def make(path: Path, rows: int) -> None:
    """Particles as a refinement writes them, 200 to a micrograph."""
    rng = np.random.default_rng(0)
    micrograph = np.arange(rows) // 200
    text = [f"Movies/20170629_{number:05d}_frameImage" for number in range(micrograph[-1] + 1)]
    columns: dict[str, np.ndarray] = {
        "rlnCoordinateX": np.round(rng.uniform(0, 4000, rows)),
        "rlnCoordinateY": np.round(rng.uniform(0, 4000, rows)),
        "rlnImageName": np.array([f"{row % 200 + 1:06d}@Extract/job018/{text[row // 200]}.mrcs" for row in range(rows)], dtype=object),
        "rlnMicrographName": np.array([f"MotionCorr/job002/{text[row // 200]}.mrc" for row in range(rows)], dtype=object),
        "rlnOpticsGroup": np.ones(rows, dtype=int),
        "rlnClassNumber": np.ones(rows, dtype=int),
        "rlnRandomSubset": rng.integers(1, 3, rows),
        "rlnLogLikeliContribution": rng.uniform(1e5, 2e6, rows),
    }
    for label, low, high in (("DefocusU", 8e3, 2e4), ("DefocusV", 8e3, 2e4), ("DefocusAngle", 0, 180), ("AngleRot", -180, 180), ("AngleTilt", 0, 180),
                             ("AnglePsi", -180, 180), ("OriginXAngst", -9, 9), ("OriginYAngst", -9, 9), ("NormCorrection", 0.5, 1.5),
                             ("MaxValueProbDistribution", 0, 1), ("CtfMaxResolution", 3, 8), ("CtfFigureOfMerit", 0, 0.2)):  # fmt: skip
        columns[f"rln{label}"] = rng.uniform(low, high, rows)
    optics = {"rlnOpticsGroup": 1, "rlnOpticsGroupName": "opticsGroup1", "rlnVoltage": 300.0, "rlnSphericalAberration": 2.7,
              "rlnAmplitudeContrast": 0.1, "rlnImagePixelSize": 0.885, "rlnImageSize": 256, "rlnImageDimensionality": 2}  # fmt: skip
    star.write(path, [star.Table.from_rows("optics", list(optics), [list(optics.values())]), star.Table("particles", columns)])


def main() -> None:
    """Write the file, run each chore with both programs in turns, print and keep the figures."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--output", default="benchmarks/results/star_files.json")
    given = parser.parse_args()
    result: dict[str, object] = {"rows": given.rows, "chores": {}} | conditions()
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "particles.star", Path(folder) / "out.star"
        make(source, given.rows)
        result["megabytes"] = round(source.stat().st_size / 1e6)
        for chore, flags in CHORES.items():
            arguments = ["--i", str(source), "--o", str(target), *flags]
            commands = {"aurefine": [*AUREFINE, "star", "--overwrite", *arguments], "relion": ["relion_star_handler", *arguments]}
            figures = in_turns(commands, given.times)
            print(chore, figures, flush=True)
            result["chores"][chore] = figures  # type: ignore[index]
    Path(given.output).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
