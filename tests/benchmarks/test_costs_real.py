"""The benchmark of costs on people's edits, on made-up ones: what stands for a draft, and the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import costs_real
from editloop.errors import ConfigError


def test_what_stands_in_place_of_a_draft() -> None:
    drafts = [f"One {i} two. Three four {i}." for i in range(20)]
    found = costs_real.other_drafts(drafts, ["ask"] * 20)
    assert found["the draft"] == drafts
    assert found["another draft"][15] == drafts[2]  # seven rows on, in a circle
    assert found["its first third"][1] == "One 1"
    assert found["its first sentence"][1] == "One 1 two."
    assert found["every third word"][1] == "One Three"
    assert found["five other drafts"][0].split(". One")[0] == "One 7 two. Three four 7"
    assert {len(texts) for texts in found.values()} == {20}


def test_figures_and_page(tmp_path: Path) -> None:
    """Half of the words of each draft are replaced; nothing of five other drafts is in the edit."""
    rows = [
        {
            "context": "Write.",
            "response": f"a{i} b{i} c{i} d{i}",
            "edit": f"a{i} b{i} x y{' z' * (i % 2)}",
            "scores_before_after": [str(4 - i % 2), str(5 + i % 3)],
            "spans_edited": i % 2,
        }
        for i in range(24)
    ]
    (tmp_path / costs_real.LAMP).write_text("\n".join(map(json.dumps, rows)))
    for pair in costs_real.PAIRS:
        lines = ["src\tmt\tpe\thter", *(f"s\ta b c\t{'a b c'[:n]}\t{(5 - n) / 6}" for n in (1, 3, 5))]
        (tmp_path / f"mlqe_pe.{pair}.test.tsv").write_text("\n".join(lines) + "\n")
    found = costs_real.run(tmp_path, data=tmp_path)["costs"]
    mean = found["alignment:word"]["means"]
    assert mean["the draft"] == pytest.approx((0.5 + 2.25 / 4.25) / 2)
    assert mean["five other drafts"] == mean["nothing"] == 1
    assert found["alignment:word"]["wins"]["another draft"] == 0
    assert found["alignment:word"]["correlations"]["spans"] == pytest.approx(1)
    assert found["alignment:word"]["correlations"]["HTER, ro-en"] == pytest.approx(1)
    # By the paper's cost, five such drafts cost 1. So does one of them, or more where the edit is longer.
    assert found["levenshtein:word/response"]["wins"]["five against one"] == pytest.approx(0.5)
    assert "| five other drafts |" in (tmp_path / "costs-real.md").read_text()
    with pytest.raises(ConfigError, match="EDITLOOP_DATA"):
        costs_real.run(tmp_path, data=tmp_path / "nowhere")
