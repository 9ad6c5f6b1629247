"""State: a fold over events, whatever order feedback comes in."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.errors import BanditError
from editloop.online import (
    Arms,
    Bandit,
    BanditConfig,
    Decided,
    Feedback,
    Rerouted,
    State,
    append_events,
    event_from_json,
    read_events,
)
from editloop.online.state import FORMAT

DATA = Path(__file__).parent / "data"


def state(**options: float) -> State:
    new = State(**options)  # type: ignore[arg-type]
    new.apply(Arms(1, ("a", "b")))
    return new


def decided(response: str, arm: str = "a", scope: str = "", epoch: int = 1) -> Decided:
    return Decided(response, scope, arm, 1.0, epoch)


def edited(response: str, cost: float, revision: int = 0) -> Feedback:
    return Feedback(response, "edited", cost, revision)


def counts(of: State, arm: str = "a", scope: str = "") -> tuple[float, float, float]:
    tally = of.tally(scope, arm)
    return tally.observed, tally.pending, tally.cost


def test_a_response_is_pending_until_its_cost_is_known():
    s = state()
    s.apply(decided("1"))
    assert counts(s) == (0, 1, 0)
    s.apply(edited("1", 0.25))
    assert counts(s) == (1, 0, 0.25)
    assert counts(s, "b") == (0, 0, 0)


def test_a_rerouted_pull_is_the_other_arms():
    s = state(discount=0.5)
    s.apply(decided("1"))
    s.apply(decided("2"))
    s.apply(Rerouted("1", "b"))
    assert counts(s) == (0, 1, 0) and counts(s, "b") == (0, 0.5, 0)
    s.apply(edited("1", 1.0))
    assert counts(s) == (0, 1, 0) and counts(s, "b") == (0.5, 0, 0.5)
    for event in (Rerouted("1", "a"), Rerouted("2", "a"), Rerouted("3", "a")):
        assert not s.apply(event)  # answered, the same arm, unknown
    assert event_from_json(json.loads(json.dumps(Rerouted("1", "b").to_json()))) == Rerouted("1", "b")


def test_the_first_cost_is_not_dropped():
    s = state()
    for i, cost in enumerate([1.0, 0.5]):
        s.apply(decided(str(i)))
        s.apply(edited(str(i), cost))
    assert counts(s) == (2, 0, 1.5)


def test_an_accepted_response_costs_nothing_and_an_expired_one_is_not_observed():
    s = state()
    for response in "12":
        s.apply(decided(response))
    s.apply(Feedback("1", "accepted", 0.0))
    s.apply(Feedback("2", "expired", None))
    assert counts(s) == (1, 0, 0)
    assert s.tally("", "a").expired == s.pool("a").expired == 1


def test_a_response_without_a_draft_leaves_no_count():
    s = state()
    s.apply(decided("1"))
    assert s.apply(Feedback("1", "void", None))
    assert counts(s) == (0, 0, 0) and s.tally("", "a").expired == 0
    assert not s.apply(edited("1", 0.5, revision=1))
    assert s.skipped == {"after expiry": 1}
    event = Feedback("1", "void", None)
    assert event_from_json(json.loads(json.dumps(event.to_json()))) == event
    with pytest.raises(BanditError, match="void has no cost"):
        event_from_json(event.to_json() | {"cost": 0.5})


def test_expired_pulls_lose_weight_like_the_others():
    s = state(discount=0.5)
    for response in "123":
        s.apply(decided(response))
        if response != "3":
            s.apply(Feedback(response, "expired", None))
    assert s.tally("", "a").expired == s.pool("a").expired == 0.25 + 0.5


def test_a_cost_counts_for_the_bound_at_most_also_when_it_is_revised():
    s = state(bound=1.0)
    s.apply(decided("1"))
    s.apply(edited("1", 19.0, revision=1))
    assert counts(s) == (1, 0, 1.0) and s.tally("", "a").square == 1.0
    s.apply(edited("1", 0.25, revision=2))
    assert counts(s) == (1, 0, 0.25) and s.tally("", "a").square == 0.0625


def test_throwing_a_draft_away_is_a_revision_of_its_edit():
    s = state()
    s.apply(decided("1"))
    s.apply(edited("1", 0.25, revision=1))
    assert s.apply(Feedback("1", "discarded", 1.0, revision=2))
    assert counts(s) == (1, 0, 1.0)
    assert not s.apply(edited("1", 0.25, revision=1))


def test_a_snapshot_of_version_1_is_read_as_a_replay_of_its_events_would_be():
    row = json.loads((DATA / "snapshot-1.json").read_text(encoding="utf-8"))
    read = Bandit.from_json(row)
    replayed = Bandit.replay(read_events(DATA / "events-1.jsonl"), read.config)
    assert read.config.discount == 0.95 and read.config.bounded
    assert read.arms == replayed.arms and read.state.decisions == replayed.state.decisions == 60
    for scope in ("", "ada", "bob"):
        for expected, found in zip(replayed.beliefs(scope), read.beliefs(scope), strict=True):
            assert found == pytest.approx(expected, abs=1e-12)
    assert sum(read.state.pool(arm).expired for arm in read.arms) > 1
    assert read.state.unknown == replayed.state.unknown == 1
    assert read.to_json()["state"]["format"] == FORMAT
    assert Bandit.from_json(read.to_json()).to_json() == read.to_json()
    with pytest.raises(BanditError, match="incomplete"):
        Bandit.from_json(row | {"state": row["state"] | {"responses": {"1": ["ada"]}}})


def test_the_last_revision_counts_whatever_order_they_come_in():
    s = state()
    s.apply(decided("1"))
    assert s.apply(edited("1", 0.2, revision=1))
    assert s.apply(edited("1", 0.5, revision=3))
    assert not s.apply(edited("1", 0.9, revision=2))
    assert not s.apply(edited("1", 0.5, revision=3))
    assert counts(s) == (1, 0, 0.5)
    assert s.skipped == {"superseded": 1, "repeated": 1}


def test_feedback_may_come_before_its_decision():
    s = state()
    assert not s.apply(edited("1", 0.5, revision=1))
    assert not s.apply(edited("1", 0.1, revision=0))
    assert s.unknown == 1
    s.apply(decided("1", "b"))
    assert counts(s, "b") == (1, 0, 0.5)
    assert s.unknown == 0


def test_feedback_after_expiry_is_passed_over_and_counted():
    s = state()
    s.apply(decided("1"))
    s.apply(Feedback("1", "expired", None))
    assert not s.apply(edited("1", 0.5, revision=1))
    assert counts(s) == (0, 0, 0)
    assert s.skipped == {"after expiry": 1}


def test_a_decision_that_comes_twice_counts_once():
    s = state()
    assert s.apply(decided("1"))
    assert not s.apply(decided("1"))
    assert counts(s) == (0, 1, 0)


def test_feedback_for_a_retired_arm_still_counts():
    s = state()
    s.apply(decided("1"))
    s.apply(Arms(2, ("b", "c")))
    s.apply(edited("1", 0.5))
    assert counts(s) == (1, 0, 0.5)
    s.apply(Arms(3, ("a", "b")))
    assert counts(s) == (1, 0, 0.5)
    with pytest.raises(BanditError, match="arm that is not played: 'c'"):
        s.apply(decided("2", "c", epoch=3))
    with pytest.raises(BanditError, match="epoch must follow"):
        s.apply(Arms(3, ("a",)))


def test_a_discount_fades_with_the_scopes_own_decisions():
    s = state(discount=0.5)
    s.apply(decided("1"))
    s.apply(edited("1", 0.8))
    s.apply(decided("2", "b"))  # halves what is known of a
    s.apply(decided("3", "b", scope="other"))  # of another scope
    assert counts(s) == (0.5, 0, 0.4)
    assert counts(s, "b") == (0, 1, 0)
    s.apply(decided("4", "b"))
    s.apply(edited("2", 0.6))  # late: it has the weight of its decision
    assert counts(s, "b") == (0.5, 1, 0.3)
    s.apply(edited("2", 0.2, revision=1))
    assert counts(s, "b") == pytest.approx((0.5, 1, 0.1))


def test_memory_is_bounded_and_what_is_let_go_was_never_answered():
    s = state(memory=2)
    for i in range(4):
        s.apply(decided(str(i)))
    assert counts(s) == (0, 2, 0)
    s.apply(edited("0", 0.5))
    assert s.unknown == 1
    assert counts(s) == (0, 2, 0)


def test_pools_are_the_sums_over_scopes():
    s = state(discount=0.9)
    costs = {"u": [0.1, 0.4, 0.2], "v": [0.7], "w": [0.3, 0.3]}
    for scope, values in costs.items():
        for i, cost in enumerate(values):
            s.apply(decided(f"{scope}{i}", scope=scope))
            s.apply(edited(f"{scope}{i}", cost))
    tallies = [s.tally(scope, "a") for scope in costs]
    pool = s.pool("a")
    assert pool.scopes == 3
    assert pool.observed == pytest.approx(sum(t.observed for t in tallies))
    assert pool.cost == pytest.approx(sum(t.cost for t in tallies))
    assert pool.between == pytest.approx(sum(t.cost**2 / t.observed for t in tallies))
    assert pool.observed_square == pytest.approx(sum(t.observed**2 for t in tallies))


costs = st.floats(0, 5, allow_nan=False)
responses = st.integers(0, 8).map(str)
events = st.lists(
    st.one_of(
        st.builds(decided, responses, st.sampled_from("ab"), st.sampled_from(["", "u", "v"])),
        st.builds(edited, responses, costs, st.integers(0, 3)),
        st.builds(lambda r: Feedback(r, "expired", None), responses),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(events, events, st.sampled_from([1.0, 0.9]))
def test_a_snapshot_is_the_replay_exactly(before, after, discount):
    config = BanditConfig(discount=discount, memory=5)
    head = [Arms(1, ("a", "b")), *before]
    snapshot = Bandit.from_json(json.loads(json.dumps(Bandit.replay(head, config).to_json())))
    for event in after:
        snapshot.state.apply(event)
    replayed = [event_from_json(json.loads(json.dumps(event.to_json()))) for event in [*head, *after]]
    assert replayed == [*head, *after]
    assert snapshot.to_json() == Bandit.replay(replayed, config).to_json()
    assert snapshot.config == config


@settings(deadline=None, max_examples=60)
@given(st.lists(st.tuples(st.sampled_from("ab"), costs), min_size=1, max_size=12), st.randoms())
def test_the_order_of_feedback_does_not_matter(pulls, generator):
    def fold(order):
        s = state()
        for i, (arm, _) in enumerate(pulls):
            s.apply(decided(str(i), arm))
        for i in order:
            s.apply(edited(str(i), pulls[i][1]))
        return s

    order = list(range(len(pulls)))
    plain = fold(order)
    generator.shuffle(order)
    for arm in "ab":
        assert counts(fold(order), arm) == pytest.approx(counts(plain, arm))


@pytest.mark.parametrize("cost", [math.nan, math.inf, -0.1, None, True])
def test_a_cost_that_no_edit_has_is_refused(cost):
    bandit = Bandit(["a"])
    bandit.decide("1")
    before = bandit.to_json()
    with pytest.raises(BanditError, match="finite number, at least 0"):
        bandit.edited("1", cost)
    assert bandit.to_json() == before


def test_events_survive_in_a_file_and_a_cut_line_never_happened(tmp_path):
    path = tmp_path / "events.jsonl"
    rows = [Arms(1, ("a", "b")), decided("1"), edited("1", 0.1 + 0.2), Feedback("2", "expired", None)]
    append_events(path, rows[:2])
    append_events(path, rows[2:])
    assert list(read_events(path)) == rows
    with path.open("a") as file:
        file.write('{"event": "decided", "resp')
    assert list(read_events(path)) == rows
    append_events(path, rows[:1])
    assert list(read_events(path)) == [*rows, rows[0]]
    path.write_text('{"event": "arms"\n{}\n')
    with pytest.raises(BanditError, match=r"line 1 of .* is damaged"):
        list(read_events(path))
    path.write_text('{"event": "edited", "response_id": "1", "cost": NaN, "revision": 0}\n')
    with pytest.raises(BanditError, match="finite number"):
        list(read_events(path))
    path.write_text('{"event": "gone"}\n')
    with pytest.raises(BanditError, match="unknown event: 'gone'"):
        list(read_events(path))


def test_a_snapshot_of_another_version_or_cut_short_is_refused():
    snapshot = Bandit(["a"]).to_json()
    with pytest.raises(BanditError, match="another version: 99"):
        Bandit.from_json(snapshot | {"state": snapshot["state"] | {"format": 99}})
    for key in snapshot["state"].keys() - {"format"}:
        short = {k: v for k, v in snapshot["state"].items() if k != key}
        with pytest.raises(BanditError, match="incomplete"):
            Bandit.from_json(snapshot | {"state": short})
    with pytest.raises(BanditError, match="incomplete"):
        Bandit.from_json({"state": snapshot["state"]})
