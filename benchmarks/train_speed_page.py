"""The page of `train-speed`: its tables, and what each of them measures."""

from __future__ import annotations

from typing import Any

from benchmarks.train_spec import NUM_SAMPLES
from editloop.results import markdown_table

ARMS = ("ours", "trl tuned", "trl default")
"""The arms, in the order in which they take turns and stand in the tables."""

_ON_CPU = (
    " Ours gains by what is shared, by little padding, and by computing the output embedding at counted "
    "tokens only. On a CPU, TRL 1.16 computes it at every position, padding included; on a GPU it computes "
    "it at counted tokens, so that the ratios will differ there."
)


def page(measured: dict[str, Any]) -> str:
    """Return the page of what `train-speed` measured, in Markdown."""
    parts = [_rates(measured), _whole(measured["whole"]), _rl(measured["rl"]), _passes(measured["passes"])]
    parts.append(_step(measured["step"]))
    if measured["left_out"]:
        parts.append(f"Left out, because there was no GPU: {', '.join(measured['left_out'])}.")
    return "\n\n".join(parts)


def _rates(measured: dict[str, Any]) -> str:
    where = f"on {measured['gpu']}" if measured["gpu"] else "on the CPU"
    text = (
        "All arms have the same base with random weights, LoRA of rank 16 on all linear layers, made-up "
        "rows of lognormal lengths, and the same batches in the same order. `tuned`: TRL with the reference "
        "precomputed, no gradient checkpointing and, on a CPU, no bf16; `default`: TRL as it comes (bf16, "
        "gradient checkpointing, reference not precomputed). Tokens are those of the separate sequences; "
        "`shared` is the part of a sequence's tokens that edit and response have in common. Medians of "
        f"{measured['repeats']} turns of {measured['steps']} steps, {where}."
    )
    rows = []
    for each in measured["rates"]:
        times = each["times_as_fast_as"]
        rows.append(
            [
                each["size"],
                each["method"],
                str(each["shared"]),
                *(f"{each['tokens_per_second'][arm]:,.0f}" for arm in ARMS),
                f"{times['trl tuned']:.2f}×",
                f"{each['goal']:.1f}×" if each["goal"] else "",
                f"{times['trl default']:.2f}×",
                *(f"{each['peak_mb'][arm]:,.0f}" for arm in ARMS),
            ]
        )
    speed = ["ours, tokens/s", "tuned", "default", "ours / tuned", "goal", "ours / default"]
    headings = ["base", "method", "shared", *speed, "ours, peak MB", "tuned", "default"]
    return f"{text}{'' if measured['gpu'] else _ON_CPU}\n\n{markdown_table(headings, rows, left=2)}"


def _whole(whole: dict[str, Any]) -> str:
    text = (
        f"End to end, start-up included: {whole['rows']} rows, one epoch of {whole['steps']} steps for each "
        f"method, shared {whole['shared']}, base {whole['size']}. Ours is one process: `fit` of all three "
        "methods, from a log to a finished run folder, with one row for validation and no samples. TRL's "
        "are three, tuned, without any evaluation."
    )
    seconds = whole["seconds"]
    row = [*seconds.values(), whole["trl_seconds"]]
    cells = [f"{each:.1f} s" for each in row]
    headings = ["ours", "TRL: SFT", "DPO", "both losses", "TRL together", "TRL / ours", "goal"]
    cells += [f"{whole['times_as_fast']:.2f}×", f"{whole['goal']:.1f}×"]
    return f"{text}\n\n{markdown_table(headings, [cells], left=0)}"


def _rl(results: list[dict[str, Any]]) -> str:
    text = (
        f"RL with {NUM_SAMPLES} sampled completions beside edit and response, by pairwise regression, "
        "compared with DPO on the same rows; both are ours. `tokens` is the number of distinct tokens of "
        "its trees, in ratio to DPO's. On made-up rows each sampled completion is as long as the response "
        "and shares only the context with the others. The last rows are the lab's, with a weak user's edits "
        "and the base's own responses."
    )
    rows = [
        [
            each["size"],
            "" if each["shared"] is None else str(each["shared"]),
            f"{each['tokens']:.2f}×",
            f"{each['rl']:.2f}",
            f"{each['dpo']:.2f}",
            f"{each['times']:.2f}×",
            f"{each['goal']:.1f}×",
        ]
        for each in results
    ]
    headings = ["base", "shared", "tokens", "RL, s", "DPO, s", "RL / DPO", "goal, at most"]
    return f"{text}\n\n{markdown_table(headings, rows)}"


def _passes(passes: dict[str, Any]) -> str:
    return (
        f"The reference pass over {passes['rows']} rows, base {passes['size']}, shared {passes['shared']}, "
        f"took {passes['reference']:.1f} s, and {passes['features']:.1f} s with features; to fit the cost "
        f"model and predict with it took {passes['cost_model']:.1f} s. Both add {passes['added']:.0%} "
        f"(goal: at most {passes['goal']:.0%})."
    )


def _step(step: dict[str, Any]) -> str:
    return (
        f"A whole `fit` of one step of DPO, {step['rows']} rows of about {step['tokens']} tokens, shared "
        f"{step['shared']}, with a random base of size {step['size']} (vocabulary and layers of Qwen2.5), no "
        f"flag set but the number of rows: {step['peak_mb'] / 1000:.1f} GB at its peak (goal: at most "
        f"{step['goal_mb'] / 1000:.0f} GB), {step['seconds'] / 60:.1f} min."
    )
