"""How fast policies are trained, and in how much memory, held against TRL.

Three arms on the same base, LoRA, rows, batches and order: `ours`; `trl tuned`, with the reference
precomputed, no gradient checkpointing and, on a CPU, no bf16; `trl default`, as TRL comes. Each measurement
is a process of its own; the arms take turns, several times; medians are reported. Speed is in tokens of the
separate sequences per second, so the same count for all arms.

This module starts processes and sums up; what they do is in `train_arms`, what they train on in
`train_workload`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.train_arms import LAB, NUM_SAMPLES, VALIDATION, WARM_UP, Spec
from editloop.errors import ConfigError, RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

ARMS = ("ours", "trl tuned", "trl default")
GOALS = {0.0: 1.0, 0.5: 1.4, 0.75: 1.8}
"""Times as fast as tuned TRL at a shared fraction, for DPO."""
WHOLE_GOAL = 2.0
CHOICE_GOAL, PASS_GOAL = 2.5, 0.1
"""At most so many times the seconds of DPO for RL, and of the reference pass for the cost model on top."""
METHODS = ("sft", "dpo", "early")
_ON_CPU = (
    " Ours gains by what is shared, by little padding, and by the output embedding at counted tokens only; "
    "TRL 1.16 has it at every place on a CPU, padding too, and at counted tokens on a GPU, where the ratios "
    "will be others."
)


def run(
    out: str | Path,
    *,
    repeats: int = 3,
    steps: int = 3,
    shared: Sequence[float] = (0.0, 0.25, 0.5, 0.75),
    whole_steps: int = 6,
    pass_steps: int = 40,
    sizes: Sequence[str] = ("0.5b", "1.5b", "3b", "8b"),
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `train-speed.json` and `train-speed.md`; with a GPU its name is in the files'.

    Args:
        out: The folder for the results.
        repeats: Turns of the arms.
        steps: Timed optimiser steps of each turn.
        shared: Shared fractions for DPO; SFT is measured at the middle one.
        whole_steps: Optimiser steps of each method, end to end.
        pass_steps: Batches that the reference passes over, and that the cost model learns from.
        sizes: Bases to take where there is a GPU; without one they are left out, and a small one is taken.
        callback: Receives progress.

    Raises:
        ConfigError: TRL is missing, or a size is unknown.
        RunError: A measurement failed.
    """
    import torch

    from benchmarks.train_workload import SIZES

    callback = callback or WarningCallback()
    _require(sizes, SIZES)
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    if gpu is None:
        callback.message(f"no GPU here: the sizes {', '.join(sizes)} are left out")
    taken = list(sizes) if gpu else ["10m"]
    middle = sorted(shared)[len(shared) // 2]
    cells = [(size, "dpo", each) for size in taken for each in shared]
    cells += [(size, "sft", middle) for size in taken]
    results: list[dict[str, Any]] = []
    chosen = [(size, each) for size in taken for each in shared] + [(domain, 0.0) for domain in LAB]
    total = repeats * (len(cells) * len(ARMS) + 2 * len(chosen) + 1 + len(METHODS) + 1)
    made = 0

    def done() -> None:
        nonlocal made
        made += 1
        callback.progress("measurements", made, total)

    for size, method, each in cells:
        spec = Spec("", (method,), "", size, each, steps)
        results.append(_rates(spec, repeats, done))
    choices = [_choice(*each, steps, repeats, done) for each in chosen]
    passes = _passes(taken[0], middle, pass_steps, repeats, done)
    whole = _end_to_end(taken[0], middle, whole_steps, repeats, done)
    measured = {
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "left_out": [] if gpu else list(sizes),
        "repeats": repeats,
        "steps": steps,
        "goals": {str(fraction): goal for fraction, goal in GOALS.items()},
        "rates": results,
        "choices": choices,
        "passes": passes,
        "whole": whole,
    }
    name = f"train-speed-{gpu.lower().replace(' ', '-')}" if gpu else "train-speed"
    write_result(name, measured, _markdown(measured), out)
    return measured


def _require(sizes: Sequence[str], known: dict[str, Any]) -> None:
    if unknown := [size for size in sizes if size not in known]:
        raise ConfigError("unknown size", seen=unknown[0], do=f"choose --sizes of {', '.join(known)}")
    try:
        import trl  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a benchmark's library is missing", seen="trl", do="install editloop[bench]"
        ) from None


def _process(spec: Spec) -> dict[str, Any]:
    """Run an arm in a process of its own, in a fresh folder, and return what it measured.

    Raises:
        RunError: It failed; the end of what it said is in the error.
    """
    with tempfile.TemporaryDirectory() as folder:
        caches = {"HF_DATASETS_CACHE": f"{folder}/datasets", "EDITLOOP_CACHE": f"{folder}/editloop"}
        environment = os.environ | caches | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", "benchmarks.train_arms", replace(spec, folder=folder).to_json()]
        start = time.perf_counter()
        child = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - start
    if child.returncode:
        raise RunError(
            f"{spec.arm} failed at {spec.size}, {'+'.join(spec.methods)}", seen=child.stderr[-2000:]
        )
    measured: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return measured | {"wall": wall}


def _rates(spec: Spec, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Tokens per second and peak memory of each arm on one method, size and shared fraction."""
    from benchmarks.train_workload import SIZES, count_tokens, make_pairs

    size = SIZES[spec.size]
    rows = make_pairs(size.batch * (WARM_UP + spec.steps), tokens=size.tokens, shared=spec.shared)
    tokens = sum(count_tokens(row, spec.methods[0]) for row in rows[size.batch * WARM_UP :])
    turns: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for _ in range(repeats):
        for arm in ARMS:
            turns[arm].append(_process(replace(spec, arm=arm)))
            done()

    def median(arm: str, of: str) -> float:
        return float(statistics.median(turn[of] for turn in turns[arm]))

    seconds = {arm: median(arm, "seconds") for arm in ARMS}
    return {
        "size": spec.size,
        "method": spec.methods[0],
        "shared": spec.shared,
        "tokens": tokens,
        "tokens_per_second": {arm: tokens / seconds[arm] for arm in ARMS},
        "peak_mb": {arm: median(arm, "peak_mb") for arm in ARMS},
        "times_as_fast_as": {arm: seconds[arm] / seconds["ours"] for arm in ARMS[1:]},
        "goal": GOALS.get(spec.shared) if spec.methods == ("dpo",) else None,
        "turns": turns,
    }


def _choice(size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Seconds of RL against those of DPO on the same rows, and distinct tokens of its trees against DPO's."""
    turns: dict[str, list[dict[str, Any]]] = {"rl": [], "dpo": []}
    for _ in range(repeats):
        for method, mine in turns.items():
            mine.append(_process(Spec("ours", (method,), "", size, shared, steps)))
            done()
    seconds = {method: statistics.median(turn["seconds"] for turn in mine) for method, mine in turns.items()}
    return {
        "size": size,
        "shared": None if size in LAB else shared,
        **seconds,
        "times": seconds["rl"] / seconds["dpo"],
        "tokens": turns["rl"][0]["tokens"] / turns["dpo"][0]["tokens"],
        "goal": CHOICE_GOAL,
    }


def _passes(size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Seconds of the reference pass, and what features and cost model add to it."""
    turns = []
    for _ in range(repeats):
        turns.append(_process(Spec("ours", ("pass",), "", size, shared, steps)))
        done()
    found = {key: statistics.median(t[key] for t in turns) for key in ("reference", "features", "cost_model")}
    added = statistics.median(
        (t["features"] - t["reference"] + t["cost_model"]) / t["reference"] for t in turns
    )
    return {
        "size": size,
        "shared": shared,
        "rows": turns[0]["rows"],
        **found,
        "added": added,
        "goal": PASS_GOAL,
    }


def _end_to_end(
    size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]
) -> dict[str, Any]:
    """Seconds from the start of a process to its end: one `fit` of all methods, and TRL's three trainings."""
    import torch

    from benchmarks.train_workload import SIZES, build_base, build_tokenizer, make_pairs
    from editloop.edits import split

    with tempfile.TemporaryDirectory() as folder:
        base, log, rest = Path(folder) / "base", Path(folder) / "log.jsonl", Path(folder) / "train.jsonl"
        build_base(size, "cuda" if torch.cuda.is_available() else "cpu").save_pretrained(base)
        build_tokenizer().save_pretrained(base)
        rows = make_pairs(steps * SIZES[size].batch + 1, tokens=SIZES[size].tokens, shared=shared)
        train = split(rows, validation=VALIDATION).train
        for file, part in ((log, rows), (rest, train)):
            lines = (row.model_dump_json(include={"id", "context", "response", "edit"}) for row in part)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        ours = Spec("ours", METHODS, "", size, log=str(log), base=str(base))
        theirs = [Spec("trl tuned", (m,), "", size, log=str(rest), base=str(base)) for m in METHODS]
        turns: list[dict[str, float]] = []
        for _ in range(repeats):
            turn = {}
            for name, spec in [("ours", ours), *zip(METHODS, theirs, strict=True)]:
                turn[name] = _process(spec)["wall"]
                done()
            turns.append(turn)
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    together = statistics.median(sum(turn[method] for method in METHODS) for turn in turns)
    return {
        "size": size,
        "shared": shared,
        "rows": len(train),
        "steps": len(train) // SIZES[size].batch,
        "seconds": seconds,
        "trl_seconds": together,
        "times_as_fast": together / seconds["ours"],
        "goal": WHOLE_GOAL,
        "turns": turns,
    }


def _markdown(measured: dict[str, Any]) -> str:
    rates, whole = measured["rates"], measured["whole"]
    where = f"on {measured['gpu']}" if measured["gpu"] else "on the CPU"
    lines = [
        "The same base with random weights, LoRA of rank 16 on all linear layers, made-up rows of lognormal "
        "lengths, the same batches in the same order. `tuned`: TRL with the reference precomputed, no "
        "gradient checkpointing and, on a CPU, no bf16; `default`: TRL as it comes (bf16, gradient "
        "checkpointing, reference not precomputed). Tokens are those of the separate sequences; `shared` is "
        "the part of a sequence's tokens that edit and response have in common. Medians of "
        f"{measured['repeats']} turns of {measured['steps']} steps, {where}."
        + ("" if measured["gpu"] else _ON_CPU),
        "",
        "| base | method | shared | ours, tokens/s | tuned | default | ours / tuned | goal | ours / default "
        "| ours, peak MB | tuned | default |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in rates:
        speed = " | ".join(f"{each['tokens_per_second'][arm]:,.0f}" for arm in ARMS)
        memory = " | ".join(f"{each['peak_mb'][arm]:,.0f}" for arm in ARMS)
        times = each["times_as_fast_as"]
        goal = f"{each['goal']:.1f}×" if each["goal"] else ""
        lines.append(
            f"| {each['size']} | {each['method']} | {each['shared']} | {speed} | {times['trl tuned']:.2f}× "
            f"| {goal} | {times['trl default']:.2f}× | {memory} |"
        )
    seconds = whole["seconds"]
    lines += [
        "",
        f"End to end, start-up included: {whole['rows']} rows, one epoch of {whole['steps']} steps for each "
        f"method, shared {whole['shared']}, base {whole['size']}. Ours is one process, `fit` of all three "
        "methods from a log to a finished run folder, with one row to validate on and nothing sampled; TRL's "
        "are three, tuned, without any evaluation.",
        "",
        "| ours | TRL: SFT | DPO | both losses | TRL together | TRL / ours | goal |",
        "|--:|--:|--:|--:|--:|--:|--:|",
        f"| {seconds['ours']:.1f} s | "
        + " | ".join(f"{seconds[method]:.1f} s" for method in METHODS)
        + f" | {whole['trl_seconds']:.1f} s | {whole['times_as_fast']:.2f}× | {whole['goal']:.1f}× |",
    ]
    passes = measured["passes"]
    choices = [
        [
            each["size"],
            "" if each["shared"] is None else str(each["shared"]),
            f"{each['tokens']:.2f}×",
            f"{each['rl']:.2f}",
            f"{each['dpo']:.2f}",
            f"{each['times']:.2f}×",
            f"{each['goal']:.1f}×",
        ]
        for each in measured["choices"]
    ]
    lines += [
        "",
        f"RL with {NUM_SAMPLES} sampled completions beside edit and response, by pairwise regression, "
        "against DPO on the same rows, both ours; `tokens`: how many times as many distinct ones its trees "
        "have. On made-up rows what is sampled is as long as the response and shares the context only; the "
        "last rows are the lab's, weak edits and the base's own responses.",
        "",
        markdown_table(["base", "shared", "tokens", "RL, s", "DPO, s", "RL / DPO", "goal, at most"], choices),
        "",
        f"The reference pass over {passes['rows']} rows, base {passes['size']}, shared {passes['shared']}: "
        f"{passes['reference']:.1f} s; with features {passes['features']:.1f} s; the cost model, fitted and "
        f"asked, {passes['cost_model']:.1f} s. Added: {passes['added']:.0%} (goal: at most "
        f"{passes['goal']:.0%}).",
    ]
    if measured["left_out"]:
        lines += ["", f"Left out for want of a GPU: {', '.join(measured['left_out'])}."]
    return "\n".join(lines)
