"""The benchmarks of the edits room at a small size: their results are written and make sense."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import cost_speed, large_log, log_scale
from editloop.edits import Record
from editloop.errors import ConfigError, EditLoopError
from editloop.results import hardware, write_result


def test_results_name_the_hardware_and_the_date(tmp_path: Path) -> None:
    paths = write_result("one", {"answer": 42}, "| a |\n", tmp_path / "results")
    result = json.loads(paths[0].read_text())
    assert (result["name"], result["answer"], result["hardware"]) == ("one", 42, hardware())
    text = paths[1].read_text()
    assert text.startswith("# one\n\n| a |\n") and hardware()["cpu"] in text and result["date"] in text


def test_cost_speed(tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    pytest.importorskip("editdistance")
    measured = cost_speed.run(tmp_path, data=tmp_path / "absent", repeats=1)
    (texts,) = measured["texts"]
    assert (measured["real_texts"], texts["texts"]) == (False, "synthetic")
    assert texts["times_as_fast_as_usual_loop"] > 5
    assert texts["mean_cost"]["editloop"] == pytest.approx(texts["mean_cost"]["usual loop"])
    assert "Synthetic edits" in (tmp_path / "cost-speed.md").read_text()


def test_log_scale(tmp_path: Path) -> None:
    measured = log_scale.run(tmp_path, rows=3000)
    assert measured["rows"] == 3000 == measured["records"] + measured["duplicates"] + measured["bad_rows"]
    assert measured["duplicates"] > 0 and 0 < measured["peak_mb"] < log_scale.GOAL_MB
    assert json.loads((tmp_path / "log-scale.json").read_text())["rows_per_second"] > 0


def test_large_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("duckdb")
    pytest.importorskip("polars")
    monkeypatch.setattr(large_log, "VERBS", ("split by user",))  # the others take as long to start
    measured = large_log.run(tmp_path, rows=800)
    found = measured["measured"]
    assert measured["files"] == 4
    repeated = {found[f"repeated: {engine}, whole"]["seen"] for engine in large_log.ENGINES}
    assert (
        len(repeated) == 1 and 0 < repeated.pop() < 40
    )  # all engines find the same rows, about one in a hundred
    assert {found[f"read: {engine}, whole"]["rows"] for engine in large_log.ENGINES} == {800}
    assert 0 < found["split by user, quarter"]["rows"] <= 200 < found["split by user, whole"]["rows"] <= 800
    assert "| split by user |" in (tmp_path / "large-log.md").read_text(encoding="utf-8")


def test_a_log_that_would_fill_the_disk_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="half of the free disk"):
        large_log.run(tmp_path, rows=10**12)
    assert list(tmp_path.iterdir()) == []


def test_log_scale_reports_a_failed_inspection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_scale, "_CHILD", "raise SystemExit(3)")
    with pytest.raises(EditLoopError, match="the inspection failed: 3"):
        log_scale.run(tmp_path, rows=10)


def test_synthetic_logs_are_seeded_and_edited() -> None:
    rows = list(log_scale.synthetic_rows(500, seed=1))
    assert rows == list(log_scale.synthetic_rows(500, seed=1)) != list(log_scale.synthetic_rows(500, seed=2))
    statuses = [Record(**row).status for row in rows if row["response"].strip()]
    assert 0.75 < statuses.count("edited") / len(statuses) < 0.92
