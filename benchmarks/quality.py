"""How well the cost model predicts the cost of real translations before anybody edits them.

The cost model is fitted on the costs of translators' edits in the training rows. It sees the source and the
translation alone, through the hidden states of a small base that is pretrained as in `postedit`. On the test
rows its prediction is correlated with the HTER that the shared task published, beside a prediction from the
length of the translation. HTER is the share of a translation's words that its editor changed (TER between the
translation and the edit).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.postedit import make_base
from benchmarks.real_edits import READ, real_files
from editloop.edits import get_cost, read_log
from editloop.offline import ExampleSet, feature_pass, fidelity, fit_cost_model, make_examples
from editloop.offline.examples import RESPONSE
from editloop.policy import Policy, context_columns, load_base
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import markdown_table, write_result

PAIRS = ("ro-en", "et-en")
COST = "ter:word/edit"
BOOTSTRAPS = 2000

Floats = NDArray[np.float64]


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: Path = WORK / "postedit",
    minutes: float = 12.0,
    rows: int | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `quality.json` and `quality.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where the base is kept.
        minutes: Limit on the minutes of pretraining.
        rows: Limit on the rows to learn from and on those to test on, for a smaller experiment.
        callback: Receives progress.

    Raises:
        ConfigError: A file of the data does not exist.
    """
    callback = callback or WarningCallback()
    files = real_files(data, [f"{pair}.{part}" for pair in PAIRS for part in ("train", "test")])
    base = load_base(make_base(files, work, minutes, callback))
    results = {}
    for pair, train_file, test_file in zip(PAIRS, files[::2], files[1::2], strict=True):
        train, test = (_examples(base, file, rows) for file in (train_file, test_file))
        hter = _hter(test_file, test)
        cost = get_cost(COST)
        costs = cost([e.response for e in train.examples], [e.edit for e in train.examples])
        seen, unseen = (_features(base, each, f"{pair}, features", callback) for each in (train, test))
        model = fit_cost_model(seen, costs, context=context_columns(seen.shape[1]))
        mean, spread = model.predict(unseen)
        guess = _by_length(train, costs, test)
        results[pair] = {
            "settings": dict(model.settings),
            "rows": len(hter),
            "model": asdict(fidelity(mean, spread, hter)),
            "length": asdict(fidelity(guess, np.zeros(len(hter)), hter)),
            "intervals": _intervals(mean, guess, hter),
        }
    data_out = {"base": {"parameters": base.model.num_parameters()}, "cost": COST, "results": results}
    write_result("quality", data_out, _markdown(data_out), out)
    return data_out


def _examples(base: Policy, file: Path, rows: int | None) -> ExampleSet:
    return make_examples(tuple(read_log(file, **READ))[:rows], base.encoder)


def _hter(file: Path, test: ExampleSet) -> Floats:
    """Return the shared task's HTER of the examples, looked up by source and translation [n]."""
    with file.open(encoding="utf-8", newline="") as lines:
        table = csv.DictReader(lines, delimiter="\t")
        found = {(row["src"], row["mt"]): float(row["hter"]) for row in table}
    return np.array([found[str(e.context), e.response] for e in test.examples])


def _features(
    base: Policy, examples: ExampleSet, task: str, callback: ProgressCallback
) -> NDArray[np.float32]:
    """Return the features of the responses [n, F]."""
    trees = [e.completions.only(RESPONSE).tree for e in examples.examples]
    scored, _ = feature_pass(base, trees, progress=counter(callback, task, len(trees)))
    return np.concatenate([each.features for each in scored])


def _by_length(train: ExampleSet, costs: Floats, test: ExampleSet) -> Floats:
    """Predict the test rows' costs by least squares on a response's number of words and its logarithm."""

    def design(examples: ExampleSet) -> Floats:
        words = np.array([float(len(e.response.split())) for e in examples.examples])
        return np.stack([np.ones_like(words), words, np.log1p(words)], axis=1)

    weights = np.linalg.lstsq(design(train), costs, rcond=None)[0]
    return np.asarray(design(test) @ weights, np.float64)


def _intervals(mean: Floats, guess: Floats, hter: Floats) -> dict[str, list[float]]:
    """Return 95% intervals of both correlations and of their difference, by bootstrap over rows."""
    generator, samples = np.random.default_rng(0), []
    for _ in range(BOOTSTRAPS):
        rows = generator.integers(len(hter), size=len(hter))
        table = np.corrcoef([mean[rows], guess[rows], hter[rows]])
        samples.append((table[0, 2], table[1, 2], table[0, 2] - table[1, 2]))
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    names: Sequence[str] = ("model", "length", "difference")
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(names)}


def _markdown(data: dict[str, Any]) -> str:
    rows = []
    for pair, found in data["results"].items():
        spans = {name: f"[{low:.3f}, {high:.3f}]" for name, (low, high) in found["intervals"].items()}
        model, length = found["model"], found["length"]
        rows.append(
            [
                pair,
                str(found["settings"]["rows"]),
                str(found["rows"]),
                f"{model['pearson']:.3f} {spans['model']}",
                f"{length['pearson']:.3f} {spans['length']}",
                f"{model['pearson'] - length['pearson']:+.3f} {spans['difference']}",
                f"{model['spearman']:.3f}",
            ]
        )
    headings = ["pair", "rows", "test rows", "f̂ and HTER", "length and HTER", "difference", "ranks, f̂"]
    return (
        "Pearson correlation with HTER of the test rows, 95% intervals by bootstrap over rows. f̂ is fitted "
        f"on {data['cost']} of the training rows, from hidden states of a base of "
        f"{data['base']['parameters']:,} parameters that was pretrained on English alone.\n\n"
        + markdown_table(headings, rows)
    )
