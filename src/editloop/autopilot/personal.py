"""Arms of one's own: whose edits are enough for one, and whether it stays.

Such an arm is fitted from its user's rows alone, and begins at the champion. It skips the shadow and the
canary, for nobody else gets it, and of one user there are too few rounds for either: the bandit decides for
each of the user's requests. It begins with the champion's evidence (`editloop.online.heirs`), so that it has
to be shown to be better.
"""

from __future__ import annotations

from collections.abc import Mapping

from editloop.autopilot.assignment import user_key
from editloop.autopilot.comparison import within_bound
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import FEWEST_ROUNDS
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.starts import first_weights
from editloop.autopilot.triggers import Supply
from editloop.autopilot.watch import Watch
from editloop.online.events import Heir
from editloop.store import reads
from editloop.store.database import Connection
from editloop.store.rounds import count_new_edits, users_with_edits
from editloop.store.schema import SALT

__all__ = [
    "BUDGET_SHARE",
    "GONE",
    "PERSONAL_PULLS",
    "begin_arm",
    "heir_of",
    "judge_personal",
    "next_arm",
    "supplies",
    "user_of",
    "whose_turn",
]

BUDGET_SHARE = 0.5
"""The share of the minutes of fits that arms of single users may take; the rest is everybody's."""

GONE = "its user is not there any more"
"""Why a fit ends without an arm."""

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


def supplies(connection: Connection, stages: Stages, least: int, now: float) -> dict[str, Supply]:
    """What each user has edited before and after the last fit of an arm of their own.

    Args:
        connection: Of the store.
        stages: Where the policies stand.
        least: The edits of a user who counts.
        now: The time, in seconds since 1970.
    """
    salt = reads.fact(connection, SALT) or ""
    read: dict[str, float] = {}
    for each in stages.history:
        if each.lineage is not None and each.lineage.owner:
            read[each.lineage.owner] = each.lineage.until
    found = {}
    for user in users_with_edits(connection, least):
        last = read.get(user_key(salt, user), 0.0)
        learned = count_new_edits(connection, 0.0, last, user) if last else 0
        found[user] = Supply(learned, count_new_edits(connection, last, now, user))
    return found


def user_of(connection: Connection, owner: str) -> str | None:
    """The user who has a key; None for an empty key, or if the store knows no such user any more."""
    if not owner:
        return None
    salt = reads.fact(connection, SALT) or ""
    return next((each for each in users_with_edits(connection, 1) if user_key(salt, each) == owner), None)


def next_arm(
    connection: Connection, stages: Stages, champion: str, config: AutopilotConfig, now: float
) -> tuple[str, str, str] | None:
    """The arm of a user's own that is to be fitted next; None if it is nobody's turn.

    Args:
        connection: Of the store.
        stages: Where the policies stand.
        champion: The champion, at whose adapter the fit begins; without one there is nothing to begin at.
        config: The configuration.
        now: The time, in seconds since 1970.

    Returns:
        The key of the user, the name of the fit, and why it begins.
    """
    found = supplies(connection, stages, config.personal_edits, now)
    user = whose_turn(found, config)
    if user is None or first_weights(connection, champion) != champion:
        return None
    key = user_key(reads.fact(connection, SALT) or "", user)
    before = sum(each.stage is Stage.FITTING and _owner(each) == key for each in stages.history)
    return key, f"personal-{key[:8]}-{before + 1}", f"{found[user].new} new edits of one user"


def _owner(transition: Transition) -> str:
    return transition.lineage.owner if transition.lineage is not None else ""


def begin_arm(stages: Stages, transition: Transition, owners: Mapping[str, str]) -> list[Transition]:
    """The transitions by which a user gets an arm, in place of the one that the user had.

    Args:
        stages: Where the policies stand.
        transition: The one by which it becomes an arm, whose lineage names its user.
        owners: The arms of single users, and the keys of these.
    """
    reason = f"{transition.subject} takes its place"
    old = [arm for arm, key in owners.items() if key == _owner(transition)]
    return [
        *(
            Transition(arm, Stage.ARM, Stage.RETIRED, transition.time, reason=reason)
            for arm in old
            if stages.of(arm) is Stage.ARM
        ),
        transition,
    ]


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
        bound = within_bound(found, 1 - config.confidence)
        if found.z > bound:
            reason = f"costs its user {found.mean:.3f} more than {champion}"
            evidence = {"within users": found.to_json(bound), "beside": champion}
            return Transition(arm, Stage.ARM, Stage.RETIRED, now, reason=reason, evidence=evidence)
    return None
