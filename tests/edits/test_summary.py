"""The summary: hand-computed numbers, the sample, and the bounds on what is kept."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

import editloop.edits.tally as summary_room
from editloop.edits import Message, Record, get_cost, read_log, summarize, write_log

RECORDS = [
    # words: context 2, response 4, edit 4, common beginning 2; cost 1/4; shared 2 * (2 + 2) / (2 * 2 + 4 + 4)
    Record(context="p q", response="a b c d", edit="a b x d", user="ann", policy="base", time=100),
    Record(context="p", response="a b", status="accepted", user="ann", policy="base", time=300),
    # cost 2/2; shared 2 * (3 + 0) / (2 * 3 + 2 + 0)
    Record(
        context=(Message(role="system", content="p"), Message(role="user", content="q r")),
        response="a b",
        edit="",
        user="bob",
        time=200,
    ),
    Record(context="p", response="a", user="bob"),
    Record(context="p", response="a a", status="expired"),
]


def test_numbers_by_hand() -> None:
    summary = summarize(RECORDS)
    assert summary.rows == 5
    assert summary.statuses == {"edited": 2, "accepted": 1, "pending": 1, "expired": 1}
    assert summary.all.mean_cost == pytest.approx((0.25 + 0 + 1) / 3)
    assert summary.all.share_edited == pytest.approx(2 / 3)
    assert summary.shared == pytest.approx((8 / 12 + 6 / 8) / 2)
    assert summary.kept == {"supervision": 3, "preferences": 2, "costs": 3}
    assert summary.dropped["preferences"] == {"unedited": 1, "pending": 1, "expired": 1}
    assert summary.dropped["supervision"] == summary.dropped["costs"] == {"pending": 1, "expired": 1}
    assert [(g.name, g.rows, g.observed, g.edited, g.mean_cost) for g in summary.users] == [
        ("ann", 2, 2, 1, 0.125),
        ("bob", 2, 1, 1, 1.0),
    ]
    assert [(g.name, g.rows) for g in summary.policies] == [("base", 2)]
    assert (summary.n_users, summary.n_policies, summary.n_timed) == (2, 1, 3)
    assert summary.first is not None and summary.last is not None
    assert (summary.first.timestamp(), summary.last.timestamp()) == (100, 300)
    quantiles = summary.cost_quantiles
    assert quantiles is not None and quantiles["0.5"] == 0.25 and quantiles["max"] == 1.0
    words = {part: units["words"] for part, units in summary.lengths.items()}
    assert words["context"] is not None and words["context"]["max"] == 3
    assert (
        words["edit"] is not None and words["edit"]["0.5"] == 2
    )  # of 4, 2 and 0: rows without one do not count
    chars = summary.lengths["response"]["chars"]
    assert chars is not None and chars["max"] == 7
    assert summary.report is None and not summary.sampled


def test_json_has_it_all(tmp_path: Path) -> None:
    write_log(RECORDS, tmp_path / "log.jsonl")
    of_path = summarize(tmp_path / "log.jsonl").to_json()
    of_log = summarize(read_log(tmp_path / "log.jsonl")).to_json()
    assert json.loads(json.dumps(of_path, allow_nan=False)) == of_path == of_log
    assert of_path["report"]["rows_read"] == 5
    assert of_path["views"]["preferences"] == {
        "rows": 2,
        "dropped": {"unedited": 1, "pending": 1, "expired": 1},
    }
    assert (of_path["share_edited"], of_path["share_accepted"]) == (
        pytest.approx(2 / 3),
        pytest.approx(1 / 3),
    )


def test_nothing_observed_has_no_costs() -> None:
    summary = summarize(RECORDS[3:])
    assert (summary.all.mean_cost, summary.cost_quantiles, summary.shared) == (None, None, None)
    assert summary.lengths["edit"] == {"words": None, "chars": None}
    assert json.loads(json.dumps(summary.to_json(), allow_nan=False))["mean_cost"] is None
    assert summarize([]).rows == 0


def test_times_at_the_ends_of_the_calendar() -> None:
    times = [datetime(1, 1, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC)]
    summary = summarize([Record(context="c", response=f"r{i}", time=at) for i, at in enumerate(times)])
    assert (summary.first, summary.last) == (times[0], times[1])


def test_another_cost() -> None:
    summary = summarize(RECORDS[:1], cost=get_cost("levenshtein:char/none"))
    assert (summary.cost, summary.all.mean_cost) == ("levenshtein:char/none", 1.0)


def test_batches_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = summarize(RECORDS)
    monkeypatch.setattr(summary_room, "BATCH_ROWS", 2)
    parts = summarize(RECORDS)
    assert parts.to_json() == whole.to_json()
    assert parts.sample.tobytes() == whole.sample.tobytes()


def test_beyond_the_sample_means_stay_exact_and_the_sample_uniform(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_room, "SAMPLE_ROWS", 500)
    monkeypatch.setattr(summary_room, "BATCH_ROWS", 70)
    n = 4000
    log = [
        Record(id=str(i), context="c", response="a b", edit="a" if i < n // 4 else "a b") for i in range(n)
    ]
    summary = summarize(log)
    assert summary.sampled and len(summary.sample) == 500
    assert summary.all.mean_cost == 0.5 / 4
    rows = summary.sample["row"]
    assert (np.diff(rows) > 0).all()
    # A uniform sample's mean row is (n - 1) / 2; its standard error n / sqrt(12 * 500).
    assert abs(rows.mean() - (n - 1) / 2) < 4 * n / np.sqrt(12 * 500)
    quarters = np.bincount(rows * 4 // n, minlength=4)
    assert (abs(quarters - 125) < 4 * np.sqrt(500 * 0.25 * 0.75)).all()


def test_users_beyond_the_tracked_are_still_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary_room, "GROUPS_TRACKED", 3)
    monkeypatch.setattr(summary_room, "GROUPS_SHOWN", 2)
    log = [Record(id=str(i), context="c", response="a", user=f"u{i % 10}") for i in range(30)]
    summary = summarize(log)
    assert (summary.n_users, len(summary.users), len(summary.users_tracked)) == (10, 2, 3)
    assert set(summary.sample["user"].tolist()) == {-1, 0, 1, 2}
