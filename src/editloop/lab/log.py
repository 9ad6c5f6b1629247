"""Logs of the lab: a policy answers contexts of a domain, a user edits, and each row is kept as a record.

This is the deployment that the offline phase learns from (Protocol 1). It does not know how a log is read
or learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice

from editloop.edits import Record
from editloop.errors import ConfigError, ModelError
from editloop.lab.drafts import Writer
from editloop.lab.world import World
from editloop.users import User, edit_all

__all__ = ["make_log", "stream_log"]


_START = datetime(2026, 1, 1, tzinfo=UTC)
_INTERVAL = timedelta(minutes=1)


def stream_log(
    domain: World,
    user: User,
    n: int,
    seed: int,
    *,
    policy: Writer,
    policy_name: str = "base",
    max_new_tokens: int | None = None,
    chunk: int | None = None,
) -> Iterator[Record]:
    """Yield the rows of a log of any size, which are made some at a time as they are needed.

    It is in one piece because half of it describes the arguments.

    Args:
        domain: Where the contexts come from.
        user: Who edits.
        n: The number of rows.
        seed: The seed of the contexts and the responses. A longer log of the same seed begins with the
            shorter one.
        policy: The policy that answers.
        policy_name: The name under which it is logged.
        max_new_tokens: The most tokens of a response; by default the domain's.
        chunk: The number of contexts that are answered at a time, on which the responses depend; by default
            the domain's.

    Raises:
        ConfigError: `n` is negative, or there are fewer contexts.
        ModelError: All responses of a chunk are blank. A single blank response cannot be logged, and its
            context is skipped.
    """
    if n < 0:
        raise ConfigError("the number of rows is negative", seen=n)
    limit, chunk = max_new_tokens or domain.max_new_tokens, chunk or domain.chunk
    contexts = domain.contexts(seed)
    done = chunks = 0
    while done < n:
        asked = list(islice(contexts, chunk))
        if not asked:
            raise ConfigError(f"the {domain.name} texts are used up", seen=done, do="ask for fewer rows")
        # All chunks have the same size and their own seeds, so that the first rows do not depend on n. The
        # factor keeps the chunks of neighbouring seeds apart: log 0 would share chunk 1 with log 1's first.
        samples = policy.sample(asked, seed=1_000_003 * seed + chunks, max_new_tokens=limit)
        chunks += 1
        drafts = [(c, sample) for c, sample in zip(asked, samples, strict=True) if sample.text.strip()]
        if not drafts:
            raise ModelError("all responses of the policy are blank", seen=policy_name)
        drafts = drafts[: n - done]
        edits = edit_all(user, [context for context, _ in drafts], [sample.text for _, sample in drafts])
        for (context, sample), edit in zip(drafts, edits, strict=True):
            yield Record(
                id=f"{domain.name}-{seed}-{done}",
                context=context,
                response=sample.text,
                edit=edit,
                user=user.name,
                policy=policy_name,
                propensity=1.0,
                time=_START + done * _INTERVAL,
                metadata={
                    "kind": domain.kind(context),
                    **domain.outcomes(context, sample.text),
                    **({} if sample.finished else {"finished": False}),
                },
            )
            done += 1


def make_log(
    domain: World,
    user: User,
    n: int,
    seed: int,
    *,
    policy: Writer,
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
