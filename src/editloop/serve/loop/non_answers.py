"""Drafts that are no answers: how often each arm writes them, and which arm does so suspiciously often.

A policy that asks back or refuses is often accepted as it is, because there is nothing to edit, and then
seems to be the best one. So the drafts are counted, by rules (`editloop.edits.non_answers`) and by length:
one that is far shorter than the other arms' drafts for requests of about the same length is `short`.

An arm is suspicious if it writes more non-answers than the others, by the measure by which abandoned drafts
are found (`editloop.online.abandonment`): beyond what chance would give. So is one that writes
more of them lately than before.
"""

from __future__ import annotations

import logging
import math
from collections import Counter, deque
from collections.abc import Iterable
from typing import Any

from editloop.edits.non_answers import find_non_answer
from editloop.online.abandonment import excess_share

__all__ = ["NonAnswers"]

ALARM = 0.05
"""The share of an arm's drafts, beyond what the others or its own past would give, that is reported."""

ERRORS = 3.0
"""How many standard errors are chance. The counts are looked at after each draft, so two would be too few."""

LEAST = 10
"""Drafts of an arm before it can be suspicious."""

LATEST = 100
"""Drafts of an arm that are compared with its earlier ones."""

SHORT = 1 / 6
"""A draft with fewer words than this share of the others' geometric mean is short."""

ENOUGH = 20
"""Drafts of other arms from which on lengths are compared."""

log = logging.getLogger("editloop.serve")


class NonAnswers:
    """Counts of an arm's drafts by the rule by which they are no answers.

    Args:
        known: The arm, the rule (None for an answer) and the number of earlier drafts.
    """

    def __init__(self, known: Iterable[tuple[str, str | None, int]] = ()) -> None:
        self._counts: dict[str, Counter[str | None]] = {}
        self._latest: dict[str, deque[bool]] = {}
        self._lengths: dict[int, dict[str, list[float]]] = {}  # by length of the request and arm
        self._reported: set[str] = set()
        for arm, rule, n in known:
            self._of(arm)[rule] += n

    def examine(self, arm: str, response: str, asked: int) -> str | None:
        """Count a draft, and return the rule by which it is no answer; None if it is one.

        Args:
            arm: Who wrote it.
            response: Its text.
            asked: The characters of the request.
        """
        rule = find_non_answer(response) or ("short" if self._is_short(arm, response, asked) else None)
        self._of(arm)[rule] += 1
        self._latest.setdefault(arm, deque(maxlen=LATEST)).append(rule is not None)
        if arm not in self._reported and (why := self.suspicion(arm)):
            self._reported.add(arm)
            log.warning("%s", why)
        return rule

    def shares(self, arm: str) -> dict[str, Any]:
        """The number of an arm's drafts, and how many are no answers by each rule, as JSON types."""
        counts = self._of(arm)
        return {"n": counts.total(), "by_rule": {rule: n for rule, n in counts.items() if rule is not None}}

    def suspicion(self, arm: str) -> str | None:
        """Why an arm is suspicious; None if it is not."""
        if self._of(arm).total() < LEAST:
            return None
        answers, others = self._split(arm), [self._split(each) for each in self._counts if each != arm]
        beside = [sum(each[i] for each in others) for i in range(2)]
        what = ", ".join(f"{rule} {n}" for rule, n in self._of(arm).most_common() if rule is not None)
        if excess_share(*answers, *beside, errors=ERRORS) > ALARM:
            mine, theirs = answers[1] / sum(answers), beside[1] / max(sum(beside), 1)
            return f"{arm}: {mine:.0%} of its drafts are no answers ({what}), of the others' {theirs:.0%}"
        latest = self._latest.get(arm, ())
        lately = (len(latest) - sum(latest), sum(latest))
        before = [whole - part for whole, part in zip(answers, lately, strict=True)]
        if len(latest) == LATEST and excess_share(*lately, *before, errors=ERRORS) > ALARM:
            share, earlier = lately[1] / LATEST, before[1] / max(sum(before), 1)
            latest_ones = f"{share:.0%} of its last {LATEST} drafts"
            return f"{arm}: {latest_ones} are no answers ({what}), before {earlier:.0%}"
        return None

    def _of(self, arm: str) -> Counter[str | None]:
        return self._counts.setdefault(arm, Counter())

    def _split(self, arm: str) -> tuple[int, int]:
        """The numbers of answers and of non-answers."""
        counts = self._of(arm)
        return counts[None], counts.total() - counts[None]

    def _is_short(self, arm: str, response: str, asked: int) -> bool:
        """Whether a draft is far shorter than the others' for requests of about the same length."""
        words, by_arm = math.log1p(len(response.split())), self._lengths.setdefault(asked.bit_length(), {})
        n, total = (sum(each[i] for name, each in by_arm.items() if name != arm) for i in range(2))
        own = by_arm.setdefault(arm, [0, 0.0])
        own[0] += 1
        own[1] += words
        return n >= ENOUGH and words < total / n + math.log(SHORT)
