"""Arms of one's own: whose edits are enough for one, and whether it stays.

Such an arm is fitted from its user's rows alone, and begins at the champion. It skips the shadow and the
canary, for nobody else gets it, and of one user there are too few rounds for either: the bandit decides for
each of the user's requests. It begins with the champion's evidence (`editloop.online.heirs`), so that it has
to be shown to be better.
"""

from __future__ import annotations

from collections.abc import Mapping

from editloop.autopilot.comparison import mixture_bound
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import FEWEST_ROUNDS
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.triggers import Supply
from editloop.autopilot.watch import Watch
from editloop.online.events import Heir

__all__ = ["PERSONAL_PULLS", "begin_arm", "heir_of", "judge_personal", "whose_turn"]

PERSONAL_PULLS = 5.0
"""The most pulls that the evidence on the champion counts for as that on a user's own arm. A change of the
cost by .1 allows for so many, with costs that have the variance .05."""


def heir_of(champion: str | None) -> Heir | None:
    """What an arm of a user's own begins with."""
    return None if champion is None else Heir(champion, PERSONAL_PULLS)


def whose_turn(supplies: Mapping[str, Supply], config: AutopilotConfig) -> str | None:
    """The user whose own arm is to be fitted next; None if nobody has enough new edits.

    Args:
        supplies: Each user's edits that the last fit of their own arm could read, and those since.
        config: The configuration.
    """
    if not config.personal_edits:
        return None
    needed = {
        user: max(config.personal_edits, config.growth * each.learned) for user, each in supplies.items()
    }
    ready = [user for user, each in supplies.items() if each.new >= needed[user]]
    return max(ready, key=lambda user: supplies[user].new, default=None)


def begin_arm(
    stages: Stages, arm: str, owner: str, owners: Mapping[str, str], transition: Transition
) -> list[Transition]:
    """The transitions by which a user gets an arm, in place of the one that the user had.

    Args:
        stages: Where the policies stand.
        arm: The new arm.
        owner: The key of its user.
        owners: The arms of users, and whose they are.
        transition: The one by which it becomes an arm.
    """
    old = [each for each, key in owners.items() if key == owner and stages.of(each) is Stage.ARM]
    retired = [
        Transition(each, Stage.ARM, Stage.RETIRED, transition.time, reason=f"{arm} takes its place")
        for each in old
    ]
    return [*retired, transition]


def judge_personal(
    stages: Stages, watch: Watch, owners: Mapping[str, str], config: AutopilotConfig, now: float
) -> Transition | None:
    """Retire an arm that is worse for its user than the champion, beyond chance.

    Those that somebody promoted by hand have no stage, and stay.
    """
    champion = stages.champion
    if champion is None:
        return None
    for arm, owner in owners.items():
        last = stages.last(arm)
        if last is None or last.stage is not Stage.ARM:
            continue
        own = Watch(each for each in watch.rounds if each.user == owner)
        found = own.within(arm, champion, last.time)
        if min(found.rounds, found.other_rounds) < FEWEST_ROUNDS:
            continue
        bound = mixture_bound(1 / (1 / found.rounds + 1 / found.other_rounds), 1 - config.confidence)
        if found.z > bound:
            reason = f"costs its user {found.mean:.3f} more than {champion}"
            evidence = {"within users": found.to_json(bound), "beside": champion}
            return Transition(arm, Stage.ARM, Stage.RETIRED, now, reason=reason, evidence=evidence)
    return None
