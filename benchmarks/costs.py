"""How the ranking of the methods changes with the cost, with the policies of Table 1.

The semantic cost needs a sentence encoder. If none is given, it is the mean of the last hidden states of the
lab's own base.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cells import COLUMNS, POLICIES, Column, TableSettings, column_costs
from benchmarks.tables import METHODS, known_mean
from editloop.edits import Cost, get_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.errors import ConfigError
from editloop.lab import base_path
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

COSTS = (
    PAPER_COST,
    DEFAULT_COST,
    "levenshtein:word/longest",
    "levenshtein:char/response",
    "ter:word/response",
    "ter:word/edit",
)


def run(
    out: str | Path,
    *,
    encoder: str | None = None,
    settings: TableSettings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `costs.json` and `costs.md`.

    Args:
        out: The folder for the results.
        encoder: A sentence encoder for the semantic cost; by default one is made from the domain's base.
        settings: Where the policies are kept, and the size of the experiment.
        callback: Receives progress.
    """
    settings, callback = settings or TableSettings(), callback or WarningCallback()
    results: dict[str, dict[str, Any]] = {}
    for name in (*COSTS, "semantic"):

        def cost(domain: str, name: str = name) -> Cost:
            if name != "semantic":
                return get_cost(name)
            return get_cost(f"semantic:{encoder or _encoder(domain, settings.folder)}")

        measured = column_costs(settings, "strong", callback, cost)
        results[name] = {
            column.title: {
                policy: mean
                for i, policy in enumerate(POLICIES)
                if not np.isnan(mean := known_mean(table[:, :, i].mean(axis=1)))  # `fit` may leave one out
            }
            for column, table in measured.tables.items()
        }
    agreement = {
        name: {title: rank_correlation(by_column[title], results[PAPER_COST][title]) for title in by_column}
        for name, by_column in results.items()
    }
    data = {"results": results, "agreement": agreement, "seeds": settings.seeds, "encoder": encoder}
    write_result("costs", data, _markdown(data, settings), out)
    return data


def rank_correlation(costs: Mapping[str, float], others: Mapping[str, float]) -> float:
    """Return Kendall's τ between the rankings of the same methods by two costs."""
    from scipy.stats import kendalltau

    return float(kendalltau([costs[name] for name in costs], [others[name] for name in costs]).statistic)


def _encoder(domain: str, folder: Path) -> Path:
    """Return the folder of a sentence encoder: the mean of the last hidden states of the domain's base.

    Raises:
        ConfigError: sentence-transformers is not installed.
    """
    path = folder / f"encoder-{domain}"
    if not (path / "modules.json").is_file():
        try:
            from sentence_transformers import SentenceTransformer
            from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
        except ImportError as error:
            raise ConfigError(
                "a benchmark's library is missing",
                seen="sentence-transformers",
                do="install editloop[semantic]",
            ) from error
        states = Transformer(str(base_path(domain)))
        pooled = Pooling(states.get_embedding_dimension())
        SentenceTransformer(modules=[states, pooled], device="cpu").save(str(path))
    return path


def _markdown(data: Mapping[str, Any], settings: TableSettings) -> str:
    encoder = (
        data["encoder"]
        or "the mean of the hidden states of the domain's base, which is not a trained sentence encoder"
    )
    text = [
        "Mean cost of a round by the strong user's edits, and in brackets the method's place in its column; "
        f"seeds {', '.join(map(str, settings.seeds))}, {settings.rounds} rounds each, policies of Table 1. τ "
        f"is Kendall's rank correlation with the ranking by {PAPER_COST}. The encoder of `semantic` is "
        f"{encoder}."
    ]
    headings = ["cost", *(METHODS[method] for method in POLICIES), "τ"]
    for column in COLUMNS:
        text += [f"## {column.title}", markdown_table(headings, _rows(data, column))]
    return "\n\n".join(text)


def _rows(data: Mapping[str, Any], column: Column) -> list[list[str]]:
    rows = []
    for name, by_column in data["results"].items():
        costs = by_column[column.title]
        ranked = sorted(costs, key=costs.__getitem__)
        cells = [f"{costs[method]:.3f} ({ranked.index(method) + 1})" for method in POLICIES]
        rows.append([name, *cells, f"{data['agreement'][name][column.title]:.2f}"])
    return rows
