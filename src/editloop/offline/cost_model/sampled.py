"""Completions sampled from the reference, for methods that choose among several completions of a context.

They are cached by content, and join the edit and the response in one tree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from accelerate.utils import broadcast_object_list

from editloop.errors import EditLoopError
from editloop.io import write_text
from editloop.offline.examples import SAMPLED, Completions, Example
from editloop.offline.reference import cache_folder, on_all_processes
from editloop.policy import ContextTree, Policy, processes

__all__ = ["SampledText", "add_sampled", "sample_completions"]

SAMPLED_BY = "inversion"
"""The name of the way in which `policy.sample` samples. It is part of the cache's key, because another way
gives other samples from the same seed."""


class SampledText(NamedTuple):
    """A completion sampled from the reference.

    Attributes:
        text: The completion, with repetition loops trimmed.
        finished: Whether the reference ended its turn here; False if the limit or the trimming cut it.
    """

    text: str
    finished: bool


def sample_completions(
    policy: Policy,
    examples: Sequence[Example],
    count: int,
    *,
    seed: int,
    max_new_tokens: int,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[SampledText, ...]]:
    """Sample completions from the reference at temperature 1.

    The samples depend on the number of processes, because each samples for its own share of the examples.

    Args:
        policy: The base, or a policy whose adapter is switched off meanwhile.
        examples: The examples whose contexts are completed [n].
        count: Number of completions for each context.
        seed: The seed of the sampling.
        max_new_tokens: Limit of a completion, in tokens.
        cache: The cache's folder; by default `cache_folder()`.
        progress: Called with the number of this process's contexts done so far.

    Returns:
        For each example its `count` completions [n].
    """
    if count == 0 or not examples:
        return [()] * len(examples)
    state, encoder = processes(policy.device), policy.encoder
    about = [policy.fingerprint, str(policy.model.dtype), encoder.end, encoder.max_length]
    about += [count, seed, max_new_tokens, state.num_processes, SAMPLED_BY]
    key = hashlib.sha256(json.dumps([about, [e.tree.context for e in examples]]).encode()).hexdigest()[:32]
    file = (cache or cache_folder()) / "sampled" / f"{key}.json"
    # One process looks into the cache for all: if its folder is not shared between machines, some would
    # sample and wait for others that do not.
    found = broadcast_object_list([_read(file, len(examples), count) if state.is_main_process else None])[0]
    if found is not None:
        return list(found)

    def sample(mine: Sequence[Example]) -> list[tuple[SampledText, ...]]:
        rounds = []
        for k in range(count):
            # A seed for each round and process. The factors are larger than any usual number of rounds or of
            # processes, so different seeds, rounds and processes never meet in the same number.
            own = 1_000_003 * (1_009 * seed + k) + state.process_index
            # At temperature 1, because Eq. 6 needs completions of π_ref itself.
            samples = policy.sample(
                [e.context for e in mine], seed=own, temperature=1.0, max_new_tokens=max_new_tokens
            )
            rounds.append([SampledText(each.text, each.finished and not each.trimmed) for each in samples])
            if progress is not None:
                progress(len(mine) * (k + 1) // count)
        return list(zip(*rounds, strict=True))

    with policy.reference():
        sampled = on_all_processes(policy.device, examples, sample)
    if state.is_main_process:
        with suppress(EditLoopError):
            write_text(file, json.dumps(sampled))
    return sampled


def _read(file: Path, rows: int, count: int) -> list[tuple[SampledText, ...]] | None:
    """The cached completions; None if there are none, or the file is damaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = [tuple(SampledText(text, finished) for text, finished in texts) for texts in content]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == rows and all(len(texts) == count for texts in found) else None


def add_sampled(
    policy: Policy, examples: Sequence[Example], sampled: Sequence[Sequence[SampledText]]
) -> list[Completions]:
    """Join each example's edit and response with the completions sampled for it, without repetitions.

    A completion that was cut has no end-of-turn token, so that no policy learns to stop there.

    Args:
        policy: The policy whose encoder is used.
        examples: The examples [n].
        sampled: From `sample_completions` [n].

    Returns:
        The completions of each example [n]; the edit and the response come first.
    """
    found = []
    for example, texts in zip(examples, sampled, strict=True):
        room = policy.encoder.max_length - len(example.tree.context)
        new = []
        for text, finished in texts:
            # The text is encoded again, as an edit or a response is. The same text then has the same tokens
            # in every role, so repetitions are found.
            tokens = policy.encoder.continuation(text)
            new.append((tokens if finished else tokens[:-1])[:room])
        new = [tokens for tokens in new if tokens]
        # A dict keeps the first of equal keys, in order: the edit and the response stay where they were.
        continuations = tuple(dict.fromkeys((*example.tree.continuations, *new)))
        places = sorted({continuations.index(tokens) for tokens in new})
        roles = {**example.completions.roles, **({SAMPLED: tuple(places)} if places else {})}
        found.append(Completions(ContextTree(example.tree.context, continuations), roles))
    return found
