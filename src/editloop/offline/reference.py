"""The reference pass: log π_ref of every continuation, once for all methods, seeds and settings.

With it come the features of the cost model, where one is to be fitted. The numbers are cached by content
(the base's weights, the dtype, every token), so a second fit of the same log on the same base runs no
reference forward at all; with RL only if it draws the same responses.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from editloop.errors import EditLoopError
from editloop.io import atomic_file
from editloop.offline.examples import Completions, Example
from editloop.policy import ContextTree, Policy, processes

__all__ = ["Scored", "cache_folder", "feature_pass", "on_all_processes", "reference_of", "reference_pass"]

S = TypeVar("S")
T = TypeVar("T")


class Scored(NamedTuple):
    """What the reference says of one tree's continuations.

    Attributes:
        log_probs: log π_ref of each [K].
        features: Of each, float32 [K, F]; F is 0 where none were asked for.
    """

    log_probs: tuple[float, ...]
    features: NDArray[np.float32]


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
    """The examples with log π_ref of edit and response filled in, and whether the cache had them.

    Arguments are as of `reference_of`.
    """
    found, known = reference_of(policy, [e.completions for e in examples], cache=cache, progress=progress)
    return [replace(e, completions=own) for e, own in zip(examples, found, strict=True)], known


def reference_of(
    policy: Policy,
    completions: Sequence[Completions],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Completions], bool]:
    """Completions with log π_ref filled in, and whether the cache had them.

    The work is shared among the processes of a distributed run.

    Args:
        policy: The base (or a policy whose adapter is switched off meanwhile).
        completions: Of n contexts.
        cache: Folder of cached passes; by default `cache_folder()`. A cache that cannot be read or
            written costs time, never the run.
        progress: Called with the number of this process's contexts done.
    """
    found, known = _pass(policy, [each.tree for each in completions], False, cache, progress)
    return [
        each.with_reference(scored.log_probs) for each, scored in zip(completions, found, strict=True)
    ], known


def feature_pass(
    policy: Policy,
    trees: Sequence[ContextTree],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Scored], bool]:
    """log π_ref and features of every continuation; arguments as of `reference_of`."""
    return _pass(policy, trees, True, cache, progress)


def _pass(
    policy: Policy,
    trees: Sequence[ContextTree],
    features: bool,
    cache: Path | None,
    progress: Callable[[int], None] | None,
) -> tuple[list[Scored], bool]:
    if not trees:
        return [], True
    state = processes(policy.device)
    file = (cache or cache_folder()) / "reference" / f"{_key(policy, trees, features)}.safetensors"
    # One process looks for all: machines without a common cache folder must not part ways here.
    found = broadcast_object_list([_read(file, trees, features) if state.is_main_process else None])[0]
    if found is not None:
        return found, True
    with policy.reference():
        found = on_all_processes(policy.device, trees, lambda mine: _score(policy, mine, features, progress))
    if state.is_main_process:
        _write(file, found)
    return found, False


def on_all_processes(
    device: torch.device, items: Sequence[S], work: Callable[[Sequence[S]], Sequence[T]]
) -> list[T]:
    """What `work` makes of each item; every process does its share and gets all of it."""
    state = processes(device)
    found = work(items[state.process_index :: state.num_processes])
    if state.num_processes == 1:
        return list(found)
    gathered: dict[int, T] = {}  # a process may have no share
    for rank, part in enumerate(gather_object([found])):
        gathered |= zip(range(rank, len(items), state.num_processes), part, strict=True)
    return [gathered[i] for i in range(len(items))]


def _score(
    policy: Policy, trees: Sequence[ContextTree], features: bool, progress: Callable[[int], None] | None
) -> list[Scored]:
    if features:
        return [
            Scored(tuple(scores), table)
            for scores, table in zip(*policy.features(trees, progress=progress), strict=True)
        ]
    scored = policy.log_probs(trees, progress=progress)
    return [Scored(tuple(scores), np.empty((len(scores), 0), np.float32)) for scores in scored]


def _key(policy: Policy, trees: Sequence[ContextTree], features: bool) -> str:
    dtype = next(p.dtype for p in policy.model.parameters() if p.is_floating_point())
    digest = hashlib.sha256(f"4 {policy.fingerprint} {dtype} {features}".encode())
    for tree in trees:
        for ids in (tree.context, *tree.continuations):
            digest.update(np.array([len(ids), *ids], np.int64).tobytes())
        digest.update(b"|")
    return digest.hexdigest()[:32]


def _read(file: Path, trees: Sequence[ContextTree], features: bool) -> list[Scored] | None:
    """The cached figures; None if there are none, or ones that cannot be these trees'."""
    try:
        content = load_file(file)
        log_probs, table = content["log_probs"], content["features"]
    except (OSError, SafetensorError, KeyError):
        return None
    counts = [len(tree.continuations) for tree in trees]
    fits = log_probs.shape == (sum(counts),) and table.shape[:1] == log_probs.shape
    if not fits or not np.isfinite(log_probs).all() or (table.shape[1] > 0) != features:
        return None
    ends = np.cumsum(counts)
    return [
        Scored(tuple(log_probs[end - n : end].tolist()), table[end - n : end])
        for n, end in zip(counts, ends, strict=True)
    ]


def _write(file: Path, found: Sequence[Scored]) -> None:
    content = {
        "log_probs": np.concatenate([np.array(each.log_probs, np.float64) for each in found]),
        "features": np.concatenate([each.features for each in found]),
    }
    # A cache that cannot be written costs time, not the fit.
    with suppress(EditLoopError), atomic_file(file, failures=(SafetensorError,)) as unfinished:
        save_file(content, unfinished)
