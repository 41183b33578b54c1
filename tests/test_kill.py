"""The short version of benchmarks/kill.py: a run that is killed and resumed leaves whole files and the same map."""

from __future__ import annotations

import kill


def test_a_run_killed_twice_ends_with_the_same_map_and_whole_files(tmp_path):
    tally, _ = kill.measure(tmp_path, kills=2, per_run=2, seed=3, particles=60, box=24, pixel_size=13.2)
    assert tally.kills >= 2 and tally.broken == []
    assert min(run["lowest_fsc_to_resolution"] for run in tally.runs) > 0.999
