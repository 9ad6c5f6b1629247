"""Completions that are sampled from the reference, for methods that choose among several in a context.

They are cached by content, and stand in one tree with the edit and the response.
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
"""How `policy.sample` draws; another way draws others from the same seed."""


class SampledText(NamedTuple):
    """A response of the reference.

    Attributes:
        text: Without repetition loops.
        finished: Whether the reference ended its turn here; if not, the rest is not known.
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
    """`count` responses of the reference for each example, at temperature 1.

    Other numbers of processes draw others.

    Args:
        policy: The base.
        examples: Whose contexts are answered.
        count: How many for each.
        seed: Of the draws.
        max_new_tokens: Longest response.
        cache: Folder, by default `cache_folder()`.
        progress: Called with the number of this process's contexts done.
    """
    if count == 0 or not examples:
        return [()] * len(examples)
    state, encoder = processes(policy.device), policy.encoder
    about = [policy.fingerprint, str(policy.model.dtype), encoder.end, encoder.max_length]
    about += [count, seed, max_new_tokens, state.num_processes, SAMPLED_BY]
    key = hashlib.sha256(json.dumps([about, [e.tree.context for e in examples]]).encode()).hexdigest()[:32]
    file = (cache or cache_folder()) / "drawn" / f"{key}.json"
    found = broadcast_object_list([_read(file, len(examples), count) if state.is_main_process else None])[0]
    if found is not None:
        return list(found)

    def draw(mine: Sequence[Example]) -> list[tuple[SampledText, ...]]:
        rounds = []
        for k in range(count):
            own = 1_000_003 * (1_009 * seed + k) + state.process_index
            samples = policy.sample([e.context for e in mine], seed=own, max_new_tokens=max_new_tokens)
            rounds.append([SampledText(each.text, each.finished and not each.trimmed) for each in samples])
            if progress is not None:
                progress(len(mine) * (k + 1) // count)
        return list(zip(*rounds, strict=True))

    with policy.reference():
        drawn = on_all_processes(policy.device, examples, draw)
    if state.is_main_process:
        with suppress(EditLoopError):
            write_text(file, json.dumps(drawn))
    return drawn


def _read(file: Path, rows: int, count: int) -> list[tuple[SampledText, ...]] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = [tuple(SampledText(text, finished) for text, finished in draws) for draws in content]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == rows and all(len(draws) == count for draws in found) else None


def add_sampled(
    policy: Policy, examples: Sequence[Example], sampled: Sequence[Sequence[SampledText]]
) -> list[Completions]:
    """For each example the edit, the response and what was sampled, no continuation twice.

    A text that was cut has no end-of-turn token: no policy should learn to stop there.
    """
    found = []
    for example, texts in zip(examples, sampled, strict=True):
        room = policy.encoder.max_length - len(example.tree.context)
        new = []
        for text, finished in texts:
            tokens = policy.encoder.continuation(text)
            new.append((tokens if finished else tokens[:-1])[:room])
        new = [tokens for tokens in new if tokens]
        continuations = tuple(dict.fromkeys((*example.tree.continuations, *new)))
        places = sorted({continuations.index(tokens) for tokens in new})
        roles = {**example.completions.roles, **({SAMPLED: tuple(places)} if places else {})}
        found.append(Completions(ContextTree(example.tree.context, continuations), roles))
    return found
