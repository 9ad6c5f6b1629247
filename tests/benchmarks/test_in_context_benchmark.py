"""The benchmark of in-context policies, on a tiny base: what is measured, and that nothing is drawn twice."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import in_context
from benchmarks.in_context import InContextSettings
from benchmarks.real_rows import Fold
from editloop.edits import as_context
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.lab import free_texts
from editloop.lab.free import FreeTexts
from editloop.policy import Policy
from editloop.serve.in_context.base import PastEdit
from small_log import small_log


@pytest.fixture
def small(base: Any) -> InContextSettings:
    folder = base(chat=True, max_position_embeddings=4096)
    return InContextSettings(str(folder), "float32", (1, 2), 3, (1, 3), (1, 2), ("ro-en", "et-en"), 4, (2, 3))


@pytest.fixture
def translated(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few short rows in place of those of translators."""
    rows = tuple(small_log(12))
    monkeypatch.setattr(in_context, "mlqe", lambda pair, data: Fold(rows[:6], rows[6:]))
    monkeypatch.setattr(in_context, "MOST_TRANSLATED", 8)


def test_each_policy_is_measured_on_the_same_contexts(
    small: InContextSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, translated: None
) -> None:
    monkeypatch.setattr(FreeTexts, "chunk", 3)
    monkeypatch.setattr(in_context, "MOST_TOKENS", 8)
    world = free_texts("email")
    monkeypatch.setattr(in_context, "free_texts", lambda name: replace(world, max_new_tokens=12))
    found = in_context.run(tmp_path, work=tmp_path / "work", settings=small)
    names = [(cell["policy"], cell["past"]) for cell in found["cells"]]
    assert names == [
        ("base", 0),
        ("retrieval-1", 1),
        ("retrieval-1", 3),
        ("retrieval-2", 3),
        ("preference-5", 1),
        ("preference-5", 3),
        ("the 2 newest edits", 3),
        ("2 edits in one message", 3),
        ("the user's rules in words", 3),
    ]
    rows = dict(zip(names, found["cells"], strict=True))
    base = rows["base", 0]
    assert base["added_tokens"] == 0 and base[DEFAULT_COST]["saved"] == 0
    for cell in found["cells"]:
        for cost in (DEFAULT_COST, PAPER_COST):
            assert cell[cost]["cost"] == pytest.approx(np.mean(cell[cost]["by_seed"]))
            assert cell[cost]["saved"] == pytest.approx(base[cost]["cost"] - cell[cost]["cost"])
        assert cell["policy"] == "base" or cell["added_tokens"] > 20
    assert rows["retrieval-2", 3]["added_tokens"] > rows["retrieval-1", 3]["added_tokens"] + 20
    assert set(found["same_kind"]) >= {"words"}
    assert set(found["translations"]) == {"ro-en", "et-en"}
    for cells in found["translations"].values():
        assert [(cell["policy"], cell["past"]) for cell in cells] == [
            ("base", 0),
            *((f"retrieval-{k}", n) for n in (2, 3) for k in (1, 2)),
        ]
        costs = {(cell["policy"], cell["past"]): cell[DEFAULT_COST] for cell in cells}
        assert costs["base", 0]["saved"] == 0
        for cell in costs.values():
            assert cell["saved"] == pytest.approx(costs["base", 0]["cost"] - cell["cost"])
            assert 0 <= cell["cost"] <= 1
    page = (tmp_path / "in-context.md").read_text()
    assert "| retrieval-2 | 3 |" in page and "make bench NAME=in-context" in page
    written = json.loads((tmp_path / "in-context.json").read_text())
    assert written["cells"] == json.loads(json.dumps(found["cells"]))

    def nothing(*_: Any, **__: Any) -> Any:
        raise AssertionError("drawn twice")

    monkeypatch.setattr(Policy, "sample", nothing)
    assert in_context.run(tmp_path, work=tmp_path / "work", settings=small)["cells"] == found["cells"]


def test_a_prompt_has_the_edits_that_are_there(small: InContextSettings) -> None:
    past = [PastEdit(str(i), 1, float(i), f"ask {i}", f"kept {i}", i != 1) for i in range(3)]
    learned = {"0": "brief", "2": ""}
    cells = {
        (cell.policy, cell.past): cell.write
        for cell in in_context._cells(past, learned, lambda asked: f"rules of {asked}", small)
    }

    def turns(*texts: str) -> Any:
        roles = ("user", "assistant")
        return as_context([{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)])

    assert cells["base", 0]("ask 1") == "ask 1"
    assert cells["retrieval-1", 1]("ask 1") == turns("ask 0", "kept 0", "ask 1")
    assert cells["retrieval-2", 3]("ask 1") == turns("ask 2", "kept 2", "ask 1", "kept 1", "ask 1")
    assert cells["the 2 newest edits", 3]("ask 1") == turns("ask 1", "kept 1", "ask 2", "kept 2", "ask 1")
    ((_, one),) = [(m.role, m.content) for m in cells["2 edits in one message", 3]("ask 1")]
    assert one.startswith("ask 1\n\nThese") and one.index("kept 2") < one.index("kept 1")
    ((_, said),) = [(m.role, m.content) for m in cells["preference-5", 3]("ask 1")]
    assert "- brief\nPlease" in said
    assert cells["preference-5", 1]("ask 1") == cells["preference-5", 3]("ask 1")
    assert "- rules of ask 1\n" in str(cells["the user's rules in words", 3]("ask 1")[0].content)


def test_without_anything_learned_the_base_is_asked_as_it_is(small: InContextSettings) -> None:
    past = [PastEdit("0", 1, 0.0, "ask 0", "kept 0", False)]
    cells = in_context._cells(past, {}, str, small)
    (write,) = {cell.write("ask") for cell in cells if cell.policy == "preference-5"}
    assert write == "ask"
