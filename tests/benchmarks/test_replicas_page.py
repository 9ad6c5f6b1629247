"""The page of the benchmark of replicas says what was measured."""

from __future__ import annotations

from benchmarks.replicas import _markdown

LOAD = {
    "servers_ms": 4.0,
    "servers_ms_by_turn": [4.0, 4.0],
    "database_ms": 1.0,
    "latency_ms": {"p50": 3.0, "p90": 4.0, "p99": 9.0},
    "requests": 1000,
    "answered": 999,
}
MEASURED = {
    "replicas": 4,
    "rate": 100.0,
    "goal": 1.15,
    "load_average": 0.5,
    "loads": {"1": LOAD, "4": LOAD | {"servers_ms": 4.4, "servers_ms_by_turn": [4.2, 4.6]}},
    "lag_ms": {"median": 90.0, "most": 510.0},
    "state_equal": True,
}


def test_the_ratio_is_that_of_the_servers() -> None:
    page = _markdown(MEASURED)
    assert "time of 4 is 1.10 times that of one (goal: at most 1.15: met); by turn 1.05, 1.15. Before" in page
    assert "| 4 | 4.40 | 1.00 | 3.0 | 9.0 | 1 of 1,000 |" in page
    assert "kills" not in page and "Completions per second" not in page
    worse = MEASURED | {"loads": {"1": LOAD, "4": LOAD | {"servers_ms": 5.0}}, "state_equal": False}
    assert "1.25 times that of one (goal: at most 1.15: missed)" in _markdown(worse)
    assert "gives: NO." in _markdown(worse)


def test_what_kills_have_left_is_counted() -> None:
    kills = {
        "replicas": 3,
        "failures": 120,
        "requests": 9000,
        "completions": 3000,
        "edits": 2000,
        "completions_lost": 1,
        "edits_lost": 2,
        "edits_double": 3,
        "decisions_double": 4,
        "acknowledgements_that_differ": 5,
        "gaps": 6,
        "start_seconds": {"median": 1.5, "most": 2.0},
        "answers": {"edit 200": 2000},
        "state_equal": True,
        "state_equal_after_restart": True,
    }
    page = _markdown(MEASURED | {"kills": kills, "throughput": {"1": 200.0, "4": 310.0}})
    assert "| 120 | 9,000 | 3,000 | 2,000 | 3 | 12 | 6 | yes |" in page
    assert "200 by 1, 310 by 4" in page
