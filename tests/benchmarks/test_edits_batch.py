"""The benchmark of batches, in small."""

from __future__ import annotations

from pathlib import Path

from benchmarks import edits_batch


def test_every_edit_is_recorded_once(tmp_path: Path) -> None:
    found = edits_batch.run(tmp_path, rows=20, single=3)["results"]
    assert {name: each["rows"] for name, each in found.items()} == {
        "in batches": 20,
        "in batches, sent again": 20,
        "a request each, one after another": 3,
    }
    assert all(each["per_second"] > 0 for each in found.values())
    assert "| in batches | 20 |" in (tmp_path / "edits-batch.md").read_text()
