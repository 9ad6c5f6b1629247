"""Arms of one's own: whose turn it is, and when one goes again."""

from __future__ import annotations

import numpy as np
import pytest

from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.personal import begin_arm, heir_of, judge_personal, whose_turn
from editloop.autopilot.stages import Lineage, Stage, Stages, Transition
from editloop.autopilot.triggers import Supply
from editloop.autopilot.watch import Round, Watch
from editloop.online import Heir

S = Stage
CHAMPION, OWN = "sft@1", "early@2"
CONFIG = AutopilotConfig(personal_edits=40)


def stages() -> Stages:
    return Stages(
        [
            Transition(CHAMPION, None, S.ARM, 0.0),
            Transition(CHAMPION, S.ARM, S.CHAMPION, 0.0),
            Transition(OWN, None, S.ARM, 1.0, lineage=Lineage(0, owner="ada")),
        ]
    )


def test_the_turn_is_of_the_user_with_the_most_new_edits():
    supplies = {"ada": Supply(0, 39), "bob": Supply(0, 40), "eve": Supply(0, 60)}
    assert whose_turn(supplies, CONFIG) == "eve"
    assert whose_turn({"ada": Supply(0, 39)}, CONFIG) is None
    # After a fit of 400 edits a quarter as many have to come.
    assert whose_turn({"bob": Supply(400, 99)}, CONFIG) is None
    assert whose_turn({"bob": Supply(400, 100)}, CONFIG) == "bob"
    assert whose_turn(supplies, AutopilotConfig()) is None and whose_turn({}, CONFIG) is None


def test_an_arm_begins_with_little_of_the_champions_evidence():
    assert heir_of(CHAMPION) == Heir(CHAMPION, 5.0) and heir_of(None) is None


def test_a_new_arm_takes_the_place_of_its_users_last_one():
    found = stages()
    new = Transition("early@3", None, S.ARM, 9.0, lineage=Lineage(0, owner="ada"))
    steps = begin_arm(found, "early@3", "ada", {OWN: "ada"}, new)
    assert [(each.subject, each.stage) for each in steps] == [(OWN, S.RETIRED), ("early@3", S.ARM)]
    for each in steps:
        found.apply(each)
    assert begin_arm(found, "early@4", "bob", {"early@3": "ada"}, new) == [new]


def played(gain: float, users: tuple[str, ...] = ("ada", "bob")) -> Watch:
    """Rounds in which ada has both arms, the first of which costs her so much less; bob has the champion."""
    rng = np.random.default_rng(0)
    rounds = []
    for i in range(400):
        user = users[i % len(users)]
        arm = OWN if user == "ada" and i % 4 == 0 else CHAMPION
        cost = float(np.clip(0.4 - gain * (arm == OWN) + 0.1 * rng.standard_normal(), 0, 1))
        rounds.append(Round(f"r{i}", user, arm, arm, 2.0 + i, "edited", cost))
    return Watch(rounds)


def test_an_arm_that_is_worse_for_its_user_goes():
    worse = judge_personal(stages(), played(-0.2), {OWN: "ada"}, CONFIG, 9.0)
    assert (worse.subject, worse.before, worse.stage) == (OWN, S.ARM, S.RETIRED)
    assert "costs its user 0.2" in worse.reason
    assert worse.evidence["within users"]["mean"] == pytest.approx(0.2, abs=0.03)
    for gain in (0.0, 0.2):
        assert judge_personal(stages(), played(gain), {OWN: "ada"}, CONFIG, 9.0) is None
    # Of too few rounds, of one made by hand, and without a champion nothing is said.
    assert judge_personal(stages(), Watch(played(-0.2).rounds[:60]), {OWN: "ada"}, CONFIG, 9.0) is None
    assert judge_personal(stages(), played(-0.2), {"dpo@9": "ada"}, CONFIG, 9.0) is None
    assert judge_personal(Stages(), played(-0.2), {OWN: "ada"}, CONFIG, 9.0) is None


def test_the_champions_rounds_with_others_say_nothing():
    assert judge_personal(stages(), played(-0.2, ("bob", "bob")), {OWN: "ada"}, CONFIG, 9.0) is None
