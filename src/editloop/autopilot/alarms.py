"""Alarms: why a policy that users see is rolled back at once, each a rule of its own.

A rule compares the rounds of a policy with those of the others in the same time. It speaks only beyond
chance, and only of differences that matter. Chance is that of the users: whether feedback comes, and how long
a text is, is their habit, and rounds of one user are not independent. Only whether a policy fails has nothing
to do with who asks. A further rule is a function and a line of the registry, or an entry point in the group
`editloop.alarms`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import median

from editloop.autopilot.comparison import Cost, Difference, between_groups
from editloop.autopilot.watch import Round
from editloop.registry import Registry

__all__ = ["ALARMS", "Alarm", "excess_share", "first_alarm"]

Alarm = Callable[[Sequence[Round], Sequence[Round]], str | None]
"""A rule: the reason to roll a policy back, given its rounds and those of the others; None for no reason."""

FEWEST = 10
"""Fewer rounds say nothing."""

FEWEST_USERS = 8
"""With fewer users, rounds are compared as if each were of another one."""

STANDARD_ERRORS = 4.0
"""Standard errors beyond which a difference is no chance, although a rule is asked again and again."""

SHARE = 0.2
"""A share that is higher by less than this is left to the comparison of costs: an alarm does not wait for it,
and some letters do end with a question."""

SLOWER, SECONDS = 3.0, 1.0
"""A policy is too slow if its median time is so many times that of the others, and so many seconds longer."""

ANSWER_SECONDS = 3600.0
"""Rounds without feedback count as silent when they are older than this before the newest round."""


def excess_share(
    bad: int, n: int, other_bad: int, other_n: int, *, least: float = SHARE, errors: float = STANDARD_ERRORS
) -> bool:
    """Whether a share is higher than another one by more than chance, and by more than matters.

    The standard error is that of the difference with the pooled share, to which one failure and one success
    are added, so that 0 of few rounds is not taken for certainty.

    Args:
        bad: The rounds, of `n`, that count.
        n: All rounds of a policy.
        other_bad: Those of the others that count.
        other_n: All rounds of the others.
        least: The difference that matters.
        errors: The standard errors that are chance.
    """
    if n < FEWEST:
        return False
    share, other = bad / n, (other_bad / other_n if other_n else 0.0)
    pooled = (bad + other_bad + 1) / (n + other_n + 2)
    error = math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / max(other_n, FEWEST)))
    return share - other > max(least, errors * error)


def errors(rounds: Sequence[Round], others: Sequence[Round]) -> str | None:
    """It fails, so that another arm has to answer.

    A response that nobody waited for any more has failed, too, but that is no fault of the policy.
    """
    bad, other_bad = (sum(each.arm != each.chosen for each in some) for some in (rounds, others))
    if not excess_share(bad, len(rounds), other_bad, len(others)):
        return None
    usual = f"{other_bad / len(others):.0%}" if others else "nobody else to compare with"
    return f"fails in {bad} of {len(rounds)} rounds, the others {usual}"


def non_answers(rounds: Sequence[Round], others: Sequence[Round]) -> str | None:
    """It refuses, asks back or says nothing, more often than the others and than what users make of these."""
    reason = _by_users("gives no answer", lambda each: each.non_answer, rounds, others)
    known = [each.wants_none for each in others if each.wants_none is not None]
    if reason is None or not known:
        return reason
    edited = sum(each.outcome == "edited" for each in others) / len(others)
    wanted = edited * sum(known) / len(known)
    return reason if sum(each.non_answer for each in rounds) / len(rounds) - wanted > SHARE else None


def silence(rounds: Sequence[Round], others: Sequence[Round]) -> str | None:
    """Its drafts are abandoned: no feedback comes where it comes for others."""
    newest = max((each.time for each in (*rounds, *others)), default=0.0)

    def old(some: Sequence[Round]) -> list[Round]:
        return [e for e in some if not e.failed and e.outcome != "void" and newest - e.time > ANSWER_SECONDS]

    return _by_users("is left without feedback", lambda each: each.cost is None, old(rounds), old(others))


def latency(rounds: Sequence[Round], others: Sequence[Round]) -> str | None:
    """It takes far longer than the others."""
    own, usual = ([e for e in some if e.seconds and not e.failed] for some in (rounds, others))
    if min(len(own), len(usual)) < FEWEST:
        return None
    # Times differ by factors, so their logarithms are compared.
    found = _compared(lambda each: math.log(each.seconds or 1.0), own, usual)
    now, before = (median(each.seconds or 0.0 for each in some) for some in (own, usual))
    if found.z > STANDARD_ERRORS and now > max(SLOWER * before, before + SECONDS):
        return f"takes {now:.1f} s, the others {before:.1f} s (medians)"
    return None


def _by_users(
    what: str, is_bad: Callable[[Round], bool], rounds: Sequence[Round], others: Sequence[Round]
) -> str | None:
    if min(len(rounds), len(others)) < FEWEST:
        return None
    found = _compared(lambda each: float(is_bad(each)), rounds, others)
    if found.z <= STANDARD_ERRORS or found.mean <= SHARE:
        return None
    bad, usual = sum(map(is_bad, rounds)), sum(map(is_bad, others)) / len(others)
    return f"{what} in {bad} of {len(rounds)} rounds, the others {usual:.0%}"


def _compared(
    value: Callable[[Round], float], rounds: Sequence[Round], others: Sequence[Round]
) -> Difference:
    """A policy's mean of something less the others', with the error of so many users.

    Where hardly anybody is known, rounds have to do.
    """
    users = {each.user for each in (*rounds, *others)} - {""}
    by_user = len(users) >= FEWEST_USERS
    one, other = (
        [Cost(each.unit if by_user else each.response_id, value(each)) for each in some]
        for some in (rounds, others)
    )
    found = between_groups((), one, other)
    too_few = by_user and min(found.units, found.other_units) < 3  # two may be alike by chance
    return found._replace(error=math.inf) if too_few else found


ALARMS: Registry[Alarm] = Registry(
    "alarm",
    "editloop.alarms",
    {
        "errors": "editloop.autopilot.alarms:errors",
        "latency": "editloop.autopilot.alarms:latency",
        "non_answers": "editloop.autopilot.alarms:non_answers",
        "silence": "editloop.autopilot.alarms:silence",
    },
)
"""The alarms, by name. Cost is no alarm of its own: the comparison of the stage ends on it."""


def first_alarm(rounds: Sequence[Round], others: Sequence[Round]) -> tuple[str, str] | None:
    """The name and the reason of the first alarm; None if all is well."""
    for name in ALARMS:
        reason = ALARMS.get(name)(rounds, others)
        if reason is not None:
            return name, reason
    return None
