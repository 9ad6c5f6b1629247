"""The HTML report of a run: the verdict, the policies, drafts of each, and how they were trained."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from editloop.intervals import mean_interval
from editloop.offline.page import Comparison, Draft, Section, write_report
from editloop.offline.score import Estimate
from editloop.offline.verdict import Verdict, run_verdict
from editloop.policy import RunFolder

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "ACCURACIES",
    "COLUMN_NOTES",
    "FIGURES",
    "cost_model_table",
    "figure_png",
    "figures_note",
    "run_sections",
    "show_estimate",
    "show_number",
    "show_settings",
    "show_weights",
    "tidy",
    "verdict_of",
    "write_run_report",
]

COLOURS = {
    "base": "#8b95a1",
    "sft": "#2f6fb0",
    "dpo": "#c2672d",
    "rl": "#b23a63",
    "early": "#3a8f5c",
    "late": "#7a3e9d",
    "mixture": "#8a7a2f",
}


def write_run_report(run: RunFolder) -> Path:
    """Write what a run folder knows of itself into it.

    Raises:
        RunError: It cannot be written.
    """
    manifest = run.manifest()
    title = f"EditLoop: {Path(manifest['read'].get('path', run.path)).name}"
    lead = f"Policies trained on {manifest['base']['name']}."
    return write_report(run.report, title, lead, run_sections(run), verdict_of(manifest))


def verdict_of(manifest: Mapping[str, Any]) -> Verdict:
    """Which policy of a run to serve, by the sampled costs of its validation rows."""
    return run_verdict(
        _sampled_cost(manifest["base"]["sampled"]),
        {name: _sampled_cost(_best(policy)["sampled"]) for name, policy in manifest["policies"].items()},
        [name for name, policy in manifest["policies"].items() if policy["alarms"]],
    )


def _sampled_cost(sampled: Mapping[str, Any] | None) -> Estimate | None:
    return Estimate(**sampled["cost"]) if sampled else None


def _best(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """The figures of a policy's chosen trial."""
    best: Mapping[str, Any] = policy["candidates"][policy["chosen"]]
    return best


def run_sections(run: RunFolder) -> list[Section]:
    """What a run folder knows of itself, as sections: the policies first, then how they were trained."""
    manifest = run.manifest()
    policies: dict[str, Any] = manifest["policies"]
    data = manifest["data"]
    kept = [f"{count} rows: {reason}" for part in data.values() for reason, count in part["counts"].items()]
    sections = [
        Section(
            "The policies on the validation part",
            [f"{figures_note(data['validation']['examples'], data['validation']['pairs'])}."],
            [f"{name}: {alarm}" for name, policy in policies.items() for alarm in policy["alarms"]],
            _figures_table(manifest),
            COLUMN_NOTES,
        ),
        *_drafts(manifest),
        Section(
            "What was learned from",
            [
                " and ".join(
                    f"{rows['examples']} rows to {part}, {rows['pairs']} of them edited"
                    for part, rows in (("train on", data["train"]), ("validate on", data["validation"]))
                ),
                *manifest["base"]["decisions"],
                *kept,
            ],
        ),
        Section(
            "The trainings",
            ["Loss by optimiser step. The grey line marks the step whose weights were kept."],
            table=_settings_table(policies),
            images=[figure_png(_curves(policies))],
        ),
    ]
    if "cost_model" in manifest:
        sections.append(_cost_model(manifest["cost_model"]))
    if "mixture" in manifest:
        sections.append(_mixture(manifest["mixture"]))
    return sections


def _drafts(manifest: Mapping[str, Any]) -> list[Section]:
    """Drafts for the first contexts: the base's, then those of the policies, the cheapest policy first."""
    sampled = {name: _best(policy)["sampled"] for name, policy in manifest["policies"].items()}
    sampled = {name: each for name, each in sampled.items() if each and each["examples"]}
    ranked = sorted(sampled, key=lambda name: sampled[name]["cost"]["mean"])
    shown = {**({"base": manifest["base"]["sampled"]} if manifest["base"]["sampled"] else {})}
    shown |= {name: sampled[name] for name in ranked}
    if not ranked:
        return []
    comparisons = []
    for i, first in enumerate(sampled[ranked[0]]["examples"][:DRAFTS]):
        rows = {name: each["examples"][i] for name, each in shown.items()}
        drafts = [Draft(name, row["sample"], row["edit"], row.get("cost")) for name, row in rows.items()]
        comparisons.append(Comparison(first["context"], drafts))
    told = (
        f"The first {len(comparisons)} contexts of the validation part, not selected. Each draft is shown "
        "with what turns it into the edit of the log: struck words are deleted, underlined words inserted."
    )
    return [Section("Before and after", [told], comparisons=comparisons)]


DRAFTS = 2
"""Contexts whose drafts are shown."""


def _figures_table(manifest: Mapping[str, Any]) -> list[list[str]]:
    """The policies' figures, the sampled cost first."""
    base = manifest["base"]["sampled"]
    rows = [["policy", "sampled cost", *FIGURES.values()]]
    rows.append(["base", show_estimate(base["cost"]) if base else "", *([""] * len(FIGURES))])
    for name, policy in manifest["policies"].items():
        best = _best(policy)
        cost = show_estimate(best["sampled"]["cost"]) if best["sampled"] else ""
        rows.append([name, cost, *(show_estimate(best["validation"].get(key)) for key in FIGURES)])
    return rows


def _settings_table(policies: Mapping[str, Any]) -> list[list[str]]:
    """What each policy was trained with."""
    rows = [["policy", "trials", "chosen", "step kept"]]
    for name, policy in policies.items():
        best = _best(policy)
        step = f"{best['best_step'] or 0} of {best['steps']}"
        rows.append([name, str(len(policy["candidates"])), show_settings(best), step])
    return rows


FIGURES = {
    "edit_nll_per_token": "loss per token",
    "accuracy": "accuracy",
    "reference_accuracy": "reference accuracy",
    "chosen_shift": "shift of edits",
}
"""What the figures of `Scores.figures` are called, wherever they are shown."""

ACCURACIES = (
    "Accuracy: how often the edit is likelier than the response; reference accuracy: how often it is so by "
    "more than under the base."
)

COLUMN_NOTES = {
    "Sampled cost:": "what it costs to turn a sampled response into the edit of the log; lower is better.",
    "Loss per token:": "how unlikely the edits are; lower is better.",
    "Accuracy:": "how often the edit is likelier than the response.",
    "Reference accuracy:": "how often it is so by more than under the base.",
    "Shift of edits:": "how far the edits' log-probability moved from the base's; negative where they became "
    "less likely.",
}
"""What the columns of the policies' table mean."""

FEW_PAIRS, FEW_ROWS = 50, 10
"""Below which a share, and a mean, is shown with its 95% interval in place of its standard error."""


def figures_note(rows: int, pairs: int) -> str:
    """What the figures beside it are of, and what stands behind their means."""
    return f"{rows} rows, {pairs} pairs; mean ± standard error, of few [95% interval]"


SETTINGS = {
    "learning_rate": "lr",
    "beta": "beta",
    "dpo_weight": "weight",
    "rl_weight": "rl",
    "rl_beta": "rl beta",
    "kappa": "kappa",
}


def show_settings(candidate: Mapping[str, Any]) -> str:
    """The point of the grid that a candidate is."""
    numbers = [f"{word} {candidate[key]:g}" for key, word in SETTINGS.items() if key in candidate]
    return ", ".join([*numbers, *([candidate["rl_loss"]] if "rl_loss" in candidate else [])])


def cost_model_table(kinds: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """The fidelity of cost models (`Fidelity` as plain data), by what they are called."""
    rows = [["predicts from", "R²", "correlation", "of ranks", "costs below f̂", "f̂ + u", "f̂ + 2u"]]
    for label, found in kinds.items():
        figures = [show_number(found[key]) for key in ("r2", "pearson", "spearman")]
        rows.append([label, *figures, *(f"{share:.0%}" for share in found["covered"])])
    return rows


def _cost_model(report: Mapping[str, Any]) -> Section:
    """How well the cost model predicts, beside what knows the length or nothing."""
    settings, held = report["settings"], report["model"]["rows"]
    tried = {f"{KINDS[kind]} ({kind})": found for kind, found in report["tried"].items()}
    return Section(
        "The cost model",
        [
            f"Least squares on the costs of {settings['rows']} responses, on {held} validation rows; taken: "
            f"{report['kind']} with {settings['features']}, of strength {settings['ridge']:.3g}."
        ],
        table=cost_model_table({**tried, "its length": report["length"], "nothing": report["mean"]}),
    )


KINDS = {"ridge": "the base's states", "bootstrap": "the base's states", "tuned": "states tuned on costs"}


def _mixture(mixture: Mapping[str, Any]) -> Section:
    """The weights, what the mixture gains over each policy alone, and the fit's curve."""
    from matplotlib.figure import Figure

    by_cost = mixture["by"] == "cost"
    unit = "mean cost" if by_cost else "log-likelihood of an edit"
    rows = [["policy", "weight", f"{unit}, alone"]]
    for name, weight in mixture["weights"].items():
        estimate = {"mean": weight, "se": mixture["errors"][name]}
        rows.append([name, show_estimate(estimate), show_number(mixture["single"][name])])
    rows.append(["mixture", "", show_number(mixture["objective"])])
    figure = Figure(figsize=(9.3, 2.4), dpi=160, layout="constrained")
    axes = figure.add_subplot()
    axes.plot(range(1, len(mixture["curve"]) + 1), mixture["curve"], color=COLOURS["mixture"])
    axes.set_xscale("log")
    tidy(axes, "", "step of the fit", unit)
    told = (
        f"Weights fitted by {mixture['by']} on {mixture['rows']} validation rows, ± standard error by "
        "bootstrap. Each response of the mixture is drawn from one policy, by its weight."
    )
    return Section("The mixture", [told], table=rows, images=[figure_png(figure)])


def show_number(value: float | None) -> str:
    """Three digits after the point, or a dash for what a training that diverged leaves behind."""
    return "–" if value is None or not math.isfinite(value) else f"{value:.3f}"


def show_estimate(estimate: Mapping[str, Any] | None) -> str:
    """Mean ± standard error, of few rows its 95% interval or their number; a dash where there is no mean."""
    mean = show_number(estimate["mean"] if estimate else None)
    if mean == "–" or not estimate:
        return mean
    n = estimate.get("n", FEW_PAIRS)
    if n >= (FEW_PAIRS if "interval" in estimate else FEW_ROWS):
        return f"{mean} ± {show_number(estimate['se'])}"
    interval = estimate.get("interval") or mean_interval(estimate["mean"], estimate["se"] or 0.0, n)
    # One word: where a table is narrow the interval goes to the next line whole.
    return f"{mean} [{interval[0]:.2f},{interval[1]:.2f}]" if interval else f"{mean} (n = {n})"


def show_weights(weights: Mapping[str, float], errors: Mapping[str, float]) -> str:
    """The weights of a mixture with their standard errors, in a line."""
    return ", ".join(f"{name} {weight:.2f} ± {errors[name]:.2f}" for name, weight in weights.items())


def _curves(policies: Mapping[str, Any]) -> Figure:
    """Training and validation loss of each policy's chosen candidate."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(3.1 * max(len(policies), 2), 2.7), dpi=160, layout="constrained")
    for i, (name, policy) in enumerate(policies.items()):
        axes = figure.add_subplot(1, max(len(policies), 2), i + 1)
        best = policy["candidates"][policy["chosen"]]
        train = [(h["step"], h["loss"]) for h in best["history"] if "loss" in h]
        held = [(0, best["initial_loss"])] + [
            (h["step"], h["eval_loss"]) for h in best["history"] if "eval_loss" in h
        ]
        colour = COLOURS.get(name, "#444")
        axes.plot(*zip(*train, strict=True), color=colour, alpha=0.35, linewidth=1, label="training")
        axes.plot(
            *zip(*held, strict=True),
            color=colour,
            linewidth=1.8,
            marker="o",
            markersize=3,
            label="validation",
        )
        axes.axvline(best["best_step"] or 0, color="#bbb", linewidth=0.8, zorder=0)
        tidy(axes, name, "step")
        axes.legend(frameon=False, fontsize=7)
    return figure


def tidy(axes: Axes, title: str = "", xlabel: str = "", ylabel: str = "") -> None:
    """The house's look: a small title on the left, small labels, no frame above and on the right."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(xlabel, fontsize=8)
    axes.set_ylabel(ylabel, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def figure_png(figure: Figure) -> bytes:
    """A figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return buffer.getvalue()
