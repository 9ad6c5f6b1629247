"""Weights of a mixture by user: how they come out by likelihood and by cost, and how many rows they take to
be stable.

The second write-up fits Σ_k α_k π_k on validation data of light, medium and heavy editors, and worries that
weights are unstable where data are scarce. Here, the policies of each kind of user are trained once; their
likelihoods of many fresh edits and the costs of many fresh drafts are measured; and weights are fitted on 20
draws of 10 to 300 of these rows and judged on the others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.cells import Cell, TableSettings, make_cells
from editloop.edits import get_cost
from editloop.io import write_text
from editloop.lab import base_path, make_log
from editloop.offline import make_examples, mix_by_cost, mix_by_likelihood
from editloop.offline.examples import EDIT
from editloop.offline.plots import colour_of, tidy
from editloop.parallel import in_parallel
from editloop.policy import RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOMAIN, ROWS, SEED = "email", 600, 1
USERS = ("light", "medium", "heavy")
METHODS = ("dpo", "sft", "rl")
"""By preference, supervision and cost, as in the write-up."""

SIZES, DRAWS, POOL = (10, 30, 100, 300), 20, 900
"""Rows of a validation part, how often one is drawn, and the fresh rows of a user from which they are."""

SHRUNK = (0.0, 3.0, 10.0, 30.0)
"""For how many rows the weights count toward which the fitted ones are shrunk."""

FLOOR = 0.2
"""The part of a prior from others' rows that is shared equally by all policies."""

FRESH = 7000
"""Added to the seed of a cell for the fresh rows."""

WRITE_UP = {
    "light": {"dpo": 0.15, "sft": 0.72, "rl": 0.13},
    "medium": {"dpo": 0.38, "sft": 0.35, "rl": 0.27},
    "heavy": {"dpo": 0.45, "sft": 0.12, "rl": 0.43},
}

Table = NDArray[np.float64]


class Tables(NamedTuple):
    """What is known of a user's fresh rows.

    Attributes:
        policies: The policies.
        log_probs: The log-probability of each edit under each policy [n, K].
        costs: What the edit of each policy's own draft costs [n, K].
    """

    policies: tuple[str, ...]
    log_probs: Table
    costs: Table


class Way(NamedTuple):
    """A way to fit weights.

    Attributes:
        by: `likelihood` or `cost`.
        toward: What they are shrunk to: `uniform`, or `pooled`, the weights of all other users' rows
            together.
        rows: For how many rows that counts; 0 for none.
    """

    by: str
    toward: str
    rows: float

    @property
    def title(self) -> str:
        """The way in words."""
        return self.by if not self.rows else f"{self.by}, {self.rows:g} rows toward {self.toward}"


WAYS = (
    *(Way("likelihood", toward, rows) for toward in ("uniform", "pooled") for rows in SHRUNK if rows),
    Way("likelihood", "uniform", 0.0),
    Way("cost", "uniform", 0.0),
    *(Way("cost", toward, rows) for toward in ("uniform", "pooled") for rows in SHRUNK if rows),
)


def run(
    out: str | Path,
    *,
    settings: TableSettings | None = None,
    pool: int = POOL,
    sizes: Sequence[int] = SIZES,
    draws: int = DRAWS,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure and write `weights.json`, `weights.md` and `weights.png`.

    Args:
        out: The folder for the results.
        settings: Where the policies are kept, and the size of the experiment.
        pool: The fresh rows of each user.
        sizes: The sizes of a validation part.
        draws: How often one is drawn.
        callback: Receives progress.
    """
    settings = settings or TableSettings(rows=ROWS, rounds=50, seeds=(SEED,), changes=(("methods", METHODS),))
    callback = callback or WarningCallback()
    cells = [Cell(DOMAIN, user, settings.seeds[0]) for user in USERS]
    make_cells(cells, settings, callback)
    jobs = [(cell, settings, pool) for cell in cells]
    tables = {job[0].trained: found for job, found in in_parallel(_measure, jobs, "fresh rows", callback)}
    results: dict[str, Any] = {}
    for user in USERS:
        others = [tables[other] for other in USERS if other != user]
        results[user] = _judged(tables[user], others, sizes, draws)
    data = {"rows": settings.rows, "pool": pool, "draws": draws, "sizes": list(sizes), "results": results}
    write_result("weights", data, _markdown(data), out, _figure(results, sizes))
    return data


def fitted(log_probs: Table, costs: Table, way: Way, prior: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the weights of a way on some rows [K].

    By likelihood, `prior` counts for `way.rows` rows, each written by one policy. By cost, the objective is
    linear, and shrinkage is what keeps all weight from going to one policy: the weights minimise Σ_k
    α_k c_k + τ KL(α ‖ prior), where τ, the spread of the costs times √(rows) / n, falls as the means
    become certain.

    Args:
        log_probs: As in `Tables`, of n rows.
        costs: As in `Tables`, of n rows.
        way: The way.
        prior: The weights toward which these are shrunk [K].
    """
    n, k = log_probs.shape
    names = [str(i) for i in range(k)]
    if way.by == "likelihood":
        made = mix_by_likelihood(
            dict(zip(names, log_probs.T.tolist(), strict=True)),
            prior=dict(zip(names, prior.tolist(), strict=True)),
            prior_rows=way.rows,
        )
        return np.array([made.weights[name] for name in names])
    if not way.rows:
        found = mix_by_cost(dict(zip(names, costs.T.tolist(), strict=True)))
        return np.array([found.weights[name] for name in names])
    temperature = costs.std() * np.sqrt(way.rows) / n
    score = np.log(np.maximum(prior, 1e-12)) - (costs.mean(axis=0) - costs.mean()) / max(temperature, 1e-12)
    weights = np.exp(score - score.max())
    return np.asarray(weights / weights.sum())


def _measure(job: tuple[Cell, TableSettings, int]) -> Tables:
    """The tables of a user; they are kept beside the cell."""
    cell, settings, pool = job
    file = settings.folder / cell.folder / f"weights-{pool}.json"
    if not file.is_file():
        base, world = load_base(base_path(cell.domain)), cell.world
        folder = RunFolder(settings.folder / cell.folder / "run")
        log = make_log(world, cell.editor, pool, cell.seed + FRESH, policy=base)
        trees = [e.completions.only(EDIT).tree for e in make_examples(log, base.encoder).examples]
        contexts = list(islice(world.contexts(cell.seed + FRESH, stream="weights"), pool))
        found: dict[str, Any] = {"policies": list(folder.policy_names())}
        columns: dict[str, list[list[float]]] = {"log_probs": [], "costs": []}
        for name in found["policies"]:
            with folder.policy(name, base) as policy:
                columns["log_probs"].append([each[0] for each in policy.log_probs(trees)])
                samples = policy.sample(contexts, seed=cell.seed, max_new_tokens=world.max_new_tokens)
            texts = [sample.text for sample in samples]
            edits = [cell.editor.edit(context, text) for context, text in zip(contexts, texts, strict=True)]
            columns["costs"].append(get_cost(world.cost)(texts, edits).tolist())
        write_text(file, json.dumps(found | columns))
    known = json.loads(file.read_text(encoding="utf-8"))
    return Tables(tuple(known["policies"]), np.array(known["log_probs"]).T, np.array(known["costs"]).T)


def _judged(mine: Tables, others: Sequence[Tables], sizes: Sequence[int], draws: int) -> dict[str, Any]:
    """The weights of all ways on all sizes: their spread over draws, and what they are worth on the other
    rows."""
    k = len(mine.policies)
    if any(each.policies != mine.policies for each in others):
        raise ValueError("the users' runs do not have the same policies")
    pooled = {
        by: fitted(
            np.concatenate([each.log_probs for each in others]),
            np.concatenate([each.costs for each in others]),
            Way(by, "uniform", 10.0 if by == "cost" else 0.0),
            np.full(k, 1 / k),
        )
        for by in ("likelihood", "cost")
    }
    found: dict[str, Any] = {"policies": mine.policies, "all": {}, "ways": {}}
    for by in ("likelihood", "cost"):
        whole = fitted(mine.log_probs, mine.costs, Way(by, "uniform", 0.0), np.full(k, 1 / k))
        found["all"][by] = whole.tolist()
    for way in WAYS:
        uniform = np.full(k, 1 / k)
        # Of others' many rows the cheapest policy has nearly all weight, which as a prior would be final.
        prior = (1 - FLOOR) * pooled[way.by] + FLOOR * uniform if way.toward == "pooled" else uniform
        found["ways"][way.title] = {str(n): _drawn(mine, way, prior, n, draws) for n in sizes}
    found["single"] = {
        "cost": mine.costs.mean(axis=0).tolist(),
        "nll": (-mine.log_probs.mean(axis=0)).tolist(),
    }
    return found


def _drawn(mine: Tables, way: Way, prior: NDArray[np.float64], n: int, draws: int) -> dict[str, Any]:
    """What becomes of the weights over draws of n rows."""
    weights, nll, cost, best = [], [], [], []
    for draw in range(draws):
        order = np.random.default_rng((n, draw)).permutation(len(mine.costs))
        rows, rest = order[:n], order[n:]
        alpha = fitted(mine.log_probs[rows], mine.costs[rows], way, prior)
        weights.append(alpha)
        with np.errstate(divide="ignore"):
            nll.append(-np.logaddexp.reduce(mine.log_probs[rest] + np.log(alpha), axis=1).mean())
        means = mine.costs[rest].mean(axis=0)
        cost.append(float(means @ alpha))
        # The best single policy, chosen on the same rows by the same figure.
        figure = mine.costs[rows].mean(axis=0) if way.by == "cost" else -mine.log_probs[rows].mean(axis=0)
        best.append(float(means[int(np.argmin(figure))]))
    table = np.array(weights)
    return {
        "weights": table.mean(axis=0).tolist(),
        "sd": table.std(axis=0, ddof=1).tolist(),
        "nll": [float(np.mean(nll)), float(np.std(nll, ddof=1))],
        "cost": [float(np.mean(cost)), float(np.std(cost, ddof=1))],
        "single": float(np.mean(best)),
    }


def _markdown(data: Mapping[str, Any]) -> str:
    sizes = [str(n) for n in data["sizes"]]
    parts = [
        f"Policies of {data['rows']} rows by each kind of user; weights on {data['draws']} draws of a "
        f"validation part out of {data['pool']} fresh rows, judged on those that were not drawn. Spread is "
        "the standard deviation of a weight over draws, mean over policies. Costs are to the user whose rows "
        "they are; the single policy is the best one by the same figure on the same rows."
    ]
    rows = []
    for user, found in data["results"].items():
        for by, label in (("likelihood", "all rows, by likelihood"), ("cost", "all rows, by cost")):
            rows.append([user, label, *(f"{value:.2f}" for value in found["all"][by])])
        rows.append([user, "write-up", *(f"{WRITE_UP[user][name]:.2f}" for name in found["policies"])])
    policies = next(iter(data["results"].values()))["policies"]
    parts += ["## Weights", markdown_table(["user", "fitted on", *policies], rows, left=2)]
    shown: dict[str, Callable[[Mapping[str, Any]], str]] = {
        "Spread of the weights": lambda each: f"{np.mean(each['sd']):.3f}",
        "Negative log-likelihood of an edit": lambda each: f"{each['nll'][0]:.2f} ± {each['nll'][1]:.2f}",
        "Cost of the mixture, and of the best single policy": lambda each: (
            f"{each['cost'][0]:.3f}, {each['single']:.3f}"
        ),
    }
    for title, cell in shown.items():
        rows = []
        for user, found in data["results"].items():
            for way, by_size in found["ways"].items():
                rows.append([user, way, *(cell(by_size[n]) for n in sizes)])
        parts += [
            f"## {title}",
            markdown_table(["user", "weights by", *(f"{n} rows" for n in sizes)], rows, left=2),
        ]
    return "\n\n".join(parts)


def _figure(results: Mapping[str, Any], sizes: Sequence[int]) -> Figure:
    """The weights by likelihood, their spread over draws, by the size of the validation part."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3 * len(results), 2.8), dpi=160, layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(results), sharey=True))
    for axes, (user, found) in zip(panels, results.items(), strict=True):
        for way, style in (("likelihood", "-"), ("likelihood, 10 rows toward pooled", ":")):
            for i, policy in enumerate(found["policies"]):
                mean = [found["ways"][way][str(n)]["weights"][i] for n in sizes]
                spread = [found["ways"][way][str(n)]["sd"][i] for n in sizes]
                label = policy if style == "-" else None
                axes.errorbar(
                    sizes, mean, spread, color=colour_of(policy), linestyle=style, label=label, capsize=2
                )
        tidy(axes, f"{user} user", "validation rows", "weight" if user == USERS[0] else "")
        axes.set_xscale("log")
        axes.legend(fontsize=6, frameon=False)
    return figure
