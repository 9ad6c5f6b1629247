"""Completions sampled from the reference, for methods that choose among several completions of a context.

They are sampled in rounds, longest contexts first. Each round is kept in a journal as soon as it is there, so
a process that was killed loses one round at most. They join the edit and the response in one tree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from accelerate.utils import broadcast_object_list

from editloop.errors import EditLoopError
from editloop.journal import append_rows, read_rows
from editloop.offline.examples import SAMPLED, Completions, Example
from editloop.offline.reference import cache_folder, on_all_processes
from editloop.policy import ContextTree, Policy, processes
from editloop.policy.sampling import default_batch
from editloop.progress import ProgressCallback, WarningCallback

__all__ = ["SampledText", "add_sampled", "sample_completions"]

SAMPLED_BY = "inversion, places"
"""The name of the way in which completions are sampled. It is part of the journal's key, because another way
gives other samples from the same seed."""

ROUND = 32
"""About how many completions a process samples in one round, at least: what a kill can lose."""

Place = tuple[int, int]
"""The index of an example, and that of one of its completions: the name of the stream of random numbers."""


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
    callback: ProgressCallback | None = None,
) -> list[tuple[SampledText, ...]]:
    """Sample completions from the reference at temperature 1.

    A completion depends on the seed, its context, the context's place among the examples, and its own number
    among those of the context. A higher `count` therefore adds to the completions that are known already,
    and neither a kill nor the number of processes changes any.

    Args:
        policy: The base, or a policy whose adapter is switched off meanwhile.
        examples: The examples whose contexts are completed [n].
        count: Number of completions for each context.
        seed: The seed of the sampling.
        max_new_tokens: Limit of a completion, in tokens.
        cache: The cache's folder; by default `cache_folder()`. If it cannot be read or written, completions
            are sampled again.
        callback: Receives how many tokens there are to sample, and the progress in completions.

    Returns:
        For each example its `count` completions [n].
    """
    callback, state = callback or WarningCallback(), processes(policy.device)
    places = [(i, k) for i in range(len(examples)) for k in range(count)]
    if not places:
        return [()] * len(examples)
    file = (cache or cache_folder()) / "sampled" / f"{_key(policy, examples, seed, max_new_tokens)}.jsonl"
    # One process looks into the cache for all: if its folder is not shared between machines, some would
    # sample and wait for others that do not.
    known = broadcast_object_list([_read(file) if state.is_main_process else None])[0] or {}
    left = sum(place not in known for place in places)
    callback.message(
        f"completions to sample: {len(places)} ({count} for each of {len(examples)} contexts), at most "
        f"{left * max_new_tokens:,} tokens"
        + (f"; {len(places) - left} are known already" if left < len(places) else "")
    )

    size = _round_size(policy, examples, max_new_tokens)
    sampled = partial(_sampled, policy, examples, seed=seed, max_new_tokens=max_new_tokens, size=size)
    with policy.reference():
        for members in _rounds(examples, count, state.num_processes, size):
            missing = [[(i, k) for k in range(count) if (i, k) not in known] for i in members]
            if not any(missing):
                continue
            # Shared out by context, because equal prompts of a batch are read only once.
            shares = on_all_processes(policy.device, missing, sampled)
            new = {place: text for each in shares for place, text in each.items()}
            known |= new
            if state.is_main_process:
                _append(file, new)
            callback.progress("sampled completions", sum(place in known for place in places), len(places))
    return [tuple(known[i, k] for k in range(count)) for i in range(len(examples))]


def _round_size(policy: Policy, examples: Sequence[Example], max_new_tokens: int) -> int:
    """How many completions a process samples in one round, which is one batch."""
    longest = max(len(example.tree.context) for example in examples) + max_new_tokens
    size = max(ROUND, default_batch(policy.model, min(longest, policy.encoder.max_length)))
    agreed: int = broadcast_object_list([size])[0]  # the GPUs of the processes may differ in free memory
    return agreed


def _sampled(
    policy: Policy,
    examples: Sequence[Example],
    places: Sequence[Sequence[Place]],
    *,
    seed: int,
    max_new_tokens: int,
    size: int,
) -> list[dict[Place, SampledText]]:
    """The completions of the places of each of some contexts."""
    wanted = [place for each in places for place in each]
    samples = policy.sample(
        [examples[i].context for i, _ in wanted],
        seed=seed,
        places=wanted,
        temperature=1.0,  # because Eq. 6 needs completions of π_ref itself
        max_new_tokens=max_new_tokens,
        batch_size=size,
    )
    texts = [SampledText(each.text, each.finished and not each.trimmed) for each in samples]
    found = dict(zip(wanted, texts, strict=True))
    return [{place: found[place] for place in each} for each in places]


def _key(policy: Policy, examples: Sequence[Example], seed: int, max_new_tokens: int) -> str:
    """The name of a journal: a hash of everything that its completions depend on."""
    encoder = policy.encoder
    about = [policy.fingerprint, str(policy.model.dtype), encoder.ends, encoder.max_length]
    about += [seed, max_new_tokens, SAMPLED_BY]
    contexts = [example.tree.context for example in examples]
    return hashlib.sha256(json.dumps([about, contexts]).encode()).hexdigest()[:32]


def _rounds(examples: Sequence[Example], count: int, world: int, size: int = ROUND) -> list[list[int]]:
    """The indices of the examples of each round: contexts of similar length together, the longest first."""
    # Longest first, memory runs out in the first round if it does at all, and the time that is left is not
    # underestimated.
    order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tree.context))
    step = max(1, size // count) * world
    return [order[start : start + step] for start in range(0, len(order), step)]


def _read(file: Path) -> dict[Place, SampledText]:
    """The completions of a journal; none if it cannot be read, or is damaged."""
    found = {}
    try:
        for row in read_rows(file, EditLoopError):
            found[int(row["example"]), int(row["number"])] = SampledText(str(row["text"]), row["finished"])
    except (EditLoopError, KeyError, TypeError, ValueError):
        # A damaged line would stay in the way of all that is appended later.
        with suppress(OSError):
            file.unlink()
        return {}
    return found


def _append(file: Path, new: Mapping[Place, SampledText]) -> None:
    """Keep the completions of a round; a journal that cannot be written costs time, and fails nothing."""
    rows = [{"example": i, "number": k, **text._asdict()} for (i, k), text in new.items()]
    with suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        append_rows(file, rows)


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
