"""How fast policies are trained, and in how much memory, compared with TRL.

Three arms train on the same base, LoRA, rows, batches and order: `ours`; `trl tuned`, with the reference
precomputed, no gradient checkpointing and, on a CPU, no bf16; and `trl default`, as TRL comes. Each
measurement is a process of its own. The arms take turns, several times, and medians are reported. Speed is
counted in tokens of the separate sequences per second, so that the number of tokens is the same for all arms.

This module starts the processes and sums up. `train_spec` says what a process can measure, `own_arm` and
`trl_arm` do it on the rows of `train_workload`, and `train_speed_page` writes the page.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.processes import in_process
from benchmarks.train_spec import LAB, VALIDATION, WARM_UP, Spec, device, make_rows, write_rows
from benchmarks.train_speed_page import ARMS, page
from editloop.errors import ConfigError
from editloop.policy.bases import resolve_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

STEP_GOAL_MB = 24_000
"""The memory in which a step of a base with 0.5 billion parameters should fit, untold."""
GOALS = {0.0: 1.0, 0.5: 1.4, 0.75: 1.8}
"""By shared fraction, how many times as fast as tuned TRL DPO should be at least."""
WHOLE_GOAL = 2.0
"""How many times as fast as TRL the training of three policies should be at least, end to end."""
RL_GOAL = 2.5
"""How many times the seconds of DPO RL should take at most."""
PASS_GOAL = 0.1
"""What features and cost model should add at most, as a share of the reference pass's seconds."""
METHODS = ("sft", "dpo", "early")


def run(
    out: str | Path,
    *,
    repeats: int = 3,
    steps: int = 3,
    shared: Sequence[float] = (0.0, 0.25, 0.5, 0.75),
    whole_steps: int = 6,
    pass_steps: int = 40,
    sizes: Sequence[str] = ("0.5b", "1.5b", "3b", "8b"),
    base: str | None = None,
    step_size: str = "0.5b",
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `train-speed.json` and `train-speed.md`.

    The files' names end in that of the base, if one is given, and in that of the GPU, if there is one.

    Args:
        out: The folder for the results.
        repeats: How often each arm takes its turn.
        steps: Timed optimiser steps of each turn.
        shared: Shared fractions for DPO; SFT is measured at the middle one.
        whole_steps: Optimiser steps of each method, end to end.
        pass_steps: Batches of the reference pass, which are also the rows of the cost model.
        sizes: The bases to measure on a GPU; without a GPU they are left out, and a small base is measured.
        base: A base to measure instead, with the weights and the shape of a real one; its rows are made up,
            as for the others.
        step_size: The base of which a single step is measured, on rows as long as LAMP's.
        callback: Receives progress.

    Raises:
        ConfigError: TRL is missing, or a size or the base is unknown.
        RunError: A measurement failed.
    """
    import torch

    from benchmarks.train_workload import SIZES

    callback = callback or WarningCallback()
    require_trl()
    if unknown := [size for size in sizes if size not in SIZES]:
        raise ConfigError("unknown size", seen=unknown[0], do=f"choose --sizes of {', '.join(SIZES)}")
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    left_out = [] if gpu or base else list(sizes)
    if left_out:
        callback.message(f"no GPU here: the sizes {', '.join(sizes)} are left out")
    taken = [str(resolve_base(base).place)] if base else list(sizes) if gpu else ["10m"]
    middle = sorted(shared)[len(shared) // 2]
    cells = [(size, "dpo", each) for size in taken for each in shared]
    cells += [(size, "sft", middle) for size in taken]
    rl_cells = [(size, each) for size in taken for each in shared]
    rl_cells += [] if base else [(domain, 0.0) for domain in LAB]
    total = repeats * (len(cells) * len(ARMS) + 2 * len(rl_cells) + 1 + len(METHODS) + 1) + 1
    done = _count(total, callback)
    step = _one_step(step_size, done)  # first, because it fails where there is too little memory
    measured = {
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "left_out": left_out,
        "repeats": repeats,
        "steps": steps,
        "goals": {str(fraction): goal for fraction, goal in GOALS.items()},
        "rates": [_rates(Spec("", (m,), "", size, each, steps), repeats, done) for size, m, each in cells],
        "rl": [_rl(*each, steps, repeats, done) for each in rl_cells],
        "passes": _passes(taken[0], middle, pass_steps, repeats, done),
        "whole": _end_to_end(taken[0], middle, whole_steps, repeats, done),
        "step": step,
    }
    parts = ["train-speed", *([_name(taken[0])] if base else []), *([gpu] if gpu else [])]
    name = "-".join(parts).lower().replace(" ", "-")
    write_result(name, measured, page(measured), out)
    return measured


def _name(size: str) -> str:
    """Return the name of a base without the folders above it."""
    return Path(size).name


def _count(total: int, callback: ProgressCallback) -> Callable[[], None]:
    """Return a function to call after each measurement, which reports the progress."""
    made = itertools.count(1)
    return lambda: callback.progress("measurements", next(made), total)


def require_trl() -> None:
    """Check that TRL is installed.

    Raises:
        ConfigError: It is not.
    """
    try:
        import trl  # noqa: F401
    except ImportError:
        raise ConfigError(
            "a benchmark's library is missing", seen="trl", do="install editloop[bench]"
        ) from None


def process(spec: Spec) -> dict[str, Any]:
    """Run an arm in a process of its own, with an empty folder, and return what it measured.

    Raises:
        RunError: It failed.
    """
    name = f"{spec.arm} at {spec.size}, {'+'.join(spec.methods)},"
    return in_process("benchmarks.train_arms", lambda folder: replace(spec, folder=folder).to_json(), name)


def _rates(spec: Spec, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Return tokens per second and peak memory of each arm, for one method, size and shared fraction."""
    from benchmarks.train_workload import count_tokens

    rows, batch = make_rows(spec)
    tokens = sum(count_tokens(row, spec.methods[0]) for row in rows[batch * WARM_UP :])
    turns: dict[str, list[dict[str, Any]]] = {arm: [] for arm in ARMS}
    for _ in range(repeats):
        for arm in ARMS:
            turns[arm].append(process(replace(spec, arm=arm)))
            done()

    def median(arm: str, of: str) -> float:
        return float(statistics.median(turn[of] for turn in turns[arm]))

    seconds = {arm: median(arm, "seconds") for arm in ARMS}
    return {
        "size": _name(spec.size),
        "method": spec.methods[0],
        "shared": spec.shared,
        "tokens": tokens,
        "tokens_per_second": {arm: tokens / seconds[arm] for arm in ARMS},
        "peak_mb": {arm: median(arm, "peak_mb") for arm in ARMS},
        "times_as_fast_as": {arm: seconds[arm] / seconds["ours"] for arm in ARMS[1:]},
        "goal": GOALS.get(spec.shared) if spec.methods == ("dpo",) else None,
        "turns": turns,
    }


def _rl(size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Return the seconds and the distinct tokens of RL, in ratio to those of DPO on the same rows."""
    turns: dict[str, list[dict[str, Any]]] = {"rl": [], "dpo": []}
    for _ in range(repeats):
        for method, measured in turns.items():
            measured.append(process(Spec("ours", (method,), "", size, shared, steps)))
            done()
    seconds = {
        method: statistics.median(turn["seconds"] for turn in measured) for method, measured in turns.items()
    }
    return {
        "size": _name(size),
        "shared": None if size in LAB else shared,
        **seconds,
        "times": seconds["rl"] / seconds["dpo"],
        "tokens": turns["rl"][0]["tokens"] / turns["dpo"][0]["tokens"],
        "goal": RL_GOAL,
    }


def _passes(size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]) -> dict[str, Any]:
    """Return the seconds of the reference pass, and what features and cost model add to it."""
    turns = []
    for _ in range(repeats):
        turns.append(process(Spec("ours", ("pass",), "", size, shared, steps)))
        done()
    found = {key: statistics.median(t[key] for t in turns) for key in ("reference", "features", "cost_model")}
    added = statistics.median(
        (t["features"] - t["reference"] + t["cost_model"]) / t["reference"] for t in turns
    )
    return {
        "size": _name(size),
        "shared": shared,
        "rows": turns[0]["rows"],
        **found,
        "added": added,
        "goal": PASS_GOAL,
    }


def _end_to_end(
    size: str, shared: float, steps: int, repeats: int, done: Callable[[], None]
) -> dict[str, Any]:
    """Return the seconds of whole processes: one `fit` of all methods, and TRL's three trainings."""
    from benchmarks.train_workload import make_pairs, workload
    from editloop.edits import split

    tokens, batch = workload(size)
    with tempfile.TemporaryDirectory() as folder:
        rows = make_pairs(steps * batch + 1, tokens=tokens, shared=shared)
        train = split(rows, validation=VALIDATION).train
        base = _write_base(size, Path(folder) / "base")
        log = write_rows(rows, Path(folder) / "log.jsonl")
        rest = write_rows(train, Path(folder) / "train.jsonl")
        ours = Spec("ours", METHODS, "", size, log=log, base=base)
        theirs = [Spec("trl tuned", (m,), "", size, log=rest, base=base) for m in METHODS]
        turns: list[dict[str, float]] = []
        for _ in range(repeats):
            turn = {}
            for name, spec in [("ours", ours), *zip(METHODS, theirs, strict=True)]:
                turn[name] = process(spec)["wall"]
                done()
            turns.append(turn)
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in turns[0]}
    together = statistics.median(sum(turn[method] for method in METHODS) for turn in turns)
    return {
        "size": _name(size),
        "shared": shared,
        "rows": len(train),
        "steps": len(train) // batch,
        "seconds": seconds,
        "trl_seconds": together,
        "times_as_fast": together / seconds["ours"],
        "goal": WHOLE_GOAL,
        "turns": turns,
    }


def _one_step(size: str, done: Callable[[], None]) -> dict[str, Any]:
    """Return the memory and the time of a `fit` of one DPO step, which chooses its micro-batch by itself."""
    from benchmarks.train_workload import LAMP_SHARED, LAMP_TOKENS, make_pairs, workload

    _, batch = workload(size)
    with tempfile.TemporaryDirectory() as folder:
        rows = make_pairs(batch + 1, tokens=LAMP_TOKENS, shared=LAMP_SHARED)
        base = _write_base(size, Path(folder) / "base")
        log = write_rows(rows, Path(folder) / "log.jsonl")
        measured = process(Spec("ours", ("dpo",), "", size, log=log, base=base))
    done()
    about = {"size": size, "rows": batch, "tokens": LAMP_TOKENS, "shared": LAMP_SHARED}
    return about | {"seconds": measured["wall"], "peak_mb": measured["peak_mb"], "goal_mb": STEP_GOAL_MB}


def _write_base(size: str, folder: Path) -> str:
    """Write a base with the tokenizer of the made-up rows, and return its folder."""
    from benchmarks.train_workload import build_base, build_tokenizer

    build_base(size, device()).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return str(folder)
