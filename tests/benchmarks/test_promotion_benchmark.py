"""The promotion benchmark: canaries whose end is plain, and its page."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.promotion import TEAMS, Team, play, run

PLAIN = Team("plain", 40, 20)


def test_a_policy_that_is_far_better_is_promoted_and_one_far_worse_is_called_so() -> None:
    assert play(PLAIN, 0.15, 0)[0] == "arm"
    worse = play(PLAIN, -0.15, 0)
    assert (worse.stage, worse.worse) == ("rejected", True)
    assert play(PLAIN, 0.15, 0) == play(PLAIN, 0.15, 0)  # the seed decides everything


def test_an_equal_policy_is_mostly_rejected_at_the_end_of_its_rounds() -> None:
    ends = [play(PLAIN, 0.0, seed) for seed in range(12)]
    late = [each for each in ends if each.stage == "rejected" and not each.worse]
    assert len(late) >= 9 and all(each.rounds >= 400 for each in late)


def test_a_run_is_written(tmp_path: Path) -> None:
    run(tmp_path, pairs=10, better=10)
    data = json.loads((tmp_path / "promotion.json").read_text())
    assert [each["team"]["name"] for each in data["results"]] == [team.name for team in TEAMS]
    assert all(0 <= each[kind]["promoted"] <= 1 for each in data["results"] for kind in ("equal", "better"))
    assert "| 5 users, by request |" in (tmp_path / "promotion.md").read_text()
