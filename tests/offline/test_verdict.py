"""The verdict of a run: the policy of least cost, or the base if the errors leave that open."""

from __future__ import annotations

import pytest

from editloop.offline.scoring import Estimate
from editloop.offline.verdict import is_within_error, listed, run_verdict, short_cost

BASE = Estimate(0.69, 0.02, 64)


def test_the_cheapest_policy_is_served_and_the_error_of_the_gain_is_reported() -> None:
    found = run_verdict(BASE, {"sft": Estimate(0.31, 0.02, 64), "early": Estimate(0.05, 0.015, 64)})
    assert found.headline == "Serve early: .69 to .05."
    # The errors of independent means add up by their squares: sqrt(.02² + .015²) = .025.
    assert "a difference of 0.640 ± 0.025" in found.reasons[0]
    assert found.reasons[1] == "No other policy is within two standard errors of it."


def test_policies_within_two_standard_errors_are_called_equally_good() -> None:
    near, far = Estimate(0.09, 0.015, 64), Estimate(0.2, 0.02, 64)
    found = run_verdict(BASE, {"sft": near, "dpo": far, "early": Estimate(0.05, 0.015, 64)})
    assert found.reasons[1] == "Equally good, within two standard errors of it: sft."


@pytest.mark.parametrize("mean", [0.66, 0.72])
def test_a_gain_within_the_error_keeps_the_base(mean: float) -> None:
    found = run_verdict(BASE, {"sft": Estimate(mean, 0.02, 64)})
    assert found.headline == "Keep the base: no policy costs significantly less."


def test_what_was_not_sampled_has_no_verdict() -> None:
    assert run_verdict(None, {"sft": None}).headline == "No verdict: no responses were sampled."
    few = run_verdict(BASE, {"sft": Estimate(0.05, 0.01, 6)})
    assert few.headline == "No verdict: 6 validation rows are too few."


def test_a_policy_that_diverged_is_not_served() -> None:
    nan = float("nan")
    found = run_verdict(BASE, {"sft": Estimate(nan, nan, 64), "dpo": Estimate(0.3, 0.02, 64)})
    assert found.headline == "Serve dpo: .69 to .30."


def test_the_verdict_points_to_an_alarm() -> None:
    found = run_verdict(BASE, {"sft": Estimate(0.05, 0.01, 64)}, warned=["sft"])
    assert found.headline == "Serve sft: .69 to .05, but read its alarm first."


def test_how_costs_and_lists_are_written() -> None:
    assert [short_cost(x) for x in (0.05, 0.996, 1.5, -0.2, 0.0)] == [".05", "1.00", "1.50", "-.20", ".00"]
    assert [listed(list(x)) for x in ("a", "ab", "abc")] == ["a", "a and b", "a, b and c"]
    assert is_within_error(-0.2, 0.1) and not is_within_error(0.21, 0.1)
