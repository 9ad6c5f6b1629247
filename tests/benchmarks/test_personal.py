"""The personal benchmark: its populations, and its page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.personal import WAYS, WORLDS, play, population, run


def test_populations_have_the_spread_that_is_said() -> None:
    found = [population("all prefer the same", seed) for seed in range(20)]
    between = np.mean([each.means[:, 0].var() for each in found])
    within = np.mean([(each.means * (1 - each.means) / 6).mean() for each in found])
    assert 0.45 < between / (between + within) < 0.6  # the ends of [0, 1] cut a little off
    for each in found:
        assert (each.means.argmin(axis=1) == 0).mean() > 0.8
        counts = np.bincount(each.turns, minlength=80)
        assert counts.min() >= 4 and counts.max() <= 20


def test_who_prefers_what_follows_from_the_world() -> None:
    segments = population("by how much they edit", 0).means.argmin(axis=1)
    assert set(segments.tolist()) <= {0, 1, 2} and (np.bincount(segments) > 10).all()
    own = population("each their own", 0).means.argmin(axis=1)
    assert set(own.tolist()) == {0, 1, 2, 3, 4}


def test_to_know_the_user_is_better_than_to_start_anew() -> None:
    for world in WORLDS:
        known, alone = (
            np.mean([play(WAYS[way], population(world, seed), seed) for seed in range(2)])
            for way in ("one for all, which knows the user (default)", "each user alone")
        )
        assert known < alone


def test_a_run_is_written(tmp_path: Path) -> None:
    run(tmp_path, seeds=1)
    data = json.loads((tmp_path / "personal.json").read_text())
    assert {(each["world"], each["way"]) for each in data["results"]} == {
        (w, v) for w in WORLDS for v in WAYS
    }
    assert "| one for all, which knows the user (default) |" in (tmp_path / "personal.md").read_text()
