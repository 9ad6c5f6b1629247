"""What a policy's own drafts would cost, from logged ones: by hand, and in worlds whose truth is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from editloop.edits import Record, get_cost
from editloop.offline import evaluate, make_examples
from editloop.offline.draft_weights import LEAST_EFFECTIVE, estimate_by_weights, weigh_drafts
from editloop.policy import load_base


def test_the_estimate_by_hand() -> None:
    # Half of 40 drafts are twice as likely by the policy as by the one that wrote them, half a hundredth.
    weights = [math.log(1.98)] * 20 + [math.log(0.02)] * 20
    found = estimate_by_weights(weights, [0.5] * 20 + [0.0] * 20, [str(i) for i in range(40)])
    assert (found.rows, found.logged, found.refused) == (40, 0.25, "")
    assert found.effective == pytest.approx(40**2 / (20 * 1.98**2 + 20 * 0.02**2))
    assert found.cost is not None and found.cost.value == pytest.approx(20 * 1.98 * 0.5 / 40)
    assert found.cost.low < found.cost.value < found.cost.high <= 0.5
    assert found.to_json()["cost"]["n"] == 40


def test_with_the_policy_that_wrote_them_the_estimate_is_the_mean() -> None:
    costs = np.random.default_rng(0).uniform(size=50)
    found = estimate_by_weights(np.zeros(50), costs, [str(i) for i in range(50)])
    assert found.effective == pytest.approx(50)
    assert found.cost is not None and found.cost.value == pytest.approx(costs.mean())


def test_too_little_overlap_gives_no_estimate() -> None:
    found = estimate_by_weights([900.0] + [0.0] * 99, [0.5] * 100, [str(i) for i in range(100)])
    assert found.cost is None and found.effective == pytest.approx(1.0)
    assert found.refused == "too little overlap with the log: 1.0 effective of 100 rows"
    assert found.to_json()["cost"] is None


def test_weights_that_are_not_1_on_average_give_no_estimate() -> None:
    """As with drafts of a low temperature, each of which the log says to be rarer than it was."""
    contexts = [str(i) for i in range(100)]
    found = estimate_by_weights([2.0] * 100, [0.5] * 100, contexts)
    assert found.cost is None and found.refused == "a mean weight of e^2.0 in place of 1"
    assert estimate_by_weights([-5.0] * 100, [0.5] * 100, contexts).cost is None
    assert estimate_by_weights([math.nan] * 100, [0.5] * 100, contexts).cost is None


def test_intervals_hold_the_truth_in_worlds_where_it_is_known() -> None:
    """Drafts of three tokens with two values each; 1 costs .3. The policy writes it less often."""
    rng = np.random.default_rng(0)
    inside, values = 0, []
    for _ in range(100):
        tokens = rng.random((300, 3)) < 0.5
        log_weights = np.where(tokens, math.log(0.3 / 0.5), math.log(0.7 / 0.5)).sum(axis=1)
        found = estimate_by_weights(log_weights, 0.3 * tokens.sum(axis=1), [str(i) for i in range(300)])
        assert found.cost is not None and found.effective > LEAST_EFFECTIVE
        values.append(found.cost.value)
        inside += found.cost.low <= 0.27 <= found.cost.high
    assert np.mean(values) == pytest.approx(0.27, abs=3 * np.std(values) / 10)
    assert inside >= 88  # 95 of 100 are expected


def test_drafts_count_whose_log_probability_is_known_and_that_were_not_cut(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    rows = [
        Record(id="a", context="say a", response="hello", edit="hello", logprob=-3.0),
        Record(id="b", context="say b", response="bye", edit="two", logprob=-2.0),
        Record(id="c", context="say c", response="one", edit="two"),
    ]
    examples = make_examples(rows, policy.encoder).examples
    log_probs = policy.log_probs([e.tree for e in examples])
    cost, end = get_cost(), policy.encoder.end
    found = weigh_drafts(examples, log_probs, cost, end=end)
    assert found is not None and (found.rows, found.logged, found.cost) == (2, 0.5, None)
    assert weigh_drafts(examples[2:], log_probs[2:], cost, end=end) is None
    assert weigh_drafts(examples, log_probs, cost, end=end + 1) is None  # all of them were cut


def test_an_evaluation_finds_what_the_policy_that_wrote_the_log_costs(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    rows = [
        Record(id=str(i), context=f"say {i}", response=f"see {i}", edit=f"see {i}" if i % 2 else "no")
        for i in range(24)
    ]
    examples = make_examples(rows, policy.encoder).examples
    known = [
        values[e.completions.of("response")]
        for e, values in zip(examples, policy.log_probs([e.tree for e in examples]), strict=True)
    ]
    assert "off_policy" not in evaluate(policy, rows)["policies"]["policy"]
    logged = [row.model_copy(update={"logprob": value}) for row, value in zip(rows, known, strict=True)]
    found = evaluate(policy, logged)["policies"]["policy"]["off_policy"]
    assert found["rows"] == 24 and found["effective"] == pytest.approx(24, abs=0.1)
    assert found["cost"]["value"] == pytest.approx(found["logged"], abs=1e-3)
