"""The HTML report of a run: the verdict, the policies with their drafts, and how they were trained."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from editloop.intervals import mean_interval
from editloop.offline.methods import METHODS
from editloop.offline.page import Comparison, Draft, Section, write_report
from editloop.offline.plots import colour_of, figure_png, tidy, training_curves
from editloop.offline.scoring import Estimate
from editloop.offline.verdict import Verdict, run_verdict
from editloop.policy import RunFolder
from editloop.policy.manifest import (
    CostModelRecord,
    DataRecord,
    FidelityRecord,
    Figure,
    Manifest,
    MixtureRecord,
    PolicyRecord,
    SamplesRecord,
)

__all__ = [
    "ACCURACIES",
    "COLUMN_NOTES",
    "FIGURES",
    "SAMPLED",
    "cost_model_table",
    "figures_note",
    "figures_table",
    "off_policy_line",
    "outcome_line",
    "run_sections",
    "sampled_cells",
    "show_estimate",
    "show_number",
    "show_weights",
    "verdict_of",
    "wins_line",
    "write_run_report",
]

FIGURES = {
    "edit_nll_per_token": "loss per token",
    "accuracy": "accuracy",
    "reference_accuracy": "reference accuracy",
    "chosen_shift": "shift of edits",
}
"""The names under which figures of `Scores.figures` are shown everywhere."""

SAMPLED = ("sampled cost", "finished", "length")
"""The columns on sampled responses: the cost alone could be that of text without an end."""

ACCURACIES = (
    "Accuracy: how often the edit is likelier than the response; reference accuracy: how often it is so by "
    "more than under the base."
)
"""The meaning of the two accuracies, in one sentence."""

COLUMN_NOTES = {
    "Sampled cost:": "what it costs to turn a sampled response into the edit of the log; lower is better. An "
    "unfinished response costs as much as one of which nothing is kept.",
    "Finished:": "the share of sampled responses that came to their end within the limit of tokens.",
    "Length:": "how many times as long as the edits the sampled responses are.",
    "Loss per token:": "how unlikely the edits are; lower is better.",
    "Accuracy:": "how often the edit is likelier than the response.",
    "Reference accuracy:": "how often it is so by more than under the base.",
    "Shift of edits:": "how far the edits' log-probability moved from the base's; negative where they became "
    "less likely.",
}
"""The meaning of the columns of the policies' table."""

FEW_PAIRS, FEW_ROWS = 50, 10
"""With fewer pairs a share, and with fewer rows a mean, is shown with its 95% interval instead of its
standard error. With so few, the interval of a share is not symmetric (Wilson), and that of a mean is wide
(Student)."""

DRAFTS = 2
"""Number of contexts whose drafts are shown."""

KINDS = {"ridge": "the base's states", "bootstrap": "the base's states", "tuned": "states tuned on costs"}
"""What each kind of cost model predicts from."""


def write_run_report(run: RunFolder) -> Path:
    """Write the report of a run into its folder.

    Raises:
        RunError: The run cannot be read, or the report cannot be written.
    """
    manifest = run.manifest()
    title = f"EditLoop: {Path(manifest.read.path or run.path).name}"
    lead = f"Policies trained on {manifest.base.name}."
    return write_report(run.report, title, lead, run_sections(run), verdict_of(manifest))


def verdict_of(manifest: Manifest) -> Verdict:
    """The verdict on which policy of a run to serve, by the sampled costs of its validation rows."""
    return run_verdict(
        _sampled_cost(manifest.base.sampled),
        {name: _sampled_cost(policy.best.sampled) for name, policy in manifest.policies.items()},
        [name for name, policy in manifest.policies.items() if policy.alarms],
    )


def _sampled_cost(sampled: SamplesRecord | None) -> Estimate | None:
    if sampled is None or sampled.cost.mean is None:
        return None
    cost = sampled.cost
    return Estimate(sampled.cost.mean, math.nan if cost.se is None else cost.se, cost.n or 0)


def run_sections(run: RunFolder) -> list[Section]:
    """The sections of a run's report: the policies first, then how they were trained."""
    manifest = run.manifest()
    policies, data = manifest.policies, manifest.data
    sections = []
    if data is not None:
        table = figures_table(manifest)
        sections.append(
            Section(
                "The policies on the validation part",
                [f"{figures_note(data.validation.examples, data.validation.pairs)}."],
                [f"{name}: {reason}" for name, reason in manifest.declined.items()]
                + [f"{name}: {alarm}" for name, policy in policies.items() for alarm in policy.alarms],
                table,
                {name: note for name, note in COLUMN_NOTES.items() if name[:-1].lower() in table[0]},
            )
        )
    sections += _drafts(manifest)
    if data is not None:
        sections.append(Section("What was learned from", _learned_from(manifest, data)))
    sections.append(
        Section(
            "The trainings",
            ["Loss by optimiser step. The grey line marks the step whose weights were kept."],
            table=_settings_table(policies),
            notes=_symbols(policies),
            images=[figure_png(training_curves(policies))],
        )
    )
    if manifest.cost_model is not None:
        sections.append(_cost_model(manifest.cost_model))
    if manifest.mixture is not None:
        sections.append(_mixture(manifest.mixture))
    return sections


def _learned_from(manifest: Manifest, data: DataRecord) -> list[str]:
    parts = {"train on": data.train, "validate on": data.validation}
    rows = " and ".join(f"{p.examples} rows to {verb}, {p.pairs} of them edited" for verb, p in parts.items())
    kept = [
        f"{count} rows to {verb} ({reason})"
        for verb, part in parts.items()
        for reason, count in part.counts.items()
    ]
    start = [f"start: the adapter of {manifest.start}"] if manifest.start else []
    return [rows, *start, *manifest.base.decisions, *kept]


def _drafts(manifest: Manifest) -> list[Section]:
    """Drafts for the first contexts: the base's, then the policies' in the order of their costs."""
    sampled = {name: policy.best.sampled for name, policy in manifest.policies.items()}
    trained = {name: each for name, each in sampled.items() if each and each.examples}
    if not trained:
        return []

    def cost(name: str) -> float:
        mean = trained[name].cost.mean
        return math.inf if mean is None else mean

    ranked = sorted(trained, key=cost)
    shown = {"base": manifest.base.sampled} if manifest.base.sampled else {}
    shown |= {name: trained[name] for name in ranked}
    comparisons = []
    for i, first in enumerate(trained[ranked[0]].examples[:DRAFTS]):
        rows = {name: each.examples[i] for name, each in shown.items()}
        drafts = [Draft(name, row.sample, row.edit, row.cost, row.finished) for name, row in rows.items()]
        comparisons.append(Comparison(first.context, drafts))
    note = (
        f"The first {len(comparisons)} contexts of the validation part, not selected. Each draft is shown "
        "with what turns it into the edit of the log: struck words are deleted, underlined words inserted."
    )
    return [Section("Before and after", [note], comparisons=comparisons)]


def figures_table(manifest: Manifest, figures: Sequence[str] = tuple(FIGURES)) -> list[list[str]]:
    """The table of a run's policies, the header first: the sampled cost, if any was sampled, and figures.

    Args:
        manifest: The run's manifest.
        figures: Those of `FIGURES` to show.
    """
    base = manifest.base.sampled
    best = {name: policy.best for name, policy in manifest.policies.items()}
    is_sampled = base is not None or any(each.sampled is not None for each in best.values())
    rows = [["policy", *(SAMPLED if is_sampled else ()), *(FIGURES[key] for key in figures)]]
    if base is not None:
        rows.append(["base", *sampled_cells(base), *([""] * len(figures))])
    for name, each in best.items():
        cells = sampled_cells(each.sampled) if is_sampled else []
        rows.append([name, *cells, *(show_estimate(each.validation.get(key)) for key in figures)])
    return rows


def sampled_cells(sampled: SamplesRecord | None) -> list[str]:
    """The cells of `SAMPLED`; empty where nothing was sampled."""
    if sampled is None:
        return [""] * len(SAMPLED)
    finished = "–" if sampled.unfinished is None else f"{1 - sampled.unfinished:.0%}"
    length = "–" if sampled.length_ratio is None else f"{sampled.length_ratio:.1f}×"
    return [show_estimate(sampled.cost), finished, length]


def wins_line(found: Mapping[str, Any]) -> str:
    """How often a policy's responses win over the base's, in a line; `found` is its `wins`."""
    parts = []
    for by, rate in found.items():
        if rate is None:
            parts.append(f"no verdict by {by}")
            continue
        low, high = rate["interval"]
        parts.append(f"{rate['mean']:.0%} [{low:.0%}, {high:.0%}] of {rate['n']} contexts by {by}")
    return f"its response wins over the base's in {', '.join(parts)}"


def outcome_line(found: Mapping[str, Any], policies: Mapping[str, Mapping[str, Any]]) -> str:
    """What an outcome says of the drafts, and how well each policy tells good ones; `found` is its
    summary."""
    words = {"good": "where it is high", "other": "where it is low"}
    costs = " and ".join(f"{cost['mean']:.3f} {words[key]}" for key, cost in found["cost"].items())
    known = {name: figures.get("outcome") for name, figures in policies.items()}
    shares = ", ".join(f"{name} {share:.0%}" for name, share in known.items() if share is not None)
    ranked = f" Of a draft of each kind, the good one is the likelier in: {shares}." if shares else ""
    return (
        f"{found['name']}: {found['mean']:.3f} over {found['rows']} drafts, whose edits cost {costs}.{ranked}"
    )


def off_policy_line(found: Mapping[str, Any]) -> str:
    """What a policy's own drafts would cost, in a line; `found` is what `DraftWeights.to_json` returned."""
    rows = f"by weights of {found['rows']} logged drafts, which cost {found['logged']:.3f}"
    cost = found["cost"]
    if cost is None:
        return f"no estimate {rows}: {found['refused']}"
    own = f"{cost['value']:.3f} [{cost['low']:.3f}, {cost['high']:.3f}]"
    return f"its own drafts would cost {own} {rows} ({found['effective']:.0f} effective)"


def _settings_table(policies: Mapping[str, PolicyRecord]) -> list[list[str]]:
    """The table of what each policy was trained with."""
    rows = [["policy", "trials", "chosen", "step kept"]]
    for name, policy in policies.items():
        best = policy.best
        rows.append([name, str(len(policy.trials)), best.settings, f"{best.best_step or 0} of {best.steps}"])
    return rows


def _symbols(policies: Mapping[str, PolicyRecord]) -> dict[str, str]:
    """What the short names of the hyperparameters mean, as the methods describe them."""
    notes: dict[str, str] = {}
    for name, policy in policies.items():
        if name not in METHODS:  # trained by a method that is not installed here
            continue
        model = METHODS.get(name).hyperparameters
        try:
            chosen = model.model_validate(policy.best.hyperparameters)
        except ValidationError:  # as an older version named them
            continue
        for field in model.model_fields:
            symbol = model.extra(field)["symbol"]
            if symbol in chosen.shown():
                notes[f"{symbol} ({name}):"] = model.model_fields[field].description or ""
    # Methods share hyperparameters. A description that several of them have is shown once, without a method.
    alike: dict[str, list[str]] = {}
    for label, description in notes.items():
        alike.setdefault(description, []).append(label)
    return {
        labels[0] if len(labels) == 1 else labels[0].partition(" ")[0] + ":": description
        for description, labels in alike.items()
    }


def figures_note(rows: int, pairs: int) -> str:
    """A note on how many rows and pairs the figures are of, and how their errors are shown."""
    return f"{rows} rows, {pairs} pairs; mean ± standard error, or [95% interval] where there are few"


def cost_model_table(kinds: Mapping[str, FidelityRecord]) -> list[list[str]]:
    """The table of the fidelity of cost models, by label."""
    rows = [["predicts from", "R²", "correlation", "of ranks", "costs below f̂", "f̂ + u", "f̂ + 2u"]]
    for label, found in kinds.items():
        figures = [show_number(figure) for figure in (found.r2, found.pearson, found.spearman)]
        rows.append([label, *figures, *(f"{share:.0%}" for share in found.covered)])
    return rows


def _cost_model(record: CostModelRecord) -> Section:
    """How well the cost model predicts, beside baselines that know only the length, or nothing."""
    settings, held = record.settings, record.model.rows
    tried = {f"{KINDS[kind]} ({kind})": found for kind, found in record.tried.items()}
    return Section(
        "The cost model",
        [
            f"Least squares on the costs of {settings['rows']} responses, tested on {held} validation rows. "
            f"Chosen: {record.kind} with {settings['features']}, ridge strength {settings['ridge']:.3g}.",
            *_cross_validated(record),
        ],
        table=cost_model_table({**tried, "its length": record.length, "nothing": record.mean}),
        notes={
            "f̂:": "the predicted cost of a response.",
            "u:": "how uncertain that prediction is; most costs should be below f̂ + u.",
            "R²:": "the share of the costs' variance that is predicted.",
        },
    )


def _cross_validated(record: CostModelRecord) -> list[str]:
    """How much is predicted in contexts that were left out, in a sentence; none from an older version."""
    found = record.cross_validated
    if found is None:
        return []
    r2, low, high = (show_number(value) for value in (found.r2, found.low, found.high))
    return [f"Of {found.contexts} contexts, each predicted from others: R² {r2} [{low},{high}]."]


def _mixture(mixture: MixtureRecord) -> Section:
    """The weights, the objective of each policy alone and of the mixture, and the curve of the fit."""
    from matplotlib.figure import Figure as Plot

    unit = "mean cost" if mixture.by == "cost" else "log-likelihood of an edit"
    rows = [["policy", "weight", f"{unit}, alone"]]
    for name, weight in mixture.weights.items():
        estimate = Figure(mean=weight, se=mixture.errors.get(name))
        rows.append([name, show_estimate(estimate), show_number(mixture.single.get(name))])
    rows.append(["mixture", "", show_number(mixture.objective)])
    figure = Plot(figsize=(9.3, 2.4), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    curve = [math.nan if value is None else value for value in mixture.curve]
    axes.plot(range(1, len(curve) + 1), curve, color=colour_of("mixture"))
    axes.set_xscale("log")
    tidy(axes, "", "step of the fit", unit)
    note = (
        f"Weights fitted by {mixture.by} on {mixture.rows} validation rows, ± standard error by "
        "bootstrap. Each response of the mixture is sampled from one policy, chosen by weight."
    )
    return Section("The mixture", [note], table=rows, images=[figure_png(figure)])


def show_number(value: float | None) -> str:
    """A number with three digits after the point, or a dash if it is missing or not finite."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def show_estimate(estimate: Figure | Mapping[str, Any] | None) -> str:
    """Mean ± standard error; with few rows the 95% interval or their number; a dash if there is no mean."""
    if estimate is None:
        return "–"
    found = estimate if isinstance(estimate, Figure) else Figure.model_validate(estimate, strict=False)
    mean = show_number(found.mean)
    if found.mean is None or mean == "–":
        return mean
    n = FEW_PAIRS if found.n is None else found.n
    if n >= (FEW_PAIRS if found.interval else FEW_ROWS):
        return f"{mean} ± {show_number(found.se)}"
    interval = found.interval or mean_interval(found.mean, found.se or 0.0, n)
    # Without a space in the interval, a narrow table does not break it across lines.
    return f"{mean} [{interval[0]:.2f},{interval[1]:.2f}]" if interval else f"{mean} (n = {n})"


def show_weights(weights: Mapping[str, float], errors: Mapping[str, float]) -> str:
    """The weights of a mixture with their standard errors, and the policies without weight, in one line."""
    shown = [f"{name} {weight:.2f} ± {errors[name]:.2f}" for name, weight in weights.items() if weight]
    without = [name for name, weight in weights.items() if not weight]
    return ", ".join(shown) + (f"; left out, with next to no weight: {', '.join(without)}" if without else "")
