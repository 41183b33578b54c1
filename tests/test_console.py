"""What is printed: RELION's lines to the letter, its progress bar on a terminal, plain lines in a file."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest

from aurefine import star
from aurefine.refine import messages
from aurefine.refine.console import Console, ProgressBar
from aurefine.refine.model_reader import read_sampling
from aurefine.refine.plan import Grid
from aurefine.refine.state import Progress

LAST = 12  # iteration before the final one of the run in the test data


def optimiser_progress(folder, iteration: int) -> Progress:
    """Progress as RELION's files hold it, without the data and maps that some iterations of the test data lack."""
    from aurefine.refine.checkpoint import _progress

    path = str(folder / f"run_it{iteration:03d}_optimiser.star")
    general = star.read(folder / f"run_it{iteration:03d}_half1_model.star")["model_general"]
    return _progress(star.read(path)["optimiser_general"], general, path)


def run_lines(folder) -> list[str]:
    """The lines of RELION's run.out, what follows the last carriage return of each."""
    text = (folder / "run.out").read_bytes().decode()
    return [line.split("\r")[-1] for line in text.split("\n")]


def iteration_lines(folder, iteration: int) -> list[str]:
    before = optimiser_progress(folder, iteration - 1)
    if iteration == 1:  # RELION sets the first resolution from the filter of 50 A only after it has written iteration 0
        before = replace(before, current_resolution=5 / (64 * 3.54))
    final = iteration == LAST + 1
    name = "run_" if final else f"run_it{iteration:03d}_"
    model = star.read(folder / f"{name}{'' if final else 'half1_'}model.star")
    sampling = read_sampling(str(folder / f"{name}sampling.star"), 1, model["model_general"])
    classes = model["model_classes"]
    lines = messages.iteration_lines(iteration, before) + (messages.convergence_lines() if final else [])
    if iteration == 1:
        return lines
    lines += messages.accuracy_lines(iteration, classes.value("rlnAccuracyRotations"), classes.value("rlnAccuracyTranslationsAngst"))
    return lines + messages.sampling_lines(sampling)


def test_every_auto_refine_line_of_relions_run_is_reproduced(shared_data):
    folder = shared_data / "relion5_betagal_run"
    expected = [line for line in run_lines(folder) if line.startswith(" Auto-refine:")]
    found = [line for iteration in range(1, LAST + 2) for line in iteration_lines(folder, iteration)]
    model = star.read(folder / "run_model.star")
    resolution, accuracy = model["model_general"].value("rlnCurrentResolution"), model["model_classes"].value("rlnAccuracyRotations")
    found += messages.final_lines("r5/run", 1 / resolution, accuracy)
    assert found == expected


def test_the_other_lines_of_an_iteration_are_relions(shared_data):
    folder = shared_data / "relion5_betagal_run"
    lines = run_lines(folder)
    start = lines.index(" Auto-refine: Iteration= 5")
    progress = optimiser_progress(folder, 4)
    sampling = read_sampling(str(folder / "run_it005_sampling.star"), 1, star.read(folder / "run_it005_half1_model.star")["model_general"])
    expected = [
        messages.accuracy_title(),
        messages.resolution_line(progress.current_resolution, 200.0),
        *messages.grid_lines(Grid(sampling), orientations=9216),
        messages.expectation_title(5),
        *messages.joining_lines(40.0),
        messages.fsc_line(),
        messages.maximisation_title(),
    ]
    rest = lines[start : start + 40]
    assert [line for line in expected if line not in rest] == []
    assert messages.noise_title(1000) in lines


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"tau2_fudge": 4.0}, "SEVERE WARNING: Because you used a tau2_fudge of 4 your resolution"),
        ({"solvent_fsc": True}, "+ Final resolution (already with masking) is: 4\n"),
        ({"other_images": True}, "+ Used rlnReconstructImageName images for final reconstruction. Ignore filtered map"),
        ({"accuracy_rotation": 12.0}, "You most probably do NOT want to publish these results!"),
    ],
)
def test_the_end_says_how_far_to_believe_the_resolution(settings, expected):
    lines = messages.final_lines("run", 0.25, **{"accuracy_rotation": 2.0, **settings})
    assert expected in "\n".join(lines) + "\n"


def test_no_resolution_yet_is_infinite():
    assert "Resolution= inf" in messages.iteration_lines(1, replace(Progress(), current_resolution=0.0))[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_on_a_terminal_the_bar_is_relions_with_the_time_left():
    stream, clock = Terminal(), Clock()
    with ProgressBar(stream, 60, clock=clock) as bar:
        for done in (15, 30):
            clock.now += 15
            bar.update(done)
    steps = stream.getvalue().split("\r")
    assert steps[0] == '000/??? sec ~~(,_,">' + " " * 58 + "[oo]"
    assert steps[1].startswith('  15/  60 sec ...............~~(,_,">') and steps[1].rstrip().endswith("[oo] 45.0 sec left")
    assert steps[2].rstrip().endswith("[oo] 30.0 sec left")
    assert steps[3].rstrip() == "  30/  30 sec " + "." * 60 + '~~(,_,"> yum!' and stream.getvalue().endswith("\n")


def test_long_steps_count_minutes_and_hours():
    stream, clock = Terminal(), Clock()
    bar = ProgressBar(stream, 100, clock=clock)
    for clock.now, done in ((30.0, 25), (3600.0, 50)):
        bar.update(done)
    assert "\r0.50/2.00 min " in stream.getvalue() and "\r1.00/2.00 hrs " in stream.getvalue()


def test_in_a_file_there_are_plain_lines_and_no_carriage_returns():
    stream, clock = io.StringIO(), Clock()
    with ProgressBar(stream, 100, clock=clock) as bar:
        for clock.now, done in ((10.0, 10), (70.0, 50), (80.0, 60)):
            bar.update(done)
    assert stream.getvalue() == "    50 % in 1.2 min, 1.2 min left\n   done in 1.3 min\n"


def test_a_warning_is_said_once_and_kept():
    stream, errors = io.StringIO(), io.StringIO()
    console = Console(stream, errors, verbosity=0)
    console.line("not said")
    with console.progress("silent", 3) as bar:
        bar.advance()
    console.warn("the mask is tight")
    console.warn("the mask is tight")
    assert stream.getvalue() == "" and errors.getvalue() == "WARNING: the mask is tight\n" and console.warnings == ["the mask is tight"]
