"""How far the shadow misjudges a new policy, because users edited another one's drafts.

In the shadow nobody sees a new policy's drafts. They are compared with what users made of the drafts that
they saw, and so are drafts of the champion that were not shown either. Both have the edits against them, but
the edits began from a draft of the champion's, so that its habits are in them. Here the lab's users edit
every draft, also those that a server would not show, so that the truth is known: the difference of what the
own drafts of each policy cost.

From one log of the base, which the same kind of users edited, three policies are fitted: `few` on 100 rows,
`early` on 300 and `twin` on 300 others. Beside the shadow stands the naive comparison, with the very draft
that was shown; and an estimate from the shown drafts alone, weighed by their probability under the new
policy, as the gate `off_policy` has it.
"""

from __future__ import annotations

import json
import math
import random
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import FEWEST_ROUNDS, SHADOW_MARGIN, ShadowPair, judge_shadow
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.watch import Watch
from editloop.edits import Record, get_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST, charge_unfinished
from editloop.intervals import NORMAL
from editloop.io import write_json
from editloop.lab import LabDomain, base_path, fit_settings, get_domain, stream_log
from editloop.lab.folder import claim
from editloop.lab.grammar import MAX_NEW_TOKENS
from editloop.offline import FitConfig, fit
from editloop.offline.draft_weights import DraftWeights, estimate_by_weights
from editloop.parallel import in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result
from editloop.users import User, get_user

__all__ = ["PAIRS", "Job", "Settings", "compare", "is_rejected", "measure", "run"]

PAIRS = (
    ("early", "early"),
    ("early", "twin"),
    ("twin", "early"),
    ("few", "early"),
    ("early", "few"),
    ("base", "early"),
    ("early", "base"),
)
"""The champion, whose drafts users see, and the new policy."""

COSTS = (DEFAULT_COST, PAPER_COST)
"""The server's cost, in which the margin is, and the one of the lab's other benchmarks, at most 1."""

USERS, BATCH = 20, 16
"""The users who edit, and the contexts of a step of training."""

Array = NDArray[np.float64]


class Settings(NamedTuple):
    """How large the experiment is; tests make a small one.

    Attributes:
        folder: Where drafts and policies are kept.
        seeds: The seeds.
        rows: The rows of `early` and of `twin`; `few` has a third of them.
        steps: Optimiser steps of `early` and of `twin`; `few` has a third of them.
        contexts: The requests for which drafts are compared.
    """

    folder: Path = WORK / "shadow-bias"
    seeds: tuple[int, ...] = (1, 2, 3)
    rows: int = 300
    steps: int = 120
    contexts: int = 240

    def config(self, domain: str, rows: int, steps: int, seed: int) -> FitConfig:
        """The configuration of a fit on so many rows."""
        changes = {"methods": ("early",), "epochs": min(8.0, steps * BATCH / rows), "batch_size": BATCH}
        return fit_settings(domain, seed=seed).changed(
            {**changes, "mixture": "none", "validation_samples": 0}
        )


class Job(NamedTuple):
    """The policies of one log, and their drafts.

    Attributes:
        domain: Name of the domain.
        kind: What kind of users edit.
        seed: The seed of everything.
        settings: The size.
    """

    domain: str
    kind: str
    seed: int
    settings: Settings

    @property
    def folder(self) -> Path:
        """The folder in which it is kept."""
        return self.settings.folder / f"{self.domain}-{self.kind}-{self.seed}"

    def users(self, world: LabDomain) -> list[User]:
        """Who edits the drafts of each request."""
        users = [get_user(self.kind, world, seed=100 * self.seed + i) for i in range(USERS)]
        return random.Random(self.seed).choices(users, k=self.settings.contexts)


def measure(job: Job) -> dict[str, Any]:
    """Fit the policies, and draw their drafts, or read what is kept of them.

    Returns:
        `contexts`; `drafts`, for each policy three drafts of each context, each with whether it ended; and
        `log_weights`, for each pair the logarithms of the weights of the champion's first drafts.
    """
    warnings.simplefilter("ignore")  # alarms of fits
    settings = job.settings
    sizes = {"rows": settings.rows, "steps": settings.steps, "contexts": settings.contexts}
    claim(job.folder, "measurement", {**sizes, "base": base_path(job.domain).name})
    kept = job.folder / "drafts.json"
    if not kept.is_file():
        begun = time.monotonic()
        write_json(kept, _measured(job) | {"seconds": time.monotonic() - begun})
    found: dict[str, Any] = json.loads(kept.read_text(encoding="utf-8"))
    return found


def _measured(job: Job) -> dict[str, Any]:
    world, base = get_domain(job.domain), load_base(base_path(job.domain))
    runs = _fitted(job, world, base)
    contexts = list(islice(world.contexts(job.seed, stream="shadow"), job.settings.contexts))
    drafts: dict[str, list[list[tuple[str, bool]]]] = {}
    for name in ("base", *runs):
        with _policy(name, runs, base) as policy:
            drafts[name] = [
                [(each.text if each.text.strip() else ".", each.finished) for each in drawn]
                for drawn in (
                    policy.sample(contexts, seed=1000 * job.seed + draw, max_new_tokens=MAX_NEW_TOKENS)
                    for draw in range(3)
                )
            ]
    return {
        "contexts": contexts,
        "drafts": drafts,
        "log_weights": _log_weights(contexts, drafts, runs, base),
    }


def _fitted(job: Job, world: LabDomain, base: Policy) -> dict[str, RunFolder]:
    """The runs of the policies that are fitted, by the policies' names."""
    rows, steps, seed = job.settings.rows, job.settings.steps, job.seed
    editor = get_user(job.kind, world, seed=seed)
    log: list[Record] = list(stream_log(world, editor, 2 * rows, seed, policy=base))
    parts = {
        "few": (log[: rows // 3], steps // 3, seed),
        "early": (log[:rows], steps, seed),
        "twin": (log[rows:], steps, seed + 500),
    }
    return {
        name: fit(
            part,
            base,
            job.folder / name,
            job.settings.config(job.domain, len(part), n, one),
            report=False,
            callback=WarningCallback(),
        )
        for name, (part, n, one) in parts.items()
    }


def _policy(name: str, runs: Mapping[str, RunFolder], base: Policy) -> AbstractContextManager[Policy]:
    return nullcontext(base) if name == "base" else runs[name].policy("early", base)


def _log_weights(
    contexts: Sequence[str],
    drafts: Mapping[str, list[list[tuple[str, bool]]]],
    runs: Mapping[str, RunFolder],
    base: Policy,
) -> dict[str, list[float]]:
    """For each pair log π(y|x) − log μ(y|x) of the champion's first drafts, if those came to an end."""
    trees = {
        champion: [
            tree
            for context, (text, ended) in zip(contexts, drafts[champion][0], strict=True)
            if ended and (tree := base.encoder.tree(context, [text])) is not None
        ]
        for champion, _ in PAIRS
    }
    by: dict[tuple[str, str], list[float]] = {}
    for name in drafts:
        with _policy(name, runs, base) as policy:
            for champion in trees:
                if champion == name or (champion, name) in PAIRS:
                    by[champion, name] = [each[0] for each in policy.log_probs(trees[champion])]
    return {
        f"{champion} {new}": [
            own - logged for own, logged in zip(by[champion, new], by[champion, champion], strict=True)
        ]
        for champion, new in PAIRS
    }


def compare(job: Job, found: Mapping[str, Any], champion: str, new: str, cost_name: str) -> dict[str, Any]:
    """Compare a new policy with the champion in three ways.

    Args:
        job: What was measured.
        found: What `measure` returned.
        champion: The policy whose drafts users see.
        new: The new policy.
        cost_name: The cost.

    Returns:
        For each request the difference of costs, the new policy's less the champion's: `true`, `shadow` and
        `naive` [n]; `costs` and `naive_costs`, the pairs of costs that `judge_shadow` reads; and `weighed`,
        the estimate from the shown drafts by their weights.
    """
    world, cost, contexts = get_domain(job.domain), get_cost(cost_name), found["contexts"]
    users = job.users(world)
    shown, unseen = found["drafts"][champion][:2]
    other = found["drafts"][new][2 if new == champion else 1]  # never the same draft twice

    def edits_of(drafts: Sequence[tuple[str, bool]]) -> list[str]:
        rows = zip(users, contexts, drafts, strict=True)
        return [user.edit(context, text, round=i) for i, (user, context, (text, _)) in enumerate(rows)]

    def costs_of(drafts: Sequence[tuple[str, bool]], edits: list[str]) -> Array:
        return np.minimum(cost([text for text, _ in drafts], edits), 1.0)

    seen = edits_of(shown)

    def against(drafts: Sequence[tuple[str, bool]]) -> Array:
        """Costs as the autopilot takes them in the shadow."""
        ended = [each for _, each in drafts]
        return np.minimum(charge_unfinished(cost, costs_of(drafts, seen), ended, seen), 1.0)

    own = costs_of(other, edits_of(other)) - costs_of(unseen, edits_of(unseen))
    first, second, third = against(other), against(unseen), against(shown)
    ended = np.array([each for _, each in shown], bool)
    weights = found["log_weights"][f"{champion} {new}"]
    asked = [context for context, each in zip(contexts, ended, strict=True) if each]
    return {
        "true": own,
        "shadow": first - second,
        "naive": first - third,
        "costs": list(zip(first.tolist(), second.tolist(), strict=True)),
        "naive_costs": list(zip(first.tolist(), third.tolist(), strict=True)),
        "weighed": estimate_by_weights(weights, costs_of(shown, seen)[ended], asked),
    }


def is_rejected(costs: Sequence[tuple[float, float]]) -> bool:
    """Whether the autopilot rejects a policy in the shadow, which it looks at after each edit."""
    stages, config = Stages(), AutopilotConfig()
    for subject, stage in (
        ("champion", Stage.ARM),
        ("champion", Stage.CHAMPION),
        ("new", Stage.SHADOW),
    ):
        stages.apply(Transition(subject, stages.of(subject), stage, 0.0))
    for n in range(FEWEST_ROUNDS, len(costs) + 1):
        pairs = [ShadowPair("", own, other) for own, other in costs[:n]]
        step = judge_shadow(stages, Watch(()), pairs, config, 1.0)
        if step is not None:
            return step.stage is Stage.REJECTED
    return False


def run(
    out: str | Path,
    *,
    domains: Sequence[str] = ("email",),
    kinds: Sequence[str] = ("weak", "medium", "strong"),
    settings: Settings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `shadow-bias.json` and `shadow-bias.md`.

    Args:
        out: The folder for the results.
        domains: The domains.
        kinds: The kinds of users.
        settings: The size of the experiment.
        callback: Receives progress.
    """
    settings, callback = settings or Settings(), callback or WarningCallback()
    jobs = [
        Job(domain, kind, seed, settings) for seed in settings.seeds for domain in domains for kind in kinds
    ]
    measured = dict(in_parallel(measure, jobs, "logs", callback))
    rows = []
    for domain in domains:
        for kind in kinds:
            own = {job: found for job, found in measured.items() if job[:2] == (domain, kind)}
            for champion, new in PAIRS:
                about = {"domain": domain, "users": kind, "champion": champion, "new": new}
                rows += [about | _figures(own, champion, new, cost) for cost in COSTS]
    data = {
        "seeds": list(settings.seeds),
        "contexts": settings.contexts,
        "rows": settings.rows,
        "margin": SHADOW_MARGIN,
        "minutes": sum(found["seconds"] for found in measured.values()) / 60,
        "results": rows,
    }
    write_result("shadow-bias", data, _page(data), out)
    return data


def _figures(measured: Mapping[Job, Mapping[str, Any]], champion: str, new: str, cost: str) -> dict[str, Any]:
    """The figures of a pair over all seeds; each mean with its standard error over the requests."""
    each = [compare(job, found, champion, new, cost) for job, found in measured.items()]
    true, shadow, naive = (
        np.concatenate([one[name] for one in each]) for name in ("true", "shadow", "naive")
    )
    weighed: list[DraftWeights] = [one["weighed"] for one in each]
    size = AutopilotConfig().shadow_rounds

    def rejected(name: str) -> list[bool]:
        return [
            is_rejected(one[name][start : start + size])
            for one in each
            for start in range(0, len(one[name]) - size + 1, size)
        ]

    return {
        "cost": cost,
        "true": mean_and_error(true),
        "shadow": mean_and_error(shadow),
        "bias": mean_and_error(shadow - true),
        "naive": mean_and_error(naive),
        "naive_bias": mean_and_error(naive - true),
        "shadows": len(rejected("costs")),
        "rejected": sum(rejected("costs")),
        "naive_rejected": sum(rejected("naive_costs")),
        "bias_by_seed": [float((one["shadow"] - one["true"]).mean()) for one in each],
        "drafts": [one.rows for one in weighed],
        "effective": [one.effective for one in weighed],
        "by_weights": _by_weights(weighed),
        "estimated": sum(one.cost is not None for one in weighed),
    }


def _by_weights(weighed: Sequence[DraftWeights]) -> tuple[float, float] | None:
    """The difference by weights, with its error from the intervals of the seeds; None without an estimate."""
    known = [(one.cost, one.logged) for one in weighed if one.cost is not None]
    if not known:
        return None
    errors = [(cost.high - cost.low) / (2 * NORMAL) for cost, _ in known]
    return float(np.mean([cost.value - logged for cost, logged in known])), math.hypot(*errors) / len(known)


def _page(data: Mapping[str, Any]) -> str:
    first = [each for each in data["results"] if each["cost"] == COSTS[0]]
    heads = ["users", "champion → new", "true difference", "by the shadow", "bias of the shadow"]
    heads += ["bias of the naive way", "rejected", "rejected by the naive way"]
    heads += ["by weights", "effective drafts"]
    rows = [
        [
            *_names(each),
            *(plus_minus(*each[name]) for name in ("true", "shadow", "bias", "naive_bias")),
            *(f"{each[name]} of {each['shadows']}" for name in ("rejected", "naive_rejected")),
            _estimated(each),
            f"{np.mean(each['effective']):.1f} of {np.mean(each['drafts']):.0f}",
        ]
        for each in first
    ]
    fair = [each for each in first if each["true"][0] <= 2 * (each["true"][1] or 0.0)]
    worst = max(fair, key=lambda each: each["bias"][0])
    text = (
        f"{data['contexts']} requests for each of the seeds {', '.join(map(str, data['seeds']))}, edited by "
        f"{USERS} users of a kind; costs are `{COSTS[0]}`. A difference is the new policy's cost less the "
        "champion's, with its standard error over the requests; a bias is what a way says beyond the truth: "
        "above 0 the new policy seems worse than it is. Rejected are shadows of "
        f"{AutopilotConfig().shadow_rounds} edits by the autopilot's own rule, whose margin is "
        f"{data['margin']}. By weights is the difference that the champion's drafts show if each counts "
        "by its probability under the new policy, over the seeds in which enough of them are effective."
    )
    largest = (
        f"Of the policies that are not shown to be worse, the largest bias is {plus_minus(*worst['bias'])} "
        f"({worst['users']} users, {worst['champion']} → {worst['new']})."
    )
    second = [
        [*_names(each), *(plus_minus(*each[name]) for name in ("true", "shadow", "bias", "naive_bias"))]
        for each in data["results"]
        if each["cost"] == COSTS[1]
    ]
    parts = [text, largest, markdown_table(heads, rows, left=2)]
    parts += [f"The same by `{COSTS[1]}`, at most 1:", markdown_table(heads[:6], second, left=2)]
    return "\n\n".join(parts)


def _estimated(row: Mapping[str, Any]) -> str:
    """The difference by weights, and in how many seeds there is one."""
    if row["by_weights"] is None:
        return "–"
    few = f" ({row['estimated']} seeds)" if row["estimated"] < len(row["drafts"]) else ""
    return plus_minus(*row["by_weights"]) + few


def _names(row: Mapping[str, Any]) -> list[str]:
    return [f"{row['domain']}, {row['users']}", f"{row['champion']} → {row['new']}"]
