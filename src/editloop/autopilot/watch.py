"""What the autopilot looks at: the rounds of each policy, and what is compared of them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from editloop.autopilot.assignment import Unit, is_in_canary, user_key
from editloop.autopilot.comparison import Cost, Difference, between_groups, within_users
from editloop.edits.non_answers import NON_ANSWERS
from editloop.online.events import UNKNOWN

__all__ = ["Canary", "Round", "Watch"]


@dataclass(frozen=True, slots=True)
class Round:
    """A request that was answered, and what became of the answer.

    Attributes:
        response_id: The response.
        user: The key of the user, as of `user_key`; empty if the user is not known.
        chosen: The arm that was chosen.
        arm: The arm that answered.
        time: When, in seconds since 1970.
        outcome: The last feedback; None while there is none.
        cost: At most the bound; None where there is none.
        seconds: The time that the policy took; None if it is not known.
        failed: Whether no arm could answer.
        non_answer: Whether the answer is none (`editloop.edits.non_answers`).
        wants_none: Whether by the same rules what the user made of it is none either; None if that was not
            read, or nothing was made of it.
    """

    response_id: str
    user: str
    chosen: str
    arm: str
    time: float
    outcome: str | None = None
    cost: float | None = None
    seconds: float | None = None
    failed: bool = False
    non_answer: bool = False
    wants_none: bool | None = None

    @classmethod
    def of(
        cls,
        row: Any,
        salt: str,
        bound: float = math.inf,
        time: float | None = None,
        *,
        wants_none: bool | None = None,
    ) -> Round:
        """The round of a row of `editloop.store.rounds.rounds`.

        Args:
            row: The row.
            salt: That of the store.
            bound: The most that a cost counts for.
            time: When, in place of what the row says.
            wants_none: Whether what the user made of it is no answer by the rules; None if that is not known.
        """
        return cls(
            response_id=row.response_id,
            user=user_key(salt, row.user) if row.user is not None else "",
            chosen=row.chosen,
            arm=row.arm or row.chosen,
            time=row.time if time is None else time,
            outcome=row.kind,
            cost=None if row.cost is None or row.kind in UNKNOWN else min(row.cost, bound),
            seconds=row.seconds,
            failed=row.finish == "failed",
            # Brevity is no rule of the registry. A policy that learned to be brief is judged by its costs.
            non_answer=row.non_answer in NON_ANSWERS,
            wants_none=wants_none,
        )

    @property
    def unit(self) -> str:
        """Who is compared: the user, or the request if the user is not known."""
        return self.user or self.response_id


@dataclass(frozen=True)
class Canary:
    """A canary: who gets which policy, from when on.

    Attributes:
        arm: The policy in the canary.
        champion: The policy that it is compared with.
        since: When it began, in seconds since 1970.
        share: The share of the users, or of the requests, that get it.
        unit: What is drawn.
        rounds: The costs after which it ends.
        draw: Which of many draws decides who is in it, as of `balanced_draw`.
    """

    arm: str
    champion: str
    since: float
    share: float
    unit: Unit
    rounds: int
    draw: int = 0

    def takes(self, user: str, response_id: str) -> bool:
        """Whether a request is answered by the policy in the canary; `user` is a key, or empty."""
        key = user if self.unit == "user" else response_id
        return is_in_canary(f"{self.arm}#{self.draw}", key, self.share)


class Watch:
    """Rounds, in the order of time.

    Args:
        rounds: The rounds.
    """

    def __init__(self, rounds: Iterable[Round]) -> None:
        self.rounds = list(rounds)

    def costs(self, arm: str, since: float = 0.0) -> list[Cost]:
        """The costs of an arm whose decisions are of a time or later."""
        return _costs(each for each in self.rounds if each.arm == arm and each.time >= since)

    def of(self, arm: str, since: float = 0.0) -> list[Round]:
        """The rounds for which an arm was chosen at a time or later."""
        return [each for each in self.rounds if each.chosen == arm and each.time >= since]

    def canary(self, canary: Canary, most: int | None = None) -> Difference:
        """The policy in a canary compared with the champion, which had the other users in the same time.

        Where requests are drawn, each user has drafts of both, and they are compared within users. Rounds of
        another arm, and those for which a client named the arm, are left out.

        Args:
            canary: The canary.
            most: Compare until the policy in it has as many costs; None for all.
        """
        first: list[Round] = []
        second: list[Round] = []
        before: list[Round] = []
        drawn: dict[str, bool] = {}  # each unit is looked up once
        for each in self.rounds:
            if each.cost is None:
                continue
            if each.time < canary.since:
                before.append(each)
                continue
            if len(first) == most:
                break
            unit = each.response_id if canary.unit == "request" else each.unit
            if unit not in drawn:
                drawn[unit] = canary.takes(each.user, each.response_id)
            if drawn[unit]:
                if each.arm == canary.arm:
                    first.append(each)
            elif each.arm == canary.champion:
                second.append(each)
        if canary.unit == "user":
            return between_groups(_costs(before), _costs(first), _costs(second))
        groups = [_costs(first), _costs(second)]
        if not all(each.user for each in (*first, *second)):
            groups = [[Cost("", each.cost) for each in group] for group in groups]
        # Rounds are counted whether or not their users had drafts of both: the canary ends by them.
        return within_users(*groups)._replace(rounds=len(first), other_rounds=len(second))

    def within(self, arm: str, other: str, since: float = 0.0) -> Difference:
        """An arm compared with another one, by the users who had drafts of both."""
        return within_users(self.costs(arm, since), self.costs(other, since))


def _costs(rounds: Iterable[Round]) -> list[Cost]:
    return [Cost(each.unit, each.cost) for each in rounds if each.cost is not None]
