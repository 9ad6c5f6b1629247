"""What the autopilot decides: transitions that follow from the rounds, as pure functions.

Each takes where the policies stand (`Stages`), what was seen (`Watch`) and the configuration, and returns at
most one transition with its evidence. Nothing here reads a store, so that the same decisions can be
simulated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from editloop.autopilot.alarms import first_alarm
from editloop.autopilot.assignment import Unit, balanced_draw
from editloop.autopilot.comparison import Cost, Difference, budget_bound, paired, within_bound
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.inheritance import inheritance
from editloop.autopilot.stages import PLAYED, Lineage, Stage, Stages, Transition
from editloop.autopilot.watch import Canary, Watch

__all__ = [
    "FEWEST_ROUNDS",
    "SHADOW_SHARE",
    "ShadowPair",
    "adopt",
    "canary_of",
    "canary_terms",
    "crown",
    "judge_alarms",
    "judge_arms",
    "judge_canary",
    "judge_shadow",
    "start_canary",
]

FEWEST_ROUNDS = 20
"""Costs of each side before a comparison decides anything: a standard error of fewer is too uncertain."""

TITLE_ERRORS = 2.0
"""Standard errors by which an arm has to be better than the champion to take its place."""

FEWEST_USERS = 8
"""With fewer users a canary draws requests: a fifth of seven users is one, who says nothing of the others."""

CANARY_LOOKS = 5
"""A canary is judged after each fifth of its rounds. With more looks, less of the error would be left for the
last one; with fewer, a policy that is far better or worse would be found later."""

STALLED = 4.0
"""A canary ends when the others have had this many times the rounds that belong to its own."""

SHADOW_MARGIN = 0.05
"""How much worse a policy may be in the shadow. The edit that it is compared with began from a draft that the
champion may have written, so a draft of the champion's is nearer to it than it deserves: in the lab by .03 at
most, for a policy that is not worse (`make bench NAME=shadow-bias`)."""

SHADOW_SHARE = 0.2
"""The share of the requests that a shadow takes, where the transition to it does not name one."""

LOADING_SECONDS = 600.0
"""Seconds in which a server has to have loaded a policy, so that it writes drafts in the shadow."""


class ShadowPair(NamedTuple):
    """What two drafts of a request cost that nobody saw.

    Attributes:
        unit: Whose request it is, or the response if the user is not known; empty if that is not kept.
        own: The cost of the draft of the policy in the shadow.
        other: That of the champion's.
    """

    unit: str
    own: float
    other: float


def adopt(
    stages: Stages, arms: Sequence[str], now: float, owners: Mapping[str, str] | None = None
) -> list[Transition]:
    """Make the arms that somebody promoted without the autopilot known to it.

    Args:
        stages: Where the policies stand.
        arms: The arms for everybody.
        now: The time, in seconds since 1970.
        owners: The arms of single users, and the keys of these.
    """
    reason = "it was an arm before"
    shared = [Transition(arm, None, Stage.ARM, now, reason=reason) for arm in arms]
    own = [
        Transition(arm, None, Stage.ARM, now, reason=reason, lineage=Lineage(stages.generation, owner=owner))
        for arm, owner in (owners or {}).items()
    ]
    return [each for each in (*shared, *own) if stages.of(each.subject) is None]


def crown(stages: Stages, watch: Watch, arms: Sequence[str], now: float) -> Transition | None:
    """Make the arm with the lowest mean cost the first champion, as soon as there are costs."""
    if stages.champion in arms:
        return None
    ready = [arm for arm in arms if stages.of(arm) is Stage.ARM]
    costs = {arm: [each.cost for each in watch.costs(arm)] for arm in ready}
    known = {arm: sum(each) / len(each) for arm, each in costs.items() if len(each) >= FEWEST_ROUNDS}
    if len(ready) == 1:
        return Transition(ready[0], Stage.ARM, Stage.CHAMPION, now, reason="the only arm")
    if not known:
        return None
    best = min(known, key=lambda arm: known[arm])
    reason = f"the arm with the lowest cost so far, {known[best]:.3f}"
    return Transition(best, Stage.ARM, Stage.CHAMPION, now, reason=reason)


def start_canary(
    stages: Stages,
    watch: Watch,
    config: AutopilotConfig,
    now: float,
    *,
    evidence: dict[str, Any],
    reason: str,
) -> Transition | None:
    """Move the policy in the shadow to the canary, whose terms are part of the evidence."""
    last, champion = stages.the(Stage.SHADOW), stages.champion
    if last is None or champion is None:
        return None
    terms = canary_terms(watch, config, champion, last.subject)
    return Transition(
        last.subject, Stage.SHADOW, Stage.CANARY, now, reason=reason, evidence={**evidence, **terms}
    )


def canary_terms(watch: Watch, config: AutopilotConfig, champion: str, arm: str) -> dict[str, Any]:
    """The terms of a canary that begins now: they do not change until it ends."""
    activity = Counter(each.user for each in watch.rounds if each.user and each.cost is not None)
    unit: Unit
    if config.canary_unit == "auto":
        unit = "user" if len(activity) >= FEWEST_USERS else "request"
    else:
        unit = config.canary_unit
    return {
        "champion": champion,
        "share": config.canary_share,
        "unit": unit,
        "rounds": config.canary_rounds,
        "draw": balanced_draw(arm, activity, config.canary_share) if unit == "user" else 0,
    }


def canary_of(stages: Stages) -> Canary | None:
    """The canary that is under way, by the terms in its evidence; None if there is none."""
    last = stages.the(Stage.CANARY)
    if last is None:
        return None
    terms = last.evidence
    return Canary(
        arm=last.subject,
        champion=terms["champion"],
        since=last.time,
        share=terms["share"],
        unit=terms["unit"],
        rounds=terms["rounds"],
        draw=terms.get("draw", 0),
    )


def judge_shadow(
    stages: Stages,
    watch: Watch,
    costs: Sequence[ShadowPair],
    config: AutopilotConfig,
    now: float,
    *,
    predicted: Sequence[ShadowPair] = (),
) -> Transition | None:
    """Let the policy in the shadow go on to the canary, or reject it.

    Args:
        stages: Where the policies stand.
        watch: The rounds.
        costs: Those of each request that was edited, against what its user ended with.
        config: The configuration.
        now: The time, in seconds since 1970.
        predicted: What a cost model predicts that the drafts of the two cost their own users, for each
            request that has both; empty without one.
    """
    last = stages.the(Stage.SHADOW)
    if last is None or stages.the(Stage.CANARY) is not None:
        return None
    if config.shadow_rounds == 0:
        return start_canary(stages, watch, config, now, evidence={}, reason="there is no shadow")
    found = paired([each.own for each in costs], [each.other for each in costs])
    bound = budget_bound(found.rounds, config.shadow_rounds, 1 - config.confidence)
    model = paired([each.own for each in predicted], [each.other for each in predicted])
    model_bound = budget_bound(model.rounds, config.shadow_rounds, 1 - config.confidence)
    evidence: dict[str, Any] = {"shadow": found.to_json(bound)}
    if predicted:
        evidence["cost model"] = model.to_json(model_bound)
    reason = None
    if _is_worse(found, bound):
        reason = f"its drafts in the shadow cost {found.mean:.3f} more than the champion's"
    elif _is_worse(model, model_bound):
        reason = f"by the cost model its drafts in the shadow cost {model.mean:.3f} more than the champion's"
    if reason is not None:
        return Transition(last.subject, Stage.SHADOW, Stage.REJECTED, now, reason=reason, evidence=evidence)
    expected = _expected_drafts(stages, last, watch)
    if found.rounds == 0 and expected >= config.shadow_rounds and now - last.time > LOADING_SECONDS:
        reason = f"of some {expected:.0f} drafts in the shadow it wrote none; the server's log says why"
        return Transition(last.subject, Stage.SHADOW, Stage.REJECTED, now, reason=reason)
    if found.rounds < config.shadow_rounds:
        return None
    champion = str(stages.champion)
    changes = [Cost(each.unit, each.own - each.other) for each in costs]
    evidence["inherits"] = inheritance(champion, changes, watch.costs(champion), SHADOW_MARGIN)
    reason = f"{found.rounds} drafts in the shadow cost {found.mean:+.3f} beside the champion's"
    return start_canary(stages, watch, config, now, evidence=evidence, reason=reason)


def _expected_drafts(stages: Stages, last: Transition, watch: Watch) -> float:
    """How many requests that were edited should have drafts of it and of the champion by now.

    A policy that no server can run, such as one of another base, would else stay in the shadow for ever.
    """
    title = stages.the(Stage.CHAMPION)
    since = max(last.time, 0.0 if title is None else title.time)
    edited = sum(each.cost is not None for each in watch.rounds if each.time >= since)
    return float(last.evidence.get("share", SHADOW_SHARE)) * edited


def _is_worse(found: Difference, bound: float) -> bool:
    """Whether drafts in the shadow cost more than the champion's, beyond chance and the margin."""
    return found.rounds >= FEWEST_ROUNDS and found.mean - bound * found.error > SHADOW_MARGIN


def judge_canary(stages: Stages, watch: Watch, config: AutopilotConfig, now: float) -> Transition | None:
    """Make the policy in the canary an arm if it is better than the champion, or reject it.

    It is rejected when it is worse, and when its rounds are over without a decision: a policy that is not
    shown to be better is one more for users to try for nothing.
    """
    canary = canary_of(stages)
    if canary is None:
        return None
    found = watch.canary(canary)
    played, others = found.rounds, found.other_rounds
    part = math.ceil(canary.rounds / CANARY_LOOKS)
    if played < canary.rounds:
        found = watch.canary(canary, most=played // part * part)
    bound = budget_bound(found.rounds, canary.rounds, 1 - config.confidence, CANARY_LOOKS)
    evidence = {"canary": found.to_json(bound), "champion": canary.champion, "unit": canary.unit}

    def to(stage: Stage, reason: str) -> Transition:
        return Transition(canary.arm, Stage.CANARY, stage, now, reason=reason, evidence=evidence)

    enough = min(found.rounds, found.other_rounds) >= FEWEST_ROUNDS
    if enough and found.z < -bound:
        return to(Stage.ARM, f"costs {-found.mean:.3f} less than {canary.champion}")
    if enough and found.z > bound:
        return to(Stage.REJECTED, f"costs {found.mean:.3f} more than {canary.champion}")
    # Where hardly any of its users come back, the others' rounds end it.
    if played >= canary.rounds or others * canary.share > STALLED * canary.rounds:
        return to(Stage.REJECTED, f"not shown to be better than {canary.champion} in {played} rounds")
    return None


def judge_alarms(
    stages: Stages, watch: Watch, arms: Sequence[str], now: float, personal: Sequence[str] = ()
) -> Transition | None:
    """Roll back a policy that users see if something is wrong with it.

    Args:
        stages: Where the policies stand.
        watch: The rounds.
        arms: The arms that are played for everybody; the last one of them stays.
        now: The time, in seconds since 1970.
        personal: The arms of single users.
    """
    for arm in [*stages.having(Stage.CANARY), *arms, *personal]:
        last = stages.last(arm)
        if last is None or (arm in arms and len(arms) < 2):
            continue
        rounds = watch.of(arm, last.time)
        # The others in the same time. A policy that was played before it fell is not compared with its past.
        others = [each for each in watch.rounds if each.chosen != arm and each.time >= last.time]
        alarm = first_alarm(rounds, others)
        if alarm is not None:
            name, reason = alarm
            evidence = {"alarm": name, "rounds": len(rounds), "others": len(others)}
            return Transition(
                arm, last.stage, Stage.ROLLED_BACK, now, reason=f"it {reason}", evidence=evidence
            )
    return None


def judge_arms(
    stages: Stages, watch: Watch, arms: Sequence[str], config: AutopilotConfig, now: float
) -> list[Transition]:
    """Crown an arm that is better than the champion, retire one that is worse, or one of too many.

    To be the champion is a title among arms, which all are played; so two standard errors decide. To be
    retired is for good, and takes a bound that holds however often it is looked at.

    Returns:
        The transitions, which belong together: the old champion becomes an arm before another one takes its
        place.
    """
    champion = stages.champion
    if champion is None or champion not in arms:
        return []
    found = {arm: watch.within(arm, champion) for arm in arms if arm != champion}
    known = {
        arm: each
        for arm, each in found.items()
        if min(each.rounds, each.other_rounds) >= FEWEST_ROUNDS and stages.of(arm) in PLAYED
    }

    def bound(each: Difference) -> float:
        return within_bound(each, 1 - config.confidence)

    def shown(arm: str) -> dict[str, Any]:
        return {"within users": known[arm].to_json(bound(known[arm])), "beside": champion}

    for arm, each in sorted(known.items(), key=lambda item: item[1].z):
        if each.z < -TITLE_ERRORS:
            reason = f"costs {-each.mean:.3f} less than {champion}"
            return [
                Transition(champion, Stage.CHAMPION, Stage.ARM, now, reason=f"{arm} is better"),
                Transition(arm, stages.of(arm), Stage.CHAMPION, now, reason=reason, evidence=shown(arm)),
            ]
    for arm, each in known.items():
        if each.z > bound(each) and stages.of(arm) is Stage.ARM:
            reason = f"costs {each.mean:.3f} more than {champion}"
            return [Transition(arm, Stage.ARM, Stage.RETIRED, now, reason=reason, evidence=shown(arm))]
    spare = [arm for arm in known if stages.of(arm) is Stage.ARM]
    if len(arms) > config.most_arms and spare:
        worst = max(spare, key=lambda arm: known[arm].mean)
        reason = f"more than {config.most_arms} arms, and it is the worst of them"
        return [Transition(worst, Stage.ARM, Stage.RETIRED, now, reason=reason, evidence=shown(worst))]
    return []
