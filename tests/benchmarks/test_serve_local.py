"""The benchmark of serving in-process, on a tiny base: what it measures, and what its page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks import serve_local


def test_both_ways_answer_the_same_prompts(base: Any, tmp_path: Path) -> None:
    found = serve_local.run(tmp_path, base=str(base(chat=True)), tokens=6, repeats=1)
    assert found["drawn"].keys() == found["seconds"].keys()
    for drawn in found["drawn"].values():
        assert len(drawn) == len(serve_local.PROMPTS) and max(drawn) <= 6
    assert all(len(each) == 1 and each[0] > 0 for each in found["seconds"].values())
    page = (tmp_path / "serve-local.md").read_text(encoding="utf-8")
    assert "| greedy" in page and "| sampled" in page and "A request of 5 tokens" in page
