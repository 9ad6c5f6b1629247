"""Logs of the lab: a policy answers contexts of a domain, a user edits, and each row is kept as a record.

This is the deployment that the offline phase learns from (Protocol 1). It does not know how a log is read
or learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Protocol

from editloop.edits import Record
from editloop.errors import ConfigError, ModelError
from editloop.policy import Policy
from editloop.users import User, edit_all

__all__ = ["MAX_NEW_TOKENS", "World", "make_log", "stream_log"]

MAX_NEW_TOKENS = 64
"""The most tokens of a response: half as many again as the longest one of a domain has. Anything longer is
garbled."""


class World(Protocol):
    """Where contexts come from: a domain of the lab, or real texts of the hub."""

    @property
    def name(self) -> str:
        """The world's name."""
        ...

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Yield contexts, the same for the same seed and stream."""
        ...

    def kind(self, context: str) -> str:
        """Return the kind of a context's source text, on which the hidden style depends."""
        ...

    def describe(self, context: str) -> str:
        """Return the style that a user wants for this context, in words."""
        ...


CHUNK = 250
"""Contexts that are answered at a time."""

_START = datetime(2026, 1, 1, tzinfo=UTC)
_INTERVAL = timedelta(minutes=1)


def stream_log(
    domain: World,
    user: User,
    n: int,
    seed: int,
    *,
    policy: Policy,
    policy_name: str = "base",
    max_new_tokens: int = MAX_NEW_TOKENS,
    chunk: int = CHUNK,
) -> Iterator[Record]:
    """Yield the rows of a log of any size, which are made a few hundred at a time as they are needed.

    It is in one piece because half of it describes the arguments.

    Args:
        domain: Where the contexts come from.
        user: Who edits.
        n: The number of rows.
        seed: The seed of the contexts and the responses. A longer log of the same seed begins with the
            shorter one.
        policy: The policy that answers.
        policy_name: The name under which it is logged.
        max_new_tokens: The most tokens of a response.
        chunk: The number of contexts that are answered at a time; the responses depend on it.

    Raises:
        ConfigError: `n` is negative, or there are fewer contexts.
        ModelError: All responses of a chunk are blank. A single blank response cannot be logged, and its
            context is skipped.
    """
    if n < 0:
        raise ConfigError("the number of rows is negative", seen=n)
    contexts = domain.contexts(seed)
    done = chunks = 0
    while done < n:
        asked = list(islice(contexts, chunk))
        if not asked:
            raise ConfigError(f"the {domain.name} texts are used up", seen=done, do="ask for fewer rows")
        # All chunks have the same size and their own seeds, so that the first rows do not depend on n. The
        # factor keeps the chunks of neighbouring seeds apart: log 0 would share chunk 1 with log 1's first.
        samples = policy.sample(asked, seed=1_000_003 * seed + chunks, max_new_tokens=max_new_tokens)
        chunks += 1
        pairs = [
            (context, sample.text)
            for context, sample in zip(asked, samples, strict=True)
            if sample.text.strip()
        ]
        if not pairs:
            raise ModelError("all responses of the policy are blank", seen=policy_name)
        pairs = pairs[: n - done]
        edits = edit_all(user, *zip(*pairs, strict=True))
        for (context, response), edit in zip(pairs, edits, strict=True):
            yield Record(
                id=f"{domain.name}-{seed}-{done}",
                context=context,
                response=response,
                edit=edit,
                user=user.name,
                policy=policy_name,
                propensity=1.0,
                time=_START + done * _INTERVAL,
                metadata={"kind": domain.kind(context)},
            )
            done += 1


def make_log(
    domain: World,
    user: User,
    n: int,
    seed: int,
    *,
    policy: Policy,
    policy_name: str = "base",
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """Return a log of n rows as `stream_log` makes it; `progress` is called with the rows made so far."""
    records: list[Record] = []
    for record in stream_log(domain, user, n, seed, policy=policy, policy_name=policy_name):
        records.append(record)
        if progress is not None:
            progress(len(records))
    return records
