"""Outcomes of drafts, and win rates of sampled ones, as an evaluation reports them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.edits.record import Record
from editloop.errors import EmptyViewError
from editloop.offline import Completions, Example, FitConfig, evaluate, fit
from editloop.offline.outcomes import Outcomes, read_outcomes
from editloop.policy import ContextTree, Policy, RunFolder, load_base
from small_log import RecordingCallback, small_log


def example(i: int, length: int, reference: float | None = None) -> Example:
    tree = ContextTree((1,), (tuple(range(2, 2 + length)),))
    known = None if reference is None else (reference,)
    own = Completions(tree, {"edit": (0,), "response": (0,)}, reference=known)
    return Example(str(i), "x", "edit", f"response {i}", own)


def test_discrimination_by_hand():
    # Shifts from the reference: good drafts 2 and 0, bad ones 1 and −1. Of four pairs, three are right.
    examples = [example(i, 2, -5.0) for i in range(4)]
    outcomes = Outcomes("pass", np.array([1.0, 1.0, 0.0, 0.0]), examples)
    shifted = [[-5.0 + shift] for shift in (2.0, 0.0, 1.0, -1.0)]
    assert outcomes.discrimination(shifted) == 0.75
    # A tie is half a pair.
    assert outcomes.discrimination([[-4.0]] * 4) == 0.5


def test_the_reference_itself_is_compared_by_token():
    examples = [example(0, 4, -4.0), example(1, 1, -2.0)]
    outcomes = Outcomes("pass", np.array([1.0, 0.0]), examples)
    assert outcomes.discrimination([[-4.0], [-2.0]]) == 1.0


def test_what_is_not_known_does_not_count():
    examples = [example(i, 2, -5.0) for i in range(3)]
    outcomes = Outcomes("score", np.array([4.0, np.nan, 1.0]), examples)
    assert outcomes.discrimination([[-3.0], [9.0], [-4.0]]) == 1.0
    found = outcomes.summary(np.array([0.1, 9.0, 0.5]))
    assert (found["rows"], found["mean"]) == (2, 2.5)
    assert found["cost"]["good"]["mean"] == 0.1
    assert found["cost"]["other"]["mean"] == 0.5


def test_drafts_that_all_came_to_the_same_end_tell_nothing():
    examples = [example(i, 2, -5.0) for i in range(2)]
    outcomes = Outcomes("pass", np.array([1.0, 1.0]), examples)
    assert outcomes.discrimination([[-3.0], [-4.0]]) is None
    found = outcomes.summary(np.array([0.1, 0.3]))
    assert found["mean"] == 1.0
    assert found["cost"] == {"good": {"mean": 0.2, "se": pytest.approx(0.1)}}
    none = Outcomes("pass", np.array([0.0, 0.0]), examples).summary(np.array([0.1, 0.3]))
    assert list(none["cost"]) == ["other"]
    scores = Outcomes("score", np.array([7.0, 7.0]), examples).summary(np.array([0.1, 0.3]))
    assert list(scores["cost"]) == ["good"]


def test_outcomes_are_read_from_the_metadata():
    values = [{"pass": True}, {"pass": False}, {"pass": 0.5}, {"pass": "yes"}, {}, {"other": 1}]
    rows = [
        Record(id=str(i), context="x", response=f"response {i}", edit="edit", metadata=each)
        for i, each in enumerate(values)
    ]
    found = read_outcomes("pass", rows, [example(i, 1) for i in range(6)])
    assert found.values[:3].tolist() == [1.0, 0.0, 0.5]
    assert np.isnan(found.values[3:]).all()
    with pytest.raises(EmptyViewError, match=r"no row has this outcome.*'ci' \(use one of other, pass\)"):
        read_outcomes("ci", rows, [example(0, 1)])


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(chat=True), device="cpu")


@pytest.fixture(scope="module")
def run(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    config = FitConfig(
        methods=("sft",),
        hyperparameters={"sft": {"learning_rate": 1e-2}},
        epochs=2.0,
        batch_size=8,
        validation_samples=0,
        max_new_tokens=8,
    )
    return fit(small_log(60), policy, tmp_path_factory.mktemp("outcomes") / "run", config, report=False)


def held() -> list[Record]:
    """New rows, of which every other one passes."""
    rows = small_log(90)[60:]
    return [
        row.model_copy(update={"context": f"new {i}", "metadata": {"pass": i % 2 == 0}})
        for i, row in enumerate(rows)
    ]


class _Judge:
    """Prefers the longer draft, and has no opinion on the first pair."""

    def wins_many(self, contexts: Any, drafts: Any, others: Any) -> Any:
        self.asked = list(zip(contexts, drafts, others, strict=True))
        wins = [float(len(a) > len(b)) for a, b in zip(drafts, others, strict=True)]
        return np.array([np.nan, *wins[1:]]), ["nonsense: 'I love both'"]


def test_an_evaluation_says_what_outcomes_and_judges_say(run: RunFolder, policy: Policy) -> None:
    judge, callback = _Judge(), RecordingCallback()
    found = evaluate(run, held(), base=policy, samples=12, outcome="pass", judge=judge, callback=callback)
    assert found["outcome"]["mean"] == 0.5
    assert found["outcome"]["rows"] == 30
    assert 0 <= found["policies"]["sft"]["outcome"] <= 1
    assert "wins" not in found["policies"]["base"]
    wins = found["policies"]["sft"]["wins"]
    assert wins["cost"]["n"] == 12
    assert wins["judge"]["n"] == 11
    assert any("1 of 12 pairs without a verdict: nonsense" in line for line in callback.lines)
    # The judge has seen what was sampled, in order, beside the base's samples for the same contexts.
    assert [each[0] for each in judge.asked] == [f"new {i}" for i in range(12)]
    examples = found["policies"]["sft"]["sampled"]["examples"]
    assert [each[1] for each in judge.asked[:5]] == [each["sample"] for each in examples]
    assert "costs" not in found["policies"]["sft"]["sampled"]


def test_without_samples_there_are_no_wins(run: RunFolder, policy: Policy) -> None:
    found = evaluate(run, held(), base=policy)
    assert "wins" not in found["policies"]["sft"]
    assert "outcome" not in found["policies"]["sft"]


def test_more_samples_than_ten_keep_their_order(run: RunFolder, policy: Policy, tmp_path: Path) -> None:
    """Samples are kept by place; places are numbers, not texts, so that the tenth comes after the ninth."""
    judge = _Judge()
    evaluate(run, held(), base=policy, samples=12, judge=judge)
    with run.policy("sft", policy) as sft:
        drawn = sft.sample([row.context for row in held()[:12]], seed=0, max_new_tokens=8)
    assert [each[1] for each in judge.asked] == [each.text for each in drawn]
