"""Arms of one's own: whose turn it is, and when one goes again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from piloted import Bench

from editloop.autopilot.assignment import user_key
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.fitter import FitResult
from editloop.autopilot.ledger import arms_of, epoch_columns
from editloop.autopilot.personal import begin_arm, heir_of, judge_personal, whose_turn
from editloop.autopilot.stages import Lineage, Stage, Stages, Transition
from editloop.autopilot.triggers import Supply
from editloop.autopilot.watch import Round, Watch
from editloop.errors import AutopilotError
from editloop.online import Heir
from editloop.policy import RunFolder, arm_name
from editloop.serve.testing import make_run
from editloop.store import reads, writes

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
    steps = begin_arm(found, new, {OWN: "ada"})
    assert [(each.subject, each.stage) for each in steps] == [(OWN, S.RETIRED), ("early@3", S.ARM)]
    for each in steps:
        found.apply(each)
    other = new._replace(subject="early@4", lineage=Lineage(0, owner="bob"))
    assert begin_arm(found, other, {"early@3": "ada"}) == [other]


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


@pytest.fixture
def own(tmp_path):
    """A store whose champion has an adapter, and an autopilot that fits arms for users with ten edits."""
    run = make_run(tmp_path / "run", ("sft",))
    made = Bench(tmp_path, f"sqlite:///{tmp_path}/edits.db", arm_name(RunFolder(run), "sft"), str(run))
    made.config = made.config.model_copy(update={"personal_edits": 10, "min_edits": 1000})
    made.pilot = made.new()
    made.pilot.step()
    made.pilot.step()
    yield made
    made.store.close()


def edits(bench: Bench, n: int, user: str) -> None:
    bench.rounds(n, str(bench.stages().champion), "a b", "a c", user=user)


def test_a_user_with_enough_edits_gets_an_arm_at_once(own, tmp_path):
    champion, key = own.stages().champion, user_key("salt", "ada")
    edits(own, 9, "ada")
    edits(own, 9, "bob")
    assert own.pilot.step() == []
    edits(own, 1, "ada")
    (begun,) = own.pilot.step()
    assert begun.subject == f"personal-{key[:8]}-1" and begun.reason == "10 new edits of one user"
    lineage = begun.lineage
    assert (lineage.owner, lineage.start, lineage.parents) == (key, champion, (champion,))
    assert own.fitter.users == ["ada"] and own.fitter.starts == [tmp_path / "run" / "sft"]
    own.restart()
    own.pilot.step()
    assert own.fitter.users == ["ada"]
    made = make_run(Path(lineage.run), ("early",))
    own.fitter.result = FitResult(made)
    new = arm_name(RunFolder(made), "early")
    steps = own.pilot.step()
    assert [(each.subject, each.stage) for each in steps] == [(begun.subject, S.FITTED), (new, S.ARM)]
    epoch = arms_of(own.store.read(reads.last_epoch))
    assert epoch.shared == (champion,) and epoch.owners == {new: key}
    assert epoch.heirs == {new: Heir(champion, 5.0)}
    # It is neither crowned nor adopted, ends no pooled generation, and is fitted again by ten more edits.
    assert own.pilot.step() == [] and own.stages().generation == 0 and not own.stages().was_lost
    edits(own, 9, "ada")
    assert own.pilot.step() == []
    edits(own, 1, "ada")
    (again,) = own.pilot.step()
    assert again.subject == f"personal-{key[:8]}-2"


def test_a_user_who_is_forgotten_gets_no_arm(own):
    edits(own, 10, "ada")
    assert len(own.pilot.step()) == 1
    with own.store.transaction() as connection:
        writes.remove_texts(connection, [f"r{i}" for i in range(1, own.n + 1)])
    own.restart()
    (failed,) = own.pilot.step()
    assert failed.stage is S.FAILED and failed.reason == "its user is not there any more"


def test_a_user_who_is_forgotten_while_the_fit_runs_gets_no_arm(own):
    edits(own, 10, "ada")
    (begun,) = own.pilot.step()
    with own.store.transaction() as connection:
        writes.remove_texts(connection, [f"r{i}" for i in range(1, own.n + 1)])
    own.fitter.result = FitResult(make_run(Path(begun.lineage.run), ("early",)))
    (failed,) = own.pilot.step()
    assert failed.stage is S.FAILED and failed.reason == "its user is not there any more"
    assert arms_of(own.store.read(reads.last_epoch)).owners == {}


def test_an_arm_of_one_user_is_never_for_others():
    found = stages()
    assert found.owner(OWN) == "ada" and found.owner(CHAMPION) == ""
    assert found.may_become(OWN) == {S.RETIRED, S.ROLLED_BACK}
    for stage in (S.CANARY, S.SHADOW, S.CHAMPION):
        with pytest.raises(AutopilotError, match="cannot become"):
            found.apply(Transition(OWN, S.ARM, stage, 9.0, "somebody"))
    found.apply(Transition(OWN, S.ARM, S.RETIRED, 9.0, "somebody"))
    assert found.may_become(OWN) == {S.ARM}


def test_an_arm_that_was_promoted_by_hand_is_known_as_its_users(own):
    key, new = user_key("salt", "ada"), "early@22222222"
    with own.store.transaction() as connection:
        champion = own.stages().champion
        epoch = arms_of(reads.last_epoch(connection)).next((champion, new), owners={new: key})
        writes.insert_event(connection, {"time": own.now} | epoch_columns(epoch, None))
    (adopted,) = own.pilot.step()
    assert (adopted.subject, adopted.stage, adopted.lineage.owner) == (new, S.ARM, key)
    assert own.stages().owner(new) == key and own.pilot.step() == []
    assert arms_of(own.store.read(reads.last_epoch)).owners == {new: key}


def test_without_an_adapter_of_the_champion_there_is_nothing_to_begin_at(bench):
    bench.config = bench.config.model_copy(update={"personal_edits": 5, "min_edits": 1000})
    bench.pilot = bench.new()
    bench.rounds(20, "sft@11111111", "a b", "a c", user="ada")
    for _ in range(4):
        bench.pilot.step()
    assert bench.fitter.started == []
