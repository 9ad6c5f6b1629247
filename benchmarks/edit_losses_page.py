"""The page of `edit-losses`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editloop.results import markdown_table

__all__ = ["page"]

COLUMNS = {
    "test_cost": "test cost",
    "saved": "less than the loss it changes",
    "cost": "cost of a sampled draft",
    "log_prob_per_token": "log-likelihood of the edit per token",
    "gain_per_token": "over the base's",
    "fallen": "edits that fell",
    "reference_accuracy": "reference accuracy",
    "finished": "finished",
}
FROM_BASE = ("gain_per_token", "fallen", "reference_accuracy")
"""Figures that are differences from the base itself."""


def page(measured: Mapping[str, Any], parents: Mapping[str, str]) -> str:
    """Return the page of what was measured, in Markdown.

    Args:
        measured: What `run` returns.
        parents: For each loss that reads the edit, the one that it changes.
    """
    machines = ", ".join(f"{machine} {count}" for machine, count in measured["machines"].items())
    changed = ", ".join(f"`{name}` with `{parent}`" for name, parent in parents.items())
    seeds = ", ".join(map(str, measured["seeds"]))
    costs = measured["costs"]
    parts = [
        "`fit` with its defaults, one method at a time; in the lab, whose base is small, each method has the "
        "learning rate of the last table that was best on other logs. In the lab there are "
        f"{measured['rows']} rows to learn from and up to {measured['tests']} to test on for each of the "
        f"seeds {seeds}, and the test cost is that of a sampled draft to the strong user "
        f"(`{costs['test']}`). Of people's edits there are {measured['real_rows']} and "
        f"{measured['real_tests']}; the base is {measured['base']} in {measured['dtype']}. The cost of a "
        f"sampled draft is that against the row's own edit (`{costs['sampled']}`), which its user made of "
        "another draft.",
        "In brackets 95% intervals by bootstrap over contexts, with the fits as they are. A loss that reads "
        f"the edit is compared with the one that it changes, in the same contexts: {changed}; by the test "
        "cost in the lab, else by the cost of a sampled draft. An edit fell if it is less likely than under "
        f"the base. Measurements by machine: {machines}.",
    ]
    for title, found in measured["logs"].items():
        parts += [f"## {title}", _about(found), _table(found), _by_seed(found), _fits(found["fits"])]
    if measured["rates"]:
        parts += ["## Learning rates", _rates(measured)]
    return "\n\n".join(part for part in parts if part)


def _about(found: Mapping[str, Any]) -> str:
    revised = ", ".join(map(str, found["revised"]))
    chains = f"{revised} of them with earlier revisions" if any(found["revised"]) else "none with revisions"
    return f"{found['train']} rows to learn from, {chains}; {found['rows']} test rows in all."


def _table(found: Mapping[str, Any]) -> str:
    rows = []
    for name, figures in found["policies"].items():
        row = [name]
        for key in COLUMNS:
            is_own = name == "base" and key in FROM_BASE
            row.append("" if key not in figures or is_own else _shown(figures[key], signed=key == "saved"))
        rows.append(row)
    return markdown_table(["policy", *COLUMNS.values()], rows)


def _shown(figure: Mapping[str, Any], *, signed: bool = False) -> str:
    low, high = figure["interval"]
    if figure["value"] is None or low is None or high is None:
        return "–"
    form = "+.3f" if signed else ".3f"
    return f"{figure['value']:{form}} [{low:{form}}, {high:{form}}]"


def _by_seed(found: Mapping[str, Any]) -> str:
    if len(found["seeds"]) < 2:
        return ""
    each = "; ".join(
        f"{name} {', '.join(f'{cost:.3f}' for cost in costs)}" for name, costs in found["by_seed"].items()
    )
    return f"Test cost by seed: {each}."


def _fits(fits: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for each in fits:
        seconds = sum(trial["seconds"] for trial in each["trials"])
        lines.append(
            f"- {each['method']}, seed {each['seed']}: {each['chosen']}; step {each['steps'][0]} of "
            f"{each['steps'][1]} kept; {seconds:.0f} s"
        )
        lines += [f"- alarm, {each['method']}, seed {each['seed']}: {line}" for line in each["alarms"]]
    return "\n".join(lines)


def _rates(measured: Mapping[str, Any]) -> str:
    rows = [
        [
            *(each["log"], each["method"], trial["settings"]),
            *(f"{trial[key]:.3f}" for key in ("validation_loss", "validation_cost")),
        ]
        for each in measured["rates"]
        for trial in each["trials"]
    ]
    chosen = ", ".join(
        f"{method} {rate:g}" for method, rates in measured["chosen_rates"].items() for rate in rates
    )
    lead = (
        f"Each rate is trained to the end on {measured['rate_rows']} rows of a log of seed 0, which is in no "
        "table above. The figures are those of its validation part: the figure that decides, and the cost of "
        f"sampled drafts against the edits. Chosen by the mean figure over the logs: {chosen}.\n\n"
    )
    return lead + markdown_table(["log", "method", "trial", "validation loss", "sampled cost"], rows, left=3)
