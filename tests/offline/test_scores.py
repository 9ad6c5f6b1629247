"""Figures of a policy: accuracy, ties, ratios and standard errors, by hand; alarms raised and not raised."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from editloop.edits import get_cost
from editloop.edits.record import Record
from editloop.offline import (
    Estimate,
    SampleCheck,
    Scores,
    check_samples,
    make_examples,
    raise_alarms,
    reference_pass,
    score,
)
from editloop.policy import Sample, load_base


def scores() -> Scores:
    """Four rows, three of them pairs: won, tied and lost."""
    return Scores(
        chosen=np.array([-2.0, -4.0, -3.0, -10.0]),
        lengths=np.array([2.0, 4.0, 3.0, 1.0]),
        ref_chosen=np.array([-3.0, -4.0, -3.0, -9.0]),
        pair=np.array([0, 1, 3]),
        rejected=np.array([-5.0, -4.0, -6.0]),
        ref_rejected=np.array([-5.0, -3.5, -9.0]),
    )


def test_estimates_by_hand() -> None:
    assert Estimate.of(np.array([1.0, 2.0, 6.0])) == Estimate(3.0, pytest.approx(math.sqrt(7 / 3)), 3)
    one = Estimate.of(np.array([5.0]))
    assert one is not None
    assert (one.mean, one.n, math.isnan(one.se)) == (5.0, 1, True)  # a row alone says nothing of its spread
    assert Estimate.of(np.array([])) is None


def test_accuracy_ties_and_shifts_by_hand() -> None:
    made = scores()
    assert made.log_ratio.tolist() == [3.0, 0.0, -4.0]
    # Reference: 2, -.5 and 0; margins 1, .5 and -4.
    assert made.margin.tolist() == [1.0, 0.5, -4.0]
    figures = made.figures(beta=0.5)
    spread = math.sqrt(((1 - 0.5) ** 2 + 0 + (0 - 0.5) ** 2) / 2 / 3)
    # Wilson: (s + z²/2n ± z √(s(1 - s)/n + z²/4n²)) / (1 + z²/n), here .5 ± z / (2 √(3 + z²)), z² = 3.8414588
    wilson = pytest.approx((0.1253345, 0.8746655), abs=1e-6)
    assert figures["accuracy"] == {
        "mean": pytest.approx(0.5),
        "se": pytest.approx(spread),
        "n": 3,
        "interval": wilson,
    }
    assert figures["reference_accuracy"] is not None
    assert figures["reference_accuracy"]["mean"] == pytest.approx(2 / 3)
    expected = [math.log(1 + math.exp(-0.5 * m)) for m in (1.0, 0.5, -4.0)]
    assert figures["preference_nll"] is not None
    assert figures["preference_nll"]["mean"] == pytest.approx(np.mean(expected))
    assert figures["edit_nll_per_edit"] == {
        "mean": 4.75,
        "se": pytest.approx(np.std([2, 4, 3, 10], ddof=1) / 2),
        "n": 4,
    }
    assert figures["chosen_shift"] is not None
    assert figures["chosen_shift"]["mean"] == pytest.approx(0.0)  # +1, 0, 0, -1
    assert figures["rejected_shift"] is not None
    assert figures["rejected_shift"]["mean"] == pytest.approx((0 - 0.5 + 3) / 3)


def test_a_difference_within_rounding_is_a_tie() -> None:
    made = Scores(
        *(
            np.array(v)
            for v in ([-1.0, -1.0], [1.0, 1.0], [0.0, 0.0], [0, 1], [-1.0 - 1e-9, -1.1], [0.0, 0.0])
        )
    )
    accuracy = made.figures()["accuracy"]
    assert accuracy is not None
    assert accuracy["mean"] == 0.75


def test_the_loss_per_token_is_a_ratio_of_sums_with_its_standard_error() -> None:
    found = scores().token_nll()
    assert found is not None
    assert found.mean == pytest.approx(19 / 10)
    # Residuals nll - 1.9 length over the mean length 2.5.
    residuals = np.array([2 - 3.8, 4 - 7.6, 3 - 5.7, 10 - 1.9]) / 2.5
    assert found.se == pytest.approx(residuals.std(ddof=1) / 2)
    assert found.n == 4


def test_the_standard_error_of_the_ratio_is_that_of_a_bootstrap() -> None:
    """A gate: 2000 resamples of 300 rows, within 10 % of the formula (a bootstrap's own error is 1.6 %)."""
    draw = np.random.default_rng(0)
    lengths = draw.integers(1, 40, 300).astype(float)
    chosen = -lengths * draw.gamma(4, 0.5, 300)
    nothing = np.zeros(0)
    made = Scores(chosen, lengths, chosen, nothing.astype(np.int64), nothing, nothing)
    rows = draw.integers(0, 300, (2000, 300))
    resampled = -chosen[rows].sum(1) / lengths[rows].sum(1)
    found = made.token_nll()
    assert found is not None
    assert found.se == pytest.approx(resampled.std(), rel=0.1)


def test_without_rows_or_pairs_there_are_no_figures() -> None:
    nothing = np.zeros(0)
    made = Scores(nothing, nothing, nothing, nothing.astype(np.int64), nothing, nothing)
    assert set(made.figures().values()) == {None}


def records() -> list[Record]:
    return [
        Record(id="a", context="say a", response="hello there", edit="hello"),
        Record(id="b", context="say b", response="bye", edit="bye"),
        Record(id="c", context="say c", response="one", edit="two"),
    ]


def test_scoring_reads_edit_and_response_of_each_example(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    examples = make_examples(records(), policy.encoder).examples
    held, _ = reference_pass(policy, examples)
    found = score(policy, held)
    assert found.pair.tolist() == [0, 2]
    assert found.lengths.tolist() == [6, 4, 4]  # "hello", "bye", "two" and the end
    direct = policy.log_probs([e.tree for e in examples])
    assert found.chosen.tolist() == pytest.approx([direct[i][0] for i in range(3)], abs=1e-4)
    assert found.rejected.tolist() == pytest.approx([direct[i][1] for i in (0, 2)], abs=1e-4)
    # The policy is its own reference: every margin is a tie.
    figures = found.figures()
    assert figures["reference_accuracy"] == {
        "mean": 0.5,
        "se": 0.0,
        "n": 2,
        "interval": pytest.approx((0.0945312, 0.9054688), abs=1e-6),
    }
    assert figures["chosen_shift"] == {
        "mean": pytest.approx(0, abs=1e-6),
        "se": pytest.approx(0, abs=1e-6),
        "n": 3,
    }


def test_samples_are_compared_with_the_edits(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    examples = list(make_examples(records(), policy.encoder).examples)
    cost = get_cost("levenshtein:char/none")
    check = check_samples(policy, examples, cost, seed=0, max_new_tokens=6)
    assert check is not None
    drawn = policy.sample([e.context for e in examples], seed=0, max_new_tokens=6)
    samples = [s.text for s in drawn]
    expected = cost(samples, ["hello", "bye", "two"])
    # What was cut costs at least the edit's own length, for this cost has no scale.
    expected = [c if s.finished else max(c, n) for c, s, n in zip(expected, drawn, (5, 3, 3), strict=True)]
    assert check.cost.mean == pytest.approx(sum(expected) / 3)
    assert [e["finished"] for e in check.examples] == [s.finished for s in drawn]
    assert check.length_ratio == pytest.approx(sum(map(len, samples)) / 11)
    assert [e["sample"] for e in check.examples] == samples
    assert [e["edit"] for e in check.examples] == ["hello", "bye", "two"]
    assert check_samples(policy, [], get_cost(), seed=0, max_new_tokens=6) is None


def test_an_empty_sample_is_counted_and_costs_what_the_cost_says(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    examples = list(make_examples(records(), policy.encoder).examples[:2])
    drawn = iter([Sample("", 1, True, 0), Sample("bye", 4, True, 0)])
    policy.sample = lambda contexts, **_: [next(drawn) for _ in contexts]  # type: ignore[method-assign]
    check = check_samples(policy, examples, get_cost("levenshtein:char/response"), seed=0, max_new_tokens=6)
    assert check is not None
    assert (check.cost.mean, check.empty, check.non_answers) == (2.5, 0.5, 0.5)  # "" to "hello" costs 5
    assert check.edits_non_answers == 0
    assert SampleCheck.from_json(check.to_json()) == check


def test_rambling_that_was_cut_does_not_beat_a_response_that_ends(base: Any) -> None:
    """By its text, the one that was cut keeps a third of its words, and the other one none."""
    policy = load_base(base(), device="cpu")
    examples = list(make_examples(records(), policy.encoder).examples[:1])  # the edit is "hello"

    def cost_of(text: str, finished: bool) -> SampleCheck:
        policy.sample = lambda contexts, **_: [Sample(text, 6, finished, 0)]  # type: ignore[method-assign]
        check = check_samples(policy, examples, get_cost(), seed=0, max_new_tokens=6)
        assert check is not None
        return check

    cut, same, poor = cost_of("hello and on", False), cost_of("hello and on", True), cost_of("so what", True)
    assert (cut.cost.mean, same.cost.mean, poor.cost.mean) == (1.0, pytest.approx(2 / 3), 1.0)
    assert cut.in_words() == "1.000 (0% finished, 2.4 times as long as the edits)"


def sampled(
    *,
    looping: float = 0.0,
    unfinished: float = 0.0,
    length_ratio: float = 1.0,
    cost: float = 0.5,
    empty: float = 0.0,
) -> SampleCheck:
    return SampleCheck(Estimate(cost, 0.03, 20), looping, unfinished, length_ratio, [], empty)


def alarms(**changes: Any) -> list[str]:
    given: dict[str, Any] = {
        "initial_loss": 2.0,
        "best_loss": 1.0,
        "figures": {"chosen_shift": {"mean": 1.0, "se": 0.1, "n": 50}},
        "sampled": sampled(),
        "base": sampled(),
    }
    return raise_alarms(**(given | changes))


def test_a_good_training_raises_no_alarm() -> None:
    assert alarms() == []
    assert alarms(sampled=None, base=None, figures={}) == []


@pytest.mark.parametrize("best", [2.0, 2.5, math.nan, math.inf])
def test_a_loss_that_never_improved(best: float) -> None:
    (alarm,) = alarms(best_loss=best)
    assert "never improved: 2 before" in alarm
    assert f"{best:.4g} at best" in alarm


def test_one_row_raises_no_alarm() -> None:
    alone = {"chosen_shift": {"mean": -3.25, "se": math.nan, "n": 1}}
    one = SampleCheck(Estimate(9.0, math.nan, 1), 0.0, 0.0, 1.0, [])
    assert alarms(figures=alone, sampled=one) == []


def test_displacement() -> None:
    def shifted(mean: float, se: float) -> list[str]:
        return alarms(figures={"chosen_shift": {"mean": mean, "se": se, "n": 50}})

    (alarm,) = shifted(-3.25, 0.5)
    assert "fell 3.25 nats" in alarm
    assert "50 validation rows" in alarm
    assert shifted(-3.25, 2.0) == []  # within two standard errors
    assert shifted(-0.05, 0.001) == []  # too little to matter


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampled": sampled(looping=0.25)}, "25% of samples end in a repetition loop, base 0%"),
        ({"sampled": sampled(looping=0.25), "base": None}, "25% of samples end in a repetition loop"),
        (
            {"sampled": sampled(unfinished=0.5), "base": sampled(unfinished=0.3)},
            "50% of samples do not end, base 30%",
        ),
        (
            {"sampled": sampled(empty=0.25), "base": sampled(empty=0.1)},
            "25% of samples are empty, base 10%",
        ),
        ({"sampled": sampled(length_ratio=3.0)}, "samples are 3.0 times as long as the edits"),
    ],
)
def test_degenerate_text(changes: dict[str, Any], words: str) -> None:
    (alarm,) = alarms(**changes)
    assert words in alarm


def test_samples_of_which_none_ends() -> None:
    never = sampled(unfinished=1.0)
    assert ["tell nothing" in alarm for alarm in alarms(sampled=never, base=never)] == [True]


def test_what_the_base_does_already_is_no_alarm() -> None:
    odd = sampled(looping=0.3, unfinished=0.9, length_ratio=4.0, empty=0.5)
    same = sampled(looping=0.35, unfinished=0.95, length_ratio=7.0, empty=0.55)
    assert alarms(sampled=same, base=odd) == []


def test_alarm_of_samples_that_cost_more_than_the_bases():
    """Standard errors of .03 and .04 make one of .05 for the difference; 1.5 of them are .075."""
    base = SampleCheck(Estimate(0.5, 0.04, 20), 0.0, 0.0, 1.0, [])
    assert alarms(sampled=sampled(cost=0.574), base=base) == []
    (line,) = alarms(sampled=sampled(cost=0.576), base=base)
    assert "0.576" in line and "0.500" in line
    assert alarms(sampled=sampled(cost=0.576), base=None) == []


def test_a_check_of_samples_is_read_as_it_was_written():
    check = sampled(cost=0.7, looping=0.25)
    assert SampleCheck.from_json(check.to_json()) == check
