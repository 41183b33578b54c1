"""`make demo`: simulate particles, refine them with RELION's command line, compare with the truth, leave a picture and the numbers."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from aurefine import __version__, compare, figures, molecule, mrc, run_report, simulate
from aurefine.errors import InputError

JOB = "Refine3D/job001"


@dataclass(frozen=True)
class Settings:
    """What the demo simulates; the molecule resembles beta-galactosidase: four subunits about three axes, 465 kDa."""

    particles: int = 1000
    box: int = 64
    pixel_size: float = 3.54  # Angstrom
    symmetry: str = "D2"
    snr: float = 0.08  # signal over noise variance within the particle
    initial_lowpass: float = 50.0  # Angstrom
    threads: int = max(1, os.cpu_count() or 1)
    seed: int = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the demo; returns the exit code of the refinement."""
    defaults = Settings()
    parser = argparse.ArgumentParser(prog="python -m aurefine.demo", description=__doc__)
    parser.add_argument("--output", type=Path, default=Path("demo_output"), help="folder for everything that the demo leaves")
    parser.add_argument("--particles", type=int, default=defaults.particles)
    parser.add_argument("--j", dest="threads", type=int, default=defaults.threads, help="threads (default: all cores)")
    parser.add_argument("--seed", type=int, default=defaults.seed)
    given = parser.parse_args(arguments)
    settings = Settings(particles=given.particles, threads=given.threads, seed=given.seed)
    try:
        return run(given.output, settings)
    except InputError as error:
        print(f"aurefine demo: {error}", file=sys.stderr)
        return 2


def run(folder: Path, settings: Settings) -> int:
    """Simulate, refine, compare and draw in `folder`; returns the exit code of the refinement.

    Leaves report.png, numbers.json, the particles with their truth, and a RELION job directory, Refine3D/job001.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder / JOB, ignore_errors=True)  # an earlier demo's iterations would mix with this one's
    (folder / JOB).mkdir(parents=True)
    began = time.monotonic()
    print(f"1. Simulating {settings.particles} particles of a generated {settings.symmetry} molecule, {settings.box} px of {settings.pixel_size} Å")
    made = _simulate(folder, settings)
    simulated = time.monotonic()
    command = refine_arguments(made, folder, settings)
    print(f"2. Refining from {settings.initial_lowpass:g} Å (in {folder}):\n   aurefine {' '.join(command)}", flush=True)
    status = subprocess.run([sys.executable, "-m", "aurefine", *command], cwd=folder, env=_environment(), check=False).returncode
    if status != 0:
        print(f"The refinement ended with exit code {status}: see the message above.", file=sys.stderr)
        return status
    refined = time.monotonic()
    print("3. Comparing with the truth")
    numbers = {"simulate_seconds": round(simulated - began, 1), "refine_seconds": round(refined - simulated, 1)}
    _print(compare_and_draw(folder, made, settings, numbers), folder)
    return 0


def refine_arguments(made: simulate.SimulatedSet, folder: Path, settings: Settings) -> list[str]:
    """The command line that RELION's form would print for these particles, from `refine` on; file names relative to `folder`."""
    return [
        "refine", "--o", f"{JOB}/run", "--auto_refine", "--split_random_halves", "--i", str(made.particles.relative_to(folder)),
        "--ref", str(made.reference.relative_to(folder)), "--ini_high", f"{settings.initial_lowpass:g}", "--firstiter_cc",
        "--dont_combine_weights_via_disc", "--pool", "3", "--pad", "2", "--auto_ignore_angles", "--auto_resol_angles", "--ctf",
        "--particle_diameter", f"{made.particle_diameter:.0f}", "--flatten_solvent", "--zero_mask", "--oversampling", "1",
        "--healpix_order", "2", "--auto_local_healpix_order", "4", "--offset_range", "5", "--offset_step", "2", "--sym", settings.symmetry,
        "--low_resol_join_halves", "40", "--norm", "--scale", "--j", str(settings.threads), "--random_seed", str(settings.seed),
        "--pipeline_control", f"{JOB}/",
    ]  # fmt: skip


def compare_and_draw(folder: Path, made: simulate.SimulatedSet, settings: Settings, numbers: dict[str, float]) -> dict[str, float]:
    """The numbers against the truth, added to `numbers`; writes numbers.json and report.png into `folder`."""
    report = run_report.read_run(folder / JOB / "run")
    truth, _ = mrc.read_map(made.truth_map)
    fitted = compare.map_fsc(report.map, truth, report.pixel_size)
    poses = compare.pose_errors(folder / JOB / "run_data.star", made.truth, settings.symmetry)
    found: dict[str, float] = {"iterations": int(report.iterations[-1]), "resolution_angstrom": report.final_resolution}
    numbers = {"particles": settings.particles, **numbers, **found, **fitted.summary(), **poses}
    text = json.dumps({"aurefine": __version__, "symmetry": settings.symmetry, **numbers}, indent=2)
    (folder / "numbers.json").write_text(text + "\n", encoding="utf-8")
    figures.draw_report(report, folder / "report.png", truth, fitted.curve, _notes(numbers))
    return numbers


def _notes(numbers: dict[str, float]) -> list[str]:
    """The lines of the picture's corner."""
    return [
        f"map against the truth: FSC 0.5 at {numbers['fsc_half_angstrom']:.2f} Å",
        f"angles: median error {numbers['angle_median']:.2f}°, 90% within {numbers['angle_p90']:.2f}°",
        f"origins: median error {numbers['shift_median']:.2f} Å, 90% within {numbers['shift_p90']:.2f} Å",
        f"refined in {numbers['refine_seconds']:.0f} s",
    ]


def _print(numbers: dict[str, float], folder: Path) -> None:
    hand = "right" if numbers["mean_fsc"] > numbers["mirror_mean_fsc"] else "WRONG"
    rows = (
        ("resolution of the half maps (FSC 0.143)", f"{numbers['resolution_angstrom']:.2f} Å"),
        ("map against the truth (FSC 0.5)", f"{numbers['fsc_half_angstrom']:.2f} Å"),
        ("orientations, median error", f"{numbers['angle_median']:.2f}°   (90% within {numbers['angle_p90']:.2f}°)"),
        ("origins, median error", f"{numbers['shift_median']:.2f} Å  (90% within {numbers['shift_p90']:.2f} Å)"),
        ("hand", hand),
        ("iterations", f"{numbers['iterations']:.0f}"),
        ("time to simulate, to refine", f"{numbers['simulate_seconds']:.0f} s, {numbers['refine_seconds']:.0f} s"),
    )
    for name, value in rows:
        print(f"   {name:<42}{value}")
    print(f"Picture: {folder / 'report.png'}\nNumbers: {folder / 'numbers.json'}")


def _simulate(folder: Path, settings: Settings) -> simulate.SimulatedSet:
    imaging = simulate.Imaging(
        particles=settings.particles, cameras=(simulate.Camera(settings.pixel_size, settings.box),), snr=settings.snr,
        seed=settings.seed, reference_resolution=settings.initial_lowpass,
    )  # fmt: skip
    return simulate.simulate(molecule.generate(settings.symmetry, seed=settings.seed), folder, imaging)


def _environment() -> dict[str, str]:
    """This environment, with this package found from the demo's folder too."""
    package = str(Path(__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))}


if __name__ == "__main__":
    sys.exit(main())
