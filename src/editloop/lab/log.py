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
from editloop.lab.grammar import Domain
from editloop.policy import Policy
from editloop.users import User

__all__ = ["MAX_NEW_TOKENS", "make_log", "stream_log"]

MAX_NEW_TOKENS = 64
"""Half as long again as the longest response of a domain: what is longer is garbled."""

_CHUNK = 250
_START = datetime(2026, 1, 1, tzinfo=UTC)
_INTERVAL = timedelta(minutes=1)


def stream_log(
    domain: Domain, user: User, n: int, seed: int, *, policy: Policy, policy_name: str = "base"
) -> Iterator[Record]:
    """Rows of a log, made as they are taken, a few hundred at a time: for `write_log`, at any size.

    Args:
        domain: Where the contexts come from.
        user: Who edits.
        n: How many rows.
        seed: Of the contexts and the responses. A longer log of one seed begins with the shorter one.
        policy: Who answers.
        policy_name: The name under which it is logged.

    Raises:
        ConfigError: `n` is negative.
        ModelError: The policy answers with blanks only. (A single blank response cannot be logged; its
            context is passed over.)
    """
    if n < 0:
        raise ConfigError("the number of rows is negative", seen=n)
    contexts = domain.contexts(seed)
    done = chunk = 0
    while done < n:
        asked = list(islice(contexts, _CHUNK))
        # A chunk is of one size and has its own seed, whatever n is.
        samples = policy.sample(asked, seed=1_000_003 * seed + chunk, max_new_tokens=MAX_NEW_TOKENS)
        chunk += 1
        pairs = [
            (context, sample.text)
            for context, sample in zip(asked, samples, strict=True)
            if sample.text.strip()
        ]
        if not pairs:
            raise ModelError("the policy answers with blanks only", seen=policy_name)
        for context, response in pairs[: n - done]:
            yield Record(
                id=f"{domain.name}-{seed}-{done}",
                context=context,
                response=response,
                edit=user.edit(context, response),
                user=user.name,
                policy=policy_name,
                propensity=1.0,
                time=_START + done * _INTERVAL,
                metadata={"kind": domain.read(context).kind},
            )
            done += 1


def make_log(
    domain: Domain,
    user: User,
    n: int,
    seed: int,
    *,
    policy: Policy,
    policy_name: str = "base",
    progress: Callable[[int], None] | None = None,
) -> list[Record]:
    """A log of n rows, as by `stream_log`; `progress` is called with the rows made so far."""
    records: list[Record] = []
    for record in stream_log(domain, user, n, seed, policy=policy, policy_name=policy_name):
        records.append(record)
        if progress is not None:
            progress(len(records))
    return records
