"""What the autopilot decides from rounds, as pure functions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from editloop.autopilot.alarms import FEWEST, excess_share, first_alarm
from editloop.autopilot.assignment import is_in_canary
from editloop.autopilot.comparison import Cost
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import (
    ShadowPair,
    adopt,
    canary_of,
    crown,
    judge_alarms,
    judge_arms,
    judge_canary,
    judge_shadow,
)
from editloop.autopilot.stages import Lineage, Stage, Stages, Transition
from editloop.autopilot.triggers import Supply, has_risen, minutes_spent, refit_reason, waits_for
from editloop.autopilot.watch import Round, Watch
from editloop.errors import ConfigError

S = Stage
CONFIG = AutopilotConfig(canary_rounds=100, shadow_rounds=30)
CHAMPION, NEW = "sft@1", "early@2"


def stages(*steps: tuple[str, Stage], terms: dict | None = None) -> Stages:
    """Stages after these steps, on top of a champion."""
    found = Stages()
    for subject, stage in ((CHAMPION, S.ARM), (CHAMPION, S.CHAMPION), *steps):
        evidence = {"champion": CHAMPION, "share": 0.3, "unit": "user", "rounds": 100, **(terms or {})}
        found.apply(Transition(subject, found.of(subject), stage, 1000.0, evidence=evidence))
    return found


def in_canary() -> Stages:
    return stages((NEW, S.SHADOW), (NEW, S.CANARY))


def played(n: int, gain: float, seed: int, users: int = 40) -> Watch:
    """A past of `n` rounds with the champion, and `4 n` rounds of a canary that gains so much."""
    rng = np.random.default_rng(seed)
    canary = canary_of(in_canary())
    level = 0.3 + 0.15 * rng.standard_normal(users)
    rounds = []
    for i in range(5 * n):
        u = int(rng.integers(users))
        time = float(i) if i < n else 1000.0 + i
        arm = NEW if time >= 1000 and canary.takes(f"u{u}", "") else CHAMPION
        cost = float(np.clip(level[u] - gain * (arm == NEW) + 0.1 * rng.standard_normal(), 0, 1))
        rounds.append(Round(f"r{i}", f"u{u}", arm, arm, time, "edited", cost))
    return Watch(rounds)


def test_a_canary_that_is_better_becomes_an_arm_and_one_that_is_worse_does_not():
    better = judge_canary(in_canary(), played(300, 0.1, 0), CONFIG, 9.0)
    assert better.stage is S.ARM and better.subject == NEW and better.time == 9.0
    low, high = better.evidence["canary"]["interval"]
    assert low < -0.1 < high < 0 and better.evidence["champion"] == CHAMPION
    worse = judge_canary(in_canary(), played(300, -0.1, 0), CONFIG, 9.0)
    assert worse.stage is S.REJECTED and "more than" in worse.reason


def test_a_canary_without_a_decision_ends_with_its_rounds():
    equal = judge_canary(in_canary(), played(300, 0.0, 0), CONFIG, 9.0)
    assert equal.stage is S.REJECTED and "not shown to be better" in equal.reason
    assert judge_canary(in_canary(), played(15, 0.0, 0), CONFIG, 9.0) is None
    assert judge_canary(stages(), played(300, 0.1, 0), CONFIG, 9.0) is None


def test_a_canary_is_judged_after_each_fifth_of_its_rounds_whenever_it_is_looked_at():
    watch, canary = played(300, 0.15, 0), canary_of(in_canary())
    own = [i for i, each in enumerate(watch.rounds) if each.time >= 1000 and each.arm == NEW]
    before, at, later = (Watch(watch.rounds[: own[n - 1] + 1]) for n in (39, 40, 55))
    assert at.canary(canary).rounds == 40 and later.canary(canary).rounds == 55
    # At 39 the first 20 are judged, which do not suffice; at 55 the first 40, as at 40.
    assert judge_canary(in_canary(), before, CONFIG, 9.0) is None
    decided = judge_canary(in_canary(), at, CONFIG, 9.0)
    assert decided.stage is S.ARM and decided.evidence["canary"]["rounds"] == 40
    assert judge_canary(in_canary(), later, CONFIG, 9.0) == decided


def test_drawn_requests_are_compared_within_each_user():
    canary = replace(canary_of(in_canary()), unit="request")
    rng = np.random.default_rng(0)

    def ask(i: int, user: str, level: float) -> Round:
        arm = NEW if canary.takes(user, f"r{i}") else CHAMPION
        cost = level - 0.05 * (arm == NEW) + 0.02 * float(rng.standard_normal())
        return Round(f"r{i}", user, arm, arm, 2000.0 + i, "edited", cost)

    known = Watch(ask(i, f"u{i % 5}", 0.2 + 0.15 * (i % 5)) for i in range(500))
    found = known.canary(canary)
    assert found.units == found.other_units == 5
    assert found.mean == pytest.approx(-0.05, abs=0.01) and found.error < 0.005
    once = [replace(each, user="once") for each in known.rounds if each.arm == NEW][:1]
    assert Watch([*known.rounds, *once]).canary(canary).rounds == found.rounds + 1
    # Whoever is not known is compared with everybody, and how people differ makes it uncertain.
    unknown = Watch(ask(i, "", 0.2 + 0.15 * (i % 5)) for i in range(500)).canary(canary)
    assert unknown.units == 1 and unknown.error > 0.015


def test_a_canary_whose_users_stay_away_ends():
    canary, past = canary_of(in_canary()), played(40, 0.0, 0).rounds[:40]
    others = [u for u in range(40) if not canary.takes(f"u{u}", "")]
    rounds = [
        Round(f"o{i}", f"u{others[i % len(others)]}", CHAMPION, CHAMPION, 2000.0 + i, "edited", 0.3)
        for i in range(1400)
    ]
    assert judge_canary(in_canary(), Watch([*past, *rounds[:1300]]), CONFIG, 9.0) is None
    ended = judge_canary(in_canary(), Watch([*past, *rounds]), CONFIG, 9.0)
    assert ended.stage is S.REJECTED and "in 0 rounds" in ended.reason


def test_rounds_that_a_client_asked_for_are_no_evidence():
    watch = played(300, 0.1, 0)
    canary = canary_of(in_canary())
    asked = [
        Round(f"x{i}", each.user, NEW, NEW, each.time, "accepted", 0.0)
        for i, each in enumerate(watch.rounds)
        if each.time >= 1000 and not canary.takes(each.user, "")
    ]
    assert asked and Watch([*watch.rounds, *asked]).canary(canary) == watch.canary(canary)


def pairs(own: float, other: float, n: int) -> list[ShadowPair]:
    return [ShadowPair(f"u{i % 5}", own, other) for i in range(n)]


def test_the_shadow_lets_pass_what_is_not_worse():
    found, watch = stages((NEW, S.SHADOW)), played(40, 0.0, 0)
    assert judge_shadow(found, watch, pairs(0.3, 0.3, 29), CONFIG, 9.0) is None
    passed = judge_shadow(found, watch, pairs(0.3, 0.32, 30), CONFIG, 9.0)
    assert passed.stage is S.CANARY and passed.evidence["shadow"]["mean"] == pytest.approx(-0.02)
    terms = {name: passed.evidence[name] for name in ("champion", "share", "unit", "rounds")}
    assert terms == {"champion": CHAMPION, "share": 0.2, "unit": "user", "rounds": 100}
    users = {each.user for each in watch.rounds}
    drawn = sum(is_in_canary(f"{NEW}#{passed.evidence['draw']}", each, 0.2) for each in users)
    assert 4 <= drawn <= 12  # of 40
    heir = found.heir(NEW)
    found.apply(passed)
    assert heir is None and found.heir(NEW).parent == CHAMPION
    assert found.heir(NEW).change == pytest.approx(-0.02) and 0 < found.heir(NEW).pulls < 20
    found = stages((NEW, S.SHADOW))
    slightly = judge_shadow(found, watch, pairs(0.34, 0.3, 30), CONFIG, 9.0)
    assert slightly.stage is S.CANARY  # within the margin
    worse = judge_shadow(found, watch, pairs(0.6, 0.3, 20), CONFIG, 9.0)
    assert worse.stage is S.REJECTED
    none = judge_shadow(found, watch, [], CONFIG.model_copy(update={"shadow_rounds": 0}), 9.0)
    assert none.stage is S.CANARY


def test_a_policy_that_no_server_can_run_does_not_stay_in_the_shadow():
    found = stages((NEW, S.SHADOW))  # a share of .3 since 1000 s
    edited = [Round(f"r{i}", "u1", CHAMPION, CHAMPION, 1001.0 + i, "edited", 0.1) for i in range(100)]
    gone = judge_shadow(found, Watch(edited), [], CONFIG, 1700.0)
    assert gone.stage is S.REJECTED and gone.reason.startswith(
        "of some 30 drafts in the shadow it wrote none"
    )
    assert judge_shadow(found, Watch(edited), [], CONFIG, 1500.0) is None  # it may still be loaded
    assert judge_shadow(found, Watch(edited[:99]), [], CONFIG, 1700.0) is None
    assert judge_shadow(found, Watch(edited), pairs(0.3, 0.3, 2), CONFIG, 1700.0) is None
    before = [Round(f"r{i}", "u1", CHAMPION, CHAMPION, 1.0 + i, "edited", 0.1) for i in range(100)]
    assert judge_shadow(found, Watch(before), [], CONFIG, 1700.0) is None


def test_few_users_are_compared_by_request():
    few = Watch([Round(f"r{i}", f"u{i % 7}", CHAMPION, CHAMPION, 1.0, "edited", 0.1) for i in range(50)])
    moved = judge_shadow(stages((NEW, S.SHADOW)), few, pairs(0.3, 0.3, 30), CONFIG, 9.0)
    assert moved.evidence["unit"] == "request"


def both_arms(gain: float, seed: int, n: int = 400) -> Watch:
    rng = np.random.default_rng(seed)
    level = 0.3 + 0.15 * rng.standard_normal(20)
    rounds = []
    for i in range(n):
        u, arm = int(rng.integers(20)), (CHAMPION, NEW)[int(rng.integers(2))]
        cost = float(np.clip(level[u] - gain * (arm == NEW) + 0.1 * rng.standard_normal(), 0, 1))
        rounds.append(Round(f"r{i}", f"u{u}", arm, arm, float(i), "edited", cost))
    return Watch(rounds)


def test_the_best_arm_is_crowned_and_a_worse_one_retired():
    found = stages((NEW, S.SHADOW), (NEW, S.CANARY), (NEW, S.ARM))
    arms = (CHAMPION, NEW)
    first, second = judge_arms(found, both_arms(0.08, 0), arms, CONFIG, 9.0)
    assert (first.subject, first.stage, second.subject, second.stage) == (CHAMPION, S.ARM, NEW, S.CHAMPION)
    found.apply(first)
    found.apply(second)
    assert found.champion == NEW
    (retired,) = judge_arms(found, both_arms(0.08, 1), arms, CONFIG, 9.0)
    assert (retired.subject, retired.stage) == (CHAMPION, S.RETIRED)
    assert judge_arms(found, both_arms(0.0, 2), arms, CONFIG, 9.0) == []


def test_of_too_many_arms_the_worst_is_retired():
    found = stages((NEW, S.SHADOW), (NEW, S.CANARY), (NEW, S.ARM))
    few = CONFIG.model_copy(update={"most_arms": 1})
    (retired,) = judge_arms(found, both_arms(0.0, 2), (CHAMPION, NEW), few, 9.0)
    assert retired.subject == NEW and "more than 1 arms" in retired.reason


def test_arms_by_hand_are_adopted_and_the_cheapest_is_crowned():
    found = Stages()
    for each in adopt(found, ("a@1", "b@1"), 1.0):
        found.apply(each)
    rounds = [
        Round(f"r{i}", "u", arm, arm, 0.0, "edited", cost)
        for i in range(25)
        for arm, cost in (("a@1", 0.5), ("b@1", 0.2))
    ]
    assert crown(found, Watch(rounds), ("a@1", "b@1"), 2.0).subject == "b@1"
    assert crown(found, Watch([]), ("a@1", "b@1"), 2.0) is None  # nothing is known yet
    alone = Stages(adopt(Stages(), ("a@1",), 1.0))
    assert crown(alone, Watch([]), ("a@1",), 2.0).subject == "a@1"
    assert crown(stages(), Watch([]), (CHAMPION,), 2.0) is None and adopt(found, ("a@1",), 1.0) == []


def rounds_of(arm: str, n: int, **more) -> list[Round]:
    usual = {"user": "u", "chosen": arm, "arm": arm, "time": 2000.0, "outcome": "edited", "cost": 0.1}
    return [Round(f"{arm}{i}", **{**usual, "seconds": 0.2, **more}) for i in range(n)]


@pytest.mark.parametrize(
    ("bad", "name", "reason"),
    [
        (rounds_of("backup@1", 12, chosen=NEW), "errors", "fails in 12 of 12"),
        (rounds_of(NEW, 12, non_answer=True), "non_answers", "gives no answer in 12 of 12"),
        (rounds_of(NEW, 12, seconds=3.0), "latency", "takes 3.0 s, the others 0.2 s"),
        (
            rounds_of(NEW, 12, outcome=None, cost=None) + rounds_of("late@1", 1, time=9000.0),
            "silence",
            "is left without feedback in 12 of 12",
        ),
    ],
)
def test_a_policy_that_harms_is_rolled_back(bad, name, reason):
    watch = Watch([*rounds_of(CHAMPION, 60), *bad])
    found = judge_alarms(in_canary(), watch, (CHAMPION,), 9.0)
    assert (found.subject, found.stage) == (NEW, S.ROLLED_BACK)
    assert found.evidence["alarm"] == name and reason in found.reason


def test_what_is_usual_or_too_little_is_no_alarm():
    assert first_alarm(rounds_of(NEW, 30), rounds_of(CHAMPION, 60)) is None
    assert first_alarm(rounds_of(NEW, FEWEST - 1, non_answer=True), rounds_of(CHAMPION, 60)) is None
    everyone = rounds_of(CHAMPION, 60, non_answer=True)
    assert first_alarm(rounds_of(NEW, 30, non_answer=True), everyone) is None
    wanted = rounds_of(CHAMPION, 60, wants_none=True)  # users make the others' drafts read like that
    assert first_alarm(rounds_of(NEW, 30, non_answer=True), wanted) is None
    # The newest edits alone are read; what is known of them holds for the others.
    part = rounds_of(CHAMPION, 20, wants_none=True) + rounds_of("other@1", 400)
    assert first_alarm(rounds_of(NEW, 30, non_answer=True), part) is None
    accepted = rounds_of(CHAMPION, 20, wants_none=True) + rounds_of("other@1", 400, outcome="accepted")
    assert first_alarm(rounds_of(NEW, 30, non_answer=True), accepted) is not None  # few make it read so
    assert first_alarm(rounds_of(NEW, 30, non_answer=True), rounds_of(CHAMPION, 60)) is not None
    # The last arm stays, whatever it does.
    alone = Watch(rounds_of(CHAMPION, 60, failed=True))
    assert judge_alarms(stages(), alone, (CHAMPION,), 9.0) is None


def test_habits_of_a_few_users_are_no_fault_of_a_policy():
    # Three of the four users in a canary never say anything; so do a quarter of all the others.
    def of(users: range, arm: str, n: int) -> list[Round]:
        return [
            Round(f"{u}-{i}", f"u{u}", arm, arm, 0.0, None if u % 4 else "edited", None if u % 4 else 0.1)
            for u in users
            for i in range(n)
        ]

    talking = [
        Round(f"t{u}-{i}", f"u{u}", CHAMPION, CHAMPION, 0.0, "edited", 0.1)
        for u in range(100, 130)
        for i in range(10)
    ]
    late = Round("late", "u200", CHAMPION, CHAMPION, 9000.0, "edited", 0.1)
    canary = of(range(1, 5), NEW, 20)
    others = [*of(range(20, 30), CHAMPION, 10), *talking, late]
    assert first_alarm(canary, others) is None
    # Twelve users of whom none says anything are no habit any more.
    silent = [
        Round(f"s{u}-{i}", f"u{u}", NEW, NEW, 0.0, None, None) for u in range(300, 312) for i in range(5)
    ]
    name, reason = first_alarm(silent, [*talking, late])
    assert name == "silence" and reason == "is left without feedback in 60 of 60 rounds, the others 0%"


def test_what_nobody_waited_for_is_no_fault_of_a_policy():
    assert first_alarm(rounds_of(NEW, 30, failed=True), rounds_of(CHAMPION, 60)) is None


def test_an_excess_is_beyond_chance_and_matters():
    assert not excess_share(9, 9, 0, 100)  # too few
    assert excess_share(10, 10, 0, 100)
    assert not excess_share(24, 100, 5, 100)  # less than .2
    assert not excess_share(3, 12, 0, 20)  # 4 standard errors of .13
    assert excess_share(310, 1000, 100, 1000)
    assert excess_share(15, 100, 0, 100, least=0.1, errors=2.0)
    assert not excess_share(9, 100, 0, 100, least=0.1, errors=2.0)


def test_a_fit_needs_edits_hours_and_minutes():
    config = AutopilotConfig(min_edits=100, growth=0.25)
    found = stages()
    assert refit_reason(found, Supply(0, 99), config, 0.0) is None
    assert refit_reason(found, Supply(0, 100), config, 0.0) == "100 new edits"
    assert refit_reason(found, Supply(1000, 249), config, 0.0) is None
    assert refit_reason(found, Supply(1000, 250), config, 0.0) is not None
    assert "have risen" in refit_reason(found, Supply(1000, 63), config, 0.0, risen=True)
    for busy in (stages((NEW, S.SHADOW)), in_canary()):
        assert refit_reason(busy, Supply(0, 1000), config, 0.0) is None
    at = config.model_copy(update={"fit_at": "00:00"})
    midnight = datetime(2026, 5, 1, 0, 30).timestamp()
    assert refit_reason(found, Supply(0, 100), at, midnight) is not None
    assert refit_reason(found, Supply(0, 100), at, midnight + 3600) is None
    with pytest.raises(ConfigError, match="HH:MM"):
        AutopilotConfig(fit_at="25:00")


def test_a_generation_that_users_never_saw_is_soon_followed_by_another():
    def after(*steps: Transition) -> Stages:
        lineage = Lineage(1)
        begun = Transition("generation-1", None, S.FITTING, 1.0, lineage=lineage)
        return Stages([*stages().history, begun, *(each._replace(lineage=lineage) for each in steps)])

    def fitted(*steps: Transition) -> Stages:
        return after(Transition("generation-1", S.FITTING, S.FITTED, 2.0), *steps)

    shadow = Transition(NEW, None, S.SHADOW, 2.0)
    canary = Transition(NEW, S.SHADOW, S.CANARY, 3.0)
    lost = [
        after(Transition("generation-1", S.FITTING, S.FAILED, 2.0)),
        fitted(Transition(NEW, None, S.REJECTED, 2.0)),
        fitted(shadow, Transition(NEW, S.SHADOW, S.REJECTED, 3.0)),
    ]
    seen = [
        stages(),
        fitted(shadow, canary, Transition(NEW, S.CANARY, S.REJECTED, 4.0)),
        fitted(shadow, canary, Transition(NEW, S.CANARY, S.ARM, 4.0)),
    ]
    assert [each.was_lost for each in lost + seen] == [True] * 3 + [False] * 3
    config = AutopilotConfig(min_edits=100, growth=0.25)
    for each in lost:
        assert refit_reason(each, Supply(0, 24), config, 9.0) is None
        assert "was lost" in refit_reason(each, Supply(0, 25), config, 9.0)
    assert refit_reason(seen[1], Supply(0, 99), config, 9.0) is None


def test_what_the_next_fit_waits_for_is_one_line():
    config = AutopilotConfig(min_edits=100, growth=0.25)
    found = stages()
    assert waits_for(found, Supply(0, 37), config, 0.0) == "37 of 100 edits of new requests"
    assert waits_for(found, Supply(1001, 99), config, 0.0) == "99 of 251 edits of new requests"
    assert waits_for(found, Supply(1000, 62), config, 0.0, risen=True) == "62 of 63 edits of new requests"
    assert waits_for(in_canary(), Supply(0, 1000), config, 0.0) == f"{NEW} is in the canary"
    assert waits_for(stages((NEW, S.SHADOW)), Supply(0, 0), config, 0.0) == f"{NEW} is in the shadow"
    at = config.model_copy(update={"fit_at": "03:00"})
    noon = datetime(2026, 5, 1, 12).timestamp()
    assert waits_for(found, Supply(0, 100), at, noon) == "it begins within an hour from 03:00"
    lineage = Lineage(1, minutes=30.0)
    found.apply(Transition("generation-1", None, S.FITTING, noon, lineage=lineage))
    assert waits_for(found, Supply(0, 100), config, noon) == "generation-1 is being fitted"
    found.apply(Transition("generation-1", S.FITTING, S.FAILED, noon, lineage=lineage))
    assert waits_for(found, Supply(0, 7), config, noon) == "7 of 25 edits of new requests since the last fit"
    little = config.model_copy(update={"fit_minutes": 20.0})
    spent = "30 of 20 minutes of fits in 24 hours are spent"
    assert waits_for(found, Supply(0, 100), little, noon) == spent


def test_minutes_of_the_last_day_are_counted():
    found = Stages()
    # Of the second one the machine was down for most of the time: what it took is what counts.
    for number, (began, ended, minutes) in enumerate([(0.0, 600.0, 10.0), (80_000.0, 84_000.0, 20.0)]):
        subject = f"generation-{number}"
        found.apply(Transition(subject, None, S.FITTING, began, lineage=Lineage(number)))
        lineage = Lineage(number, minutes=minutes)
        found.apply(Transition(subject, S.FITTING, S.FITTED, ended, lineage=lineage))
    assert minutes_spent(found, 85_000.0) == 30 and minutes_spent(found, 90_000.0) == 20
    config = AutopilotConfig(fit_minutes=30)
    assert refit_reason(found, Supply(0, 500), config, 85_000.0) is None
    assert refit_reason(found, Supply(0, 500), config, 90_000.0) is not None


def test_costs_that_rise_are_seen_and_other_users_are_not():
    rng = np.random.default_rng(0)
    level = {f"u{i}": 0.1 + 0.03 * i for i in range(10)}

    def costs(n: int, users: list[str], shift: float) -> list[Cost]:
        chosen = [users[i] for i in rng.integers(len(users), size=n)]
        return [Cost(u, level[u] + shift + 0.05 * float(rng.standard_normal())) for u in chosen]

    users = list(level)
    past = costs(400, users, 0.0)
    assert not has_risen(past, 0.05)
    assert not has_risen([*past, *costs(200, users, 0.0)], 0.05)
    assert has_risen([*past, *costs(200, users, 0.1)], 0.05)
    assert not has_risen([*past, *costs(200, users[5:], 0.0)], 0.05)  # dearer users, as ever
