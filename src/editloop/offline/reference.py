"""The reference pass: log π_ref of every continuation, once for all methods, seeds and settings.

The numbers are cached by content (the base's weights, the dtype, every token), so a second fit of the
same log on the same base, whatever its settings, runs no reference forward at all.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from editloop.offline.examples import Example
from editloop.policy import Policy, processes

__all__ = ["cache_folder", "reference_pass"]


def cache_folder() -> Path:
    """Where reference passes are cached: `EDITLOOP_CACHE`, or `editloop` in the user's cache folder."""
    if "EDITLOOP_CACHE" in os.environ:
        return Path(os.environ["EDITLOOP_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "editloop"


def reference_pass(
    policy: Policy,
    examples: Sequence[Example],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Example], bool]:
    """The examples with log π_ref filled in, and whether the cache had them.

    The work is shared among the processes of a distributed run.

    Args:
        policy: The base (or a policy whose adapter is switched off meanwhile).
        examples: To be scored.
        cache: Folder of cached passes; by default `cache_folder()`. A cache that cannot be read or
            written costs time, never the run.
        progress: Called with the number of this process's examples done.
    """
    if not examples:
        return [], True
    state = processes(policy.device)
    file = (cache or cache_folder()) / "reference" / f"{_key(policy, examples)}.safetensors"
    # One process looks for all: machines without a common cache folder must not part ways here.
    found = broadcast_object_list([_read(file, examples) if state.is_main_process else None])[0]
    if cached := found is not None:
        table = found
    else:
        mine = examples[state.process_index :: state.num_processes]
        with policy.reference():
            table = _score(policy, mine, progress)
        if state.num_processes > 1:
            gathered = np.empty((len(examples), 2))
            for rank, part in enumerate(gather_object([table])):
                gathered[rank :: state.num_processes] = part
            table = gathered
        if state.is_main_process:
            _write(file, table)
    return [
        replace(example, reference=(chosen, rejected if example.is_pair else None))
        for example, (chosen, rejected) in zip(examples, table.tolist(), strict=True)
    ], cached


def _score(
    policy: Policy, examples: Sequence[Example], progress: Callable[[int], None] | None
) -> NDArray[np.float64]:
    """log π_ref as [n, 2]: the edit's and the response's, NaN where there is no pair."""
    table = np.full((len(examples), 2), np.nan)
    for i, scores in enumerate(policy.log_probs([e.tree for e in examples], progress=progress)):
        table[i, : len(scores)] = scores
    return table


def _key(policy: Policy, examples: Sequence[Example]) -> str:
    dtype = next(p.dtype for p in policy.model.parameters() if p.is_floating_point())
    digest = hashlib.sha256(f"1 {policy.fingerprint} {dtype}".encode())
    for example in examples:
        for ids in (example.tree.context, *example.tree.continuations):
            digest.update(np.array([len(ids), *ids], np.int64).tobytes())
    return digest.hexdigest()[:32]


def _read(file: Path, examples: Sequence[Example]) -> NDArray[np.float64] | None:
    """The cached table; None if there is none, or one that cannot be these examples'."""
    try:
        table = load_file(file)["log_probs"]
    except (OSError, SafetensorError, KeyError):
        return None
    expected = np.array([(True, example.is_pair) for example in examples])
    return table if table.shape == expected.shape and (np.isfinite(table) == expected).all() else None


def _write(file: Path, table: NDArray[np.float64]) -> None:
    fresh = file.with_suffix(f".{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file({"log_probs": table}, fresh)
        fresh.replace(file)
    except (OSError, SafetensorError):
        with suppress(OSError):
            fresh.unlink()
