"""Logs of the lab, and what a policy costs a user."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import pytest

from editloop.edits import Record, get_cost, read_log
from editloop.edits.writing import write_log
from editloop.errors import ConfigError, ModelError
from editloop.lab import base_path, evaluate_on_user, get_domain, make_log, stream_log
from editloop.lab.settings import COST
from editloop.policy import Policy, Sample, load_base
from editloop.users import StyleUser, get_user

EMAIL = get_domain("email")


@pytest.fixture(scope="module")
def base() -> Policy:
    return load_base(base_path("email"), device="cpu")


class Scripted:
    """A policy that answers every context with one text, or with those of a list in turn."""

    def __init__(self, *texts: str) -> None:
        self.texts = texts

    def sample(self, contexts: list[str], **_: object) -> list[Sample]:
        return [Sample(self.texts[i % len(self.texts)], 1, True, 0) for i in range(len(contexts))]


def test_a_log_holds_what_the_policy_wrote_and_the_user_made_of_it(base: Policy) -> None:
    user = get_user("strong", EMAIL)
    progress: list[int] = []
    records = make_log(EMAIL, user, 60, 0, policy=base, progress=progress.append)
    assert progress == list(range(1, 61))
    assert [record.context for record in records] == list(islice(EMAIL.contexts(0), 60))
    assert len({record.id for record in records}) == 60
    for record in records:
        assert isinstance(record.context, str)
        assert record.edit == user.edit(record.context, record.response)
        assert record.status == ("accepted" if record.edit == record.response else "edited")
        assert (record.user, record.policy, record.propensity) == ("strong", "base", 1.0)
        assert record.metadata == {"kind": EMAIL.read(record.context).kind}
    times = [record.time for record in records]
    assert None not in times and times == sorted(times, key=str)


def test_a_shorter_log_is_the_beginning_of_a_longer_one(base: Policy) -> None:
    def made(rows: int, seed: int) -> list[Record]:
        return list(stream_log(EMAIL, get_user("weak", EMAIL), rows, seed, policy=base, chunk=8))

    assert made(11, 3) == made(20, 3)[:11]
    assert made(11, 4) != made(11, 3)
    assert made(0, 3) == []


def test_a_log_streams_to_a_file_and_back(base: Policy, tmp_path: Path) -> None:
    user = get_user("weak", EMAIL)
    path = tmp_path / "log.jsonl"
    assert write_log(stream_log(EMAIL, user, 30, 0, policy=base), path) == 30
    assert list(read_log(path).records) == make_log(EMAIL, user, 30, 0, policy=base)


def test_a_blank_response_is_skipped() -> None:
    records = make_log(EMAIL, get_user("weak", EMAIL), 5, 0, policy=Scripted("", "Hi", " "))  # type: ignore[arg-type]
    assert [record.response for record in records] == ["Hi"] * 5
    with pytest.raises(ModelError, match="of the policy are blank: 'base'"):
        make_log(EMAIL, get_user("weak", EMAIL), 5, 0, policy=Scripted("\n"))  # type: ignore[arg-type]


def test_sizes_that_make_no_sense_are_refused(base: Policy) -> None:
    with pytest.raises(ConfigError, match="number of rows is negative: -1"):
        make_log(EMAIL, get_user("weak", EMAIL), -1, 0, policy=base)
    with pytest.raises(ConfigError, match="too few responses for a standard error: 1"):
        evaluate_on_user(base, EMAIL, get_user("weak", EMAIL), 1, 0)


def test_an_evaluation_counts_what_the_user_changed() -> None:
    contexts = list(islice(EMAIL.contexts(0, stream="evaluation"), 2))
    first = EMAIL.render(EMAIL.wanted(contexts[0]))
    user = StyleUser(EMAIL, repair=1.0, name="sure")
    evaluation = evaluate_on_user(Scripted(first, "one two three"), EMAIL, user, 2, 0)  # type: ignore[arg-type]
    assert evaluation.contexts == tuple(contexts)
    # The first is what is wanted; all three words of the second are replaced, and the rest is inserted.
    rewritten = EMAIL.render(EMAIL.wanted(contexts[1]))
    assert evaluation.edits == (first, rewritten)
    np.testing.assert_allclose(evaluation.costs, [0, len(rewritten.split()) / 3])
    assert evaluation.well_formed.tolist() == [True, False]
    assert evaluation.share_well_formed == 0.5
    c = len(rewritten.split()) / 3
    assert evaluation.mean == pytest.approx(c / 2)
    assert evaluation.standard_error == pytest.approx(c / 2)  # |0 - c| / sqrt(2) / sqrt(2)


def test_an_evaluation_asks_for_many_edits_at_once() -> None:
    asked: list[int] = []

    class Team(StyleUser):
        def edit_many(self, contexts: Sequence[str], responses: Sequence[str]) -> list[str]:
            asked.append(len(contexts))
            return [self.edit(*pair) for pair in zip(contexts, responses, strict=True)]

    evaluate_on_user(Scripted("Hi"), EMAIL, Team(EMAIL, repair=1.0, name="team"), 3, 0)  # type: ignore[arg-type]
    assert asked == [3]


def test_evaluations_of_one_seed_ask_the_same_contexts_and_no_log_does(base: Policy) -> None:
    user = get_user("strong", EMAIL)
    a, b = (evaluate_on_user(base, EMAIL, user, 40, 0) for _ in range(2))
    assert a.contexts == b.contexts and a.responses == b.responses
    np.testing.assert_array_equal(a.costs, b.costs)
    np.testing.assert_array_equal(a.costs, get_cost(COST)(a.responses, a.edits))
    assert not set(a.contexts) & set(islice(EMAIL.contexts(0), 1000))
    assert evaluate_on_user(base, EMAIL, user, 40, 1).contexts != a.contexts


def test_the_base_costs_a_strong_user_about_three_fifths_of_its_words(base: Policy) -> None:
    evaluation = evaluate_on_user(base, EMAIL, get_user("strong", EMAIL), 200, 0)
    assert abs(evaluation.mean - 0.61) < 4 * evaluation.standard_error
    assert evaluation.standard_error < 0.03
