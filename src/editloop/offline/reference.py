"""The reference pass: log π_ref of every continuation, computed once for all methods, seeds and settings.

The reference is the base, or the policy that wrote a row (`logging_policies`). The same pass computes the
features of the cost model, if there is one. The reference never changes during a fit, and tuning a method
means fitting the same log many times, so the numbers are cached on disk: a second fit runs no forward of the
reference at all. The key is a hash of everything that the numbers depend on: the weights of the base and of
the policy, the dtype and every token. It cannot go stale when files are moved, renamed or changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
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
from editloop.io import atomic_file, cache_folder
from editloop.offline.examples import Completions, Example
from editloop.policy import ContextTree, Policy, processes

__all__ = [
    "Scored",
    "Scorer",
    "cache_folder",
    "feature_pass",
    "on_all_processes",
    "reference_of",
    "reference_pass",
    "with_reference",
]

S = TypeVar("S")
T = TypeVar("T")


class Scored(NamedTuple):
    """The reference's figures of one tree's continuations.

    Attributes:
        log_probs: log π_ref of each [K].
        features: Features of each, float32 [K, F]; F is 0 if none were asked for.
    """

    log_probs: tuple[float, ...]
    features: NDArray[np.float32]


class Scorer(NamedTuple):
    """A policy in place of the base as the reference.

    Attributes:
        fingerprint: What identifies its weights, beside the base's.
        load: Returns a context in which it is loaded; it is not called if the cache has all figures.
    """

    fingerprint: str
    load: Callable[[], AbstractContextManager[Policy]]


def reference_pass(
    policy: Policy,
    examples: Sequence[Example],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Example], bool]:
    """Compute log π_ref of the edit and the response of examples; arguments are those of `reference_of`.

    Returns:
        The examples with log π_ref, and whether it came from the cache.
    """
    found, known = reference_of(policy, [e.completions for e in examples], cache=cache, progress=progress)
    return [replace(e, completions=own) for e, own in zip(examples, found, strict=True)], known


def reference_of(
    policy: Policy,
    completions: Sequence[Completions],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
    scorer: Scorer | None = None,
) -> tuple[list[Completions], bool]:
    """Compute log π_ref of completions, with the work shared among the processes of a distributed run.

    Args:
        policy: The base, or a policy whose adapter is switched off meanwhile.
        completions: The completions of n contexts.
        cache: The folder of cached passes; by default `cache_folder()`. If it cannot be read or written, the
            pass is computed again, and the fit goes on.
        progress: Called with the number of this process's contexts done so far.
        scorer: The policy that is the reference; by default the base.

    Returns:
        The completions with log π_ref [n], and whether it came from the cache.
    """
    found, known = _pass(policy, [each.tree for each in completions], False, cache, progress, scorer)
    return [
        each.with_reference(scored.log_probs) for each, scored in zip(completions, found, strict=True)
    ], known


def with_reference(examples: Sequence[Example], scored: Sequence[Scored]) -> list[Example]:
    """The examples with log π_ref of their completions, from `feature_pass` on their trees [n]."""
    rows = zip(examples, scored, strict=True)
    return [replace(e, completions=e.completions.with_reference(each.log_probs)) for e, each in rows]


def feature_pass(
    policy: Policy,
    trees: Sequence[ContextTree],
    *,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[list[Scored], bool]:
    """Compute log π_ref and features of every continuation of trees; other arguments as for `reference_of`.

    Returns:
        The figures of each tree, and whether they came from the cache.
    """
    return _pass(policy, trees, True, cache, progress)


def on_all_processes(
    device: torch.device, items: Sequence[S], work: Callable[[Sequence[S]], Sequence[T]]
) -> list[T]:
    """Share work among the processes of a distributed run.

    Args:
        device: The device of this process.
        items: The items, the same in every process [n].
        work: Computes a result for each of the items it is given.

    Returns:
        The result of every item, in every process [n].
    """
    state = processes(device)
    # Every n-th item and not a block of items: if lengths drift along the list, the shares stay alike.
    found = work(items[state.process_index :: state.num_processes])
    if state.num_processes == 1:
        return list(found)
    # Results are put in place by index, because the shares may differ in length, and with few items some are
    # empty.
    gathered: dict[int, T] = {}
    for rank, part in enumerate(gather_object([found])):
        gathered |= zip(range(rank, len(items), state.num_processes), part, strict=True)
    return [gathered[i] for i in range(len(items))]


def _pass(
    policy: Policy,
    trees: Sequence[ContextTree],
    features: bool,
    cache: Path | None,
    progress: Callable[[int], None] | None,
    scorer: Scorer | None = None,
) -> tuple[list[Scored], bool]:
    """The figures of trees, and whether they came from the cache; arguments as for `reference_of`."""
    if not trees:
        return [], True
    state = processes(policy.device)
    key = _key(policy, trees, features, scorer)
    file = (cache or cache_folder()) / "reference" / f"{key}.safetensors"
    # One process looks into the cache for all: if its folder is not shared between machines, some would
    # compute and wait for others that do not.
    found = broadcast_object_list([_read(file, trees, features) if state.is_main_process else None])[0]
    if found is not None:
        return found, True
    with _base(policy) if scorer is None else scorer.load() as reference:
        found = on_all_processes(
            policy.device, trees, lambda mine: _score(reference, mine, features, progress)
        )
    if state.is_main_process:
        _write(file, found)
    return found, False


@contextmanager
def _base(policy: Policy) -> Iterator[Policy]:
    """A context in which a policy is its base."""
    with policy.reference():
        yield policy


def _score(
    policy: Policy, trees: Sequence[ContextTree], features: bool, progress: Callable[[int], None] | None
) -> list[Scored]:
    """The figures of this process's trees, by forwards of the model."""
    if features:
        return [
            Scored(tuple(scores), table)
            for scores, table in zip(*policy.features(trees, progress=progress), strict=True)
        ]
    scored = policy.log_probs(trees, progress=progress)
    return [Scored(tuple(scores), np.empty((len(scores), 0), np.float32)) for scores in scored]


def _key(policy: Policy, trees: Sequence[ContextTree], features: bool, scorer: Scorer | None) -> str:
    """The name of a cached pass: a hash of everything that its numbers depend on."""
    # The leading 5 is the version of the pass. Raise it whenever the same tokens would get other numbers.
    digest = hashlib.sha256(f"5 {policy.fingerprint} torch.{policy.precision} {features}".encode())
    if scorer is not None:
        digest.update(f"by {scorer.fingerprint} ".encode())
    # Each length goes in before its tokens, and a mark after each tree. Without them, the same tokens divided
    # differently between context and continuations, or between two trees, would have the same hash.
    for tree in trees:
        for ids in (tree.context, *tree.continuations):
            digest.update(np.array([len(ids), *ids], np.int64).tobytes())
        for weights in tree.weights or ():
            digest.update(b"w" + np.array(weights, np.float64).tobytes())
        digest.update(b"|")
    return digest.hexdigest()[:32]


def _read(file: Path, trees: Sequence[ContextTree], features: bool) -> list[Scored] | None:
    """The cached figures; None if there are none, or the file is damaged."""
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
    """Cache figures; a cache that cannot be written costs time, and does not fail the fit."""
    # Python floats are float64, so what is read back is the same to the bit, and a fit from the cache gives
    # the same weights as the fit that wrote it.
    content = {
        "log_probs": np.concatenate([np.array(each.log_probs, np.float64) for each in found]),
        "features": np.concatenate([each.features for each in found]),
    }
    with suppress(EditLoopError), atomic_file(file, failures=(SafetensorError,)) as unfinished:
        save_file(content, unfinished)
