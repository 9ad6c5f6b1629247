"""Which costs a draft can lower by its length, and which follow what people say of it: on people's edits.

Every cost prices the draft that a writer edited, and other drafts in its place, against the same edit: longer
ones (with other drafts appended, or made of other drafts only), shorter ones (a part of the draft, or
nothing), and the context. A cost that length can lower prefers one of these to the draft that was edited, or
five drafts about something else to one.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from rapidfuzz.distance import Indel

from benchmarks.real_edits import real_files, real_folder
from editloop.edits import get_cost
from editloop.edits.cost import PAPER_COST
from editloop.errors import ConfigError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

Function = Callable[[Sequence[str], Sequence[str]], ArrayLike]

LAMP = "lamp16.jsonl"
PAIRS = ("ro-en", "et-en")
OTHERS = (7, 11, 13, 17, 19)
"""How many rows away the drafts are that stand for rambling: about something else, and of the same kind."""


def run(
    out: str | Path, *, data: str | Path | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `costs-real.json` and `costs-real.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        callback: Receives progress.

    Raises:
        ConfigError: A file of real edits does not exist.
    """
    callback = callback or WarningCallback()
    lamp = real_folder(data) / LAMP
    if not lamp.is_file():
        raise ConfigError(
            "missing real edits", seen=str(lamp), do="set EDITLOOP_DATA to the folder of real edits"
        )
    rows = [json.loads(line) for line in lamp.read_text(encoding="utf-8").splitlines()]
    edits = [row["edit"] for row in rows]
    instead = other_drafts([row["response"] for row in rows], [row["context"] for row in rows])
    translations = {pair: _translations(data, pair) for pair in PAIRS}
    found: dict[str, Any] = {}
    for done, (name, cost) in enumerate(costs().items(), 1):
        priced = {kind: np.asarray(cost(texts, edits), np.float64) for kind, texts in instead.items()}
        draft, other = priced["the draft"], priced["another draft"]
        found[name] = {
            "means": {kind: float(each.mean()) for kind, each in priced.items()},
            "wins": {kind: float((each < draft).mean()) for kind, each in priced.items()}
            | {"five against one": float((priced["five other drafts"] < other).mean())},
            "correlations": {
                "score before": _rank_correlation(draft, [float(r["scores_before_after"][0]) for r in rows]),
                "change of score": _rank_correlation(
                    draft,
                    [float(r["scores_before_after"][1]) - float(r["scores_before_after"][0]) for r in rows],
                ),
                "spans": _rank_correlation(draft, [r["spans_edited"] for r in rows]),
                **{
                    f"HTER, {pair}": _rank_correlation(cost(drafts, posts), hter)
                    for pair, (drafts, posts, hter) in translations.items()
                },
            },
        }
        callback.progress("costs", done, len(costs()))
    measured = {"rows": len(rows), "costs": found}
    write_result("costs-real", measured, _markdown(measured), out)
    return measured


def costs() -> dict[str, Function]:
    """The costs that are compared."""
    named = (PAPER_COST, "levenshtein:word/longest", "levenshtein:word/edit", "alignment:word")
    return {**{name: get_cost(name) for name in named}, "indel by both lengths": _indel}


def other_drafts(drafts: Sequence[str], contexts: Sequence[str]) -> dict[str, list[str]]:
    """Return what could stand in place of each draft, by kind, the draft itself first [n each]."""
    n = len(drafts)
    words = [draft.split() for draft in drafts]

    def others(i: int, count: int) -> str:
        return " ".join(drafts[(i + away) % n] for away in OTHERS[:count])

    return {
        "the draft": list(drafts),
        "the draft twice": [f"{draft} {draft}" for draft in drafts],
        "the draft and another": [f"{draft} {others(i, 1)}" for i, draft in enumerate(drafts)],
        "the draft and three others": [f"{draft} {others(i, 3)}" for i, draft in enumerate(drafts)],
        "another draft": [others(i, 1) for i in range(n)],
        "five other drafts": [others(i, 5) for i in range(n)],
        "its first third": [" ".join(each[: len(each) // 3]) for each in words],
        "its first sentence": [re.split(r"(?<=[.!?])\s+", draft)[0] for draft in drafts],
        "every third word": [" ".join(each[::3]) for each in words],
        "nothing": [""] * n,
        "the context": list(contexts),
    }


def _indel(drafts: Sequence[str], edits: Sequence[str]) -> NDArray[np.float64]:
    pairs = zip(drafts, edits, strict=True)
    return np.array([Indel.normalized_distance(draft.split(), edit.split()) for draft, edit in pairs])


def _translations(data: str | Path | None, pair: str) -> tuple[list[str], list[str], list[float]]:
    """Return drafts, post-edits and HTER of the test part of a language pair."""
    (file,) = real_files(data, [f"{pair}.test"])
    with file.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened, delimiter="\t"))
    return [row["mt"] for row in rows], [row["pe"] for row in rows], [float(row["hter"]) for row in rows]


def _rank_correlation(one: ArrayLike, other: ArrayLike) -> float:
    from scipy.stats import spearmanr

    return float(spearmanr(one, other).statistic)


def _markdown(measured: Mapping[str, Any]) -> str:
    found = measured["costs"]

    def table(corner: str, part: str, form: str) -> str:
        kinds = list(next(iter(found.values()))[part])
        rows = [[kind, *(form.format(found[name][part][kind]) for name in found)] for kind in kinds]
        return markdown_table([corner, *found], rows)

    return "\n\n".join(
        [
            f"Drafts for the {measured['rows']} paragraphs of LAMP, each priced against the edit that its "
            "writer made of the draft.",
            "## Mean cost",
            table("in place of the draft", "means", "{:.3f}"),
            "## How often it costs less than the draft that was edited",
            table("in place of the draft", "wins", "{:.0%}"),
            "In the last line, how often five drafts about something else cost less than one of them: "
            "rambling against a draft that fails.",
            "## Rank correlation of the draft's cost",
            "With the writers' score of the draft (lower should cost more), with the change of the score by "
            "the edit, with the number of spans they edited; and with HTER on 1,000 translations each.",
            table("with", "correlations", "{:.2f}"),
        ]
    )
