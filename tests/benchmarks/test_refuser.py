"""The refuser benchmark: populations by hand, and its page."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.refuser import POPULATIONS, Population, play, run


def test_the_policy_that_asks_back_is_found_and_the_others_are_not_accused() -> None:
    outcome = play(POPULATIONS[0], 0)
    assert outcome.found is not None and outcome.found < 100 and not outcome.accused
    assert outcome.share > 0.5  # nothing is priced, so it seems to be the best one
    assert play(POPULATIONS[1], 0).share < 0.2


def test_where_nobody_asks_back_nobody_is_named() -> None:
    assert play(Population("none", (0.0,) * 5), 0)[:2] == (None, False)


def test_a_run_is_written(tmp_path: Path) -> None:
    run(tmp_path, seeds=2)
    data = json.loads((tmp_path / "refuser.json").read_text())
    assert [each["population"] for each in data["results"]] == [each.name for each in POPULATIONS]
    assert "| one asks back in 70% | 100.0% |" in (tmp_path / "refuser.md").read_text()
