"""The stages of policies as a fold over transitions."""

from __future__ import annotations

import pytest

from editloop.autopilot.stages import ALLOWED, BY_HAND, Lineage, Stage, Stages, Transition
from editloop.errors import AutopilotError

S = Stage


def move(subject: str, before: Stage | None, stage: Stage, **more) -> Transition:
    return Transition(subject, before, stage, 1.0, **more)


def test_a_policy_earns_its_traffic_step_by_step():
    stages = Stages()
    path = [S.SHADOW, S.CANARY, S.ARM, S.CHAMPION, S.ARM, S.RETIRED]
    for before, stage in zip([None, *path], path, strict=False):
        stages.apply(move("early@1", before, stage))
        assert stages.of("early@1") is stage
    assert [each.stage for each in stages.history] == path
    assert stages.champion is None and stages.having(S.RETIRED) == ["early@1"]


def test_no_stage_is_skipped_or_taken_twice():
    stages = Stages([move("a@1", None, S.SHADOW)])
    with pytest.raises(AutopilotError, match="a@1 is shadow by now, not new"):
        stages.apply(move("a@1", None, S.SHADOW))
    for stage in (S.ARM, S.CHAMPION, S.RETIRED, S.FITTED):
        with pytest.raises(AutopilotError, match="cannot become"):
            stages.apply(move("a@1", S.SHADOW, stage))
    assert len(stages.history) == 1


def test_one_policy_at_a_time_is_new_to_users():
    stages = Stages([move("a@1", None, S.SHADOW), move("a@1", S.SHADOW, S.CANARY)])
    stages.apply(move("b@1", None, S.SHADOW))
    with pytest.raises(AutopilotError, match="another one is in this stage: canary"):
        stages.apply(move("b@1", S.SHADOW, S.CANARY))
    with pytest.raises(AutopilotError, match="another one is in this stage: champion"):
        Stages([*crowned("c@1"), *crowned("d@1")])


def crowned(arm: str) -> list[Transition]:
    return [move(arm, None, S.ARM), move(arm, S.ARM, S.CHAMPION)]


def test_somebody_may_undo_what_the_autopilot_may_not():
    stages = Stages([move("a@1", None, S.REJECTED)])
    with pytest.raises(AutopilotError, match="cannot become arm from rejected"):
        stages.apply(move("a@1", S.REJECTED, S.ARM))
    stages.apply(move("a@1", S.REJECTED, S.ARM, by="somebody"))
    assert stages.of("a@1") is S.ARM
    assert all(ALLOWED[stage] <= BY_HAND[stage] for stage in ALLOWED)


def test_what_somebody_may_do_depends_on_what_is_under_way():
    stages = Stages([move("a@1", None, S.REJECTED)])
    assert stages.may_become("a@1") == {S.SHADOW, S.CANARY, S.ARM}
    stages.apply(move("b@1", None, S.SHADOW))
    assert stages.may_become("a@1") == {S.CANARY, S.ARM}
    assert stages.may_become("nobody") == frozenset()


def test_a_transition_is_restored_from_its_text():
    lineage = Lineage(3, ("sft@1", "early@2"), "base", 7.5, "runs/3", 400, "ab", 2.5)
    written = move("early@3", None, S.SHADOW, reason="ö", evidence={"n": [1, None]}, lineage=lineage)
    assert Transition.from_text(written.to_text()) == written
    assert Stages([written]).lineage("early@3") == lineage and Stages([written]).generation == 3
    for text in ("", "[]", "{}", '{"subject": "a", "before": null, "stage": "unheard-of", "time": 1}'):
        with pytest.raises(AutopilotError, match="cannot be read"):
            Transition.from_text(text)


def test_the_terms_of_a_canary_by_hand_are_the_last_ones_with_the_champion_of_today():
    stages = Stages([*crowned("old@1"), move("a@1", None, S.SHADOW)])
    first = {"share": 0.2, "unit": "user", "rounds": 400, "draw": 0, "champion": "old@1"}
    assert stages.terms("a@1", S.CANARY) == first
    terms = {"share": 0.1, "unit": "request", "rounds": 50, "draw": 7, "champion": "gone@1", "n": 3}
    stages.apply(move("a@1", S.SHADOW, S.CANARY, evidence=terms))
    stages.apply(move("a@1", S.CANARY, S.ROLLED_BACK))
    again = stages.terms("a@1", S.CANARY)
    assert again == {"share": 0.1, "unit": "request", "rounds": 50, "draw": 7, "champion": "old@1"}
