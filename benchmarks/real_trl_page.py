"""The page of `real-trl`: its tables, and what each of them measures."""

from __future__ import annotations

from typing import Any

from editloop.offline.report import show_estimate
from editloop.results import markdown_table

__all__ = ["page"]

FIGURES = {
    "edit_nll_per_token": "−log-likelihood per token of the edit",
    "reference_accuracy": "reference accuracy",
    "chosen_shift": "shift of the edit",
    "rejected_shift": "shift of the response",
}
TITLES = {
    "lamp": "LAMP, writers whom the policies have not seen",
    "ro-en": "MLQE-PE, Romanian to English",
    "et-en": "MLQE-PE, Estonian to English",
}


def page(measured: dict[str, Any]) -> str:
    """Return the page of what `real-trl` measured, in Markdown."""
    text = (
        f"Base {measured['base']}. `ours`: `fit` with its defaults, trials and sampled responses included. "
        "`ours tuned` and `trl tuned`: the same LoRA of rank 16 on all linear layers, "
        f"{measured['steps']} steps of 8 rows (fewer where unedited rows are left out), the"
        " same learning rates, one trial of each method, the reference precomputed, no gradient "
        "checkpointing and, on a CPU, no bf16. `trl default`: SFT and DPO with the defaults of TRL's own "
        "commands with an adapter. Every policy is scored by the same code on the same tokens; mean ± "
        "standard error over test rows, logarithms are natural. Time and memory are those of the "
        "training, from the start of the process to a finished adapter."
    )
    return "\n\n".join([text, *(_set(each) for each in measured["sets"])])


def _set(found: dict[str, Any]) -> str:
    folds = f" in {found['folds']} folds" if found["folds"] > 1 else ""
    title = f"## {TITLES[found['name']]}\n\n{found['train']} train rows and {found['test']} test rows{folds}."
    return "\n\n".join([title, _quality(found["policies"]), _runs(found["costs"]), _speed(found["speed"])])


def _quality(policies: dict[str, dict[str, Any]]) -> str:
    rows = []
    for name, figures in policies.items():
        cells = [show_estimate(figures[key]) for key in FIGURES]
        rows.append([name, *(cells if name != "base" else [cells[0], *["–"] * (len(FIGURES) - 1)])])
    return markdown_table(["policy", *FIGURES.values()], rows)


def _runs(costs: dict[str, Any]) -> str:
    rows = [
        [arm, "+".join(run["methods"]), *_cells(run)] for run in costs["runs"] for arm in [run["arm"]]
    ] + [[f"three policies, {arm}", "", *_cells(three)] for arm, three in costs["three"].items()]
    headings = ["arm", "methods", "minutes", "processor minutes", "peak MB"]
    times = costs["times"]
    text = (
        f"On {' and '.join(costs['machines'])}. Three policies take tuned TRL "
        f"{times['processor_minutes']:.2f} times the processor time of ours with the same settings (goal, on "
        f"a processor alone: at least {costs['goal']:.1f}), and {times['minutes']:.2f} times the minutes."
    )
    return f"{markdown_table(headings, rows, left=2)}\n\n{text}"


def _cells(run: dict[str, Any]) -> list[str]:
    return [f"{run['minutes']:.1f}", f"{run['processor_minutes']:.1f}", f"{run['peak_mb']:,.0f}"]


def _speed(speed: list[dict[str, Any]]) -> str:
    text = (
        "Training alone, on the machine that is named last, with the same LoRA, rows, batches and order in "
        "all arms: tokens of the separate sequences per second of processor time, and the process's peak. On "
        "a CPU, `ours` and `tuned` are in float32."
    )
    rows = [
        [
            each["method"],
            *(f"{value:,.0f}" for value in each["tokens_per_second"].values()),
            *(f"{value:.2f}×" for value in each["times_as_fast_as"].values()),
            *(f"{value:,.0f}" for value in each["peak_mb"].values()),
        ]
        for each in speed
    ]
    arms = ["ours", "tuned", "default"]
    ratios = ["ours / tuned", "ours / default"]
    headings = ["method", *(f"{arm}, tokens/s" for arm in arms), *ratios, *(f"{arm}, MB" for arm in arms)]
    return f"{text}\n\n{markdown_table(headings, rows)}"
