"""The fitted mixture: weights known by hand, and properties that every fit must have."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from editloop.errors import ConfigError
from editloop.offline import mix_by_cost, mix_by_likelihood
from editloop.offline.report import show_weights

NEVER = -50.0


def test_policies_that_share_no_row_weigh_as_many_as_they_explain() -> None:
    mixture = mix_by_likelihood({"a": [0.0] * 3 + [NEVER], "b": [NEVER] * 3 + [0.0]})
    assert mixture.weights == pytest.approx({"a": 0.75, "b": 0.25}, abs=1e-6)
    expected = (3 * math.log(0.75) + math.log(0.25)) / 4
    assert mixture.objective == pytest.approx(expected)
    assert mixture.single == pytest.approx({"a": NEVER / 4, "b": 3 * NEVER / 4})
    assert (mixture.by, mixture.rows) == ("likelihood", 4)
    # Of three quarters in four rows: the root of .75 * .25 / 4.
    many = mix_by_likelihood({"a": ([0.0] * 3 + [NEVER]) * 50, "b": ([NEVER] * 3 + [0.0]) * 50})
    assert many.errors["a"] == pytest.approx(math.sqrt(0.75 * 0.25 / 200), rel=0.3)


def test_a_negligible_weight_is_zero_and_the_others_are_fitted_without_it() -> None:
    # c is the likelier one in no row, and EM would leave it a tiny weight.
    table = {"a": [0.0] * 3 + [NEVER], "b": [NEVER] * 3 + [0.0], "c": [-3.0] * 3 + [NEVER]}
    mixture = mix_by_likelihood(table)
    assert mixture.weights["c"] == 0.0
    assert mixture.weights == pytest.approx({"a": 0.75, "b": 0.25, "c": 0.0}, abs=1e-6)
    assert mixture.objective == pytest.approx(mix_by_likelihood({"a": table["a"], "b": table["b"]}).objective)
    assert show_weights(mixture.weights, mixture.errors).endswith("; left out, with next to no weight: c")


def test_a_step_never_loses_and_the_mixture_is_no_worse_than_any_policy() -> None:
    generator = np.random.default_rng(0)
    table = {name: (-5 * generator.random(60)).tolist() for name in "abcd"}
    mixture = mix_by_likelihood(table)
    assert all(
        later >= earlier - 1e-12 for earlier, later in zip(mixture.curve, mixture.curve[1:], strict=False)
    )
    assert mixture.objective == mixture.curve[-1] >= max(mixture.single.values())
    assert sum(mixture.weights.values()) == pytest.approx(1)
    assert min(mixture.weights.values()) >= 0
    # No shift of weight from one policy to another gains: the condition of the maximum.
    values = np.array(list(table.values())).T
    weights = np.array(list(mixture.weights.values()))
    total = np.exp(values) @ weights
    slope = (np.exp(values) / total[:, None]).mean(axis=0)
    assert slope.max() < 1 + 1e-3


def test_of_policies_that_are_nearly_alike_the_best_weight_is_found_and_its_error_is_large() -> None:
    """Two policies: the weight that a fine grid finds, and its spread over samples of the rows."""
    generator = np.random.default_rng(3)
    ratio = 0.03 * generator.standard_normal(200)
    ratio += 0.00045 - ratio.mean()  # the best weight lies between the two
    mixture = mix_by_likelihood({"a": ratio.tolist(), "b": [0.0] * 200})
    grid = np.linspace(0, 1, 2001)

    def best(rows: np.ndarray) -> float:
        return float(
            grid[np.log(grid[:, None] * np.exp(ratio[rows]) + 1 - grid[:, None]).mean(axis=1).argmax()]
        )

    assert mixture.weights["a"] == pytest.approx(best(np.arange(200)), abs=0.06)
    bootstrap = [best(generator.integers(200, size=200)) for _ in range(100)]
    assert mixture.errors["a"] == pytest.approx(np.std(bootstrap), abs=0.1)
    assert mixture.errors["a"] > 0.2
    assert len(mixture.curve) < 200


def test_policies_that_are_the_same_share_alike() -> None:
    mixture = mix_by_likelihood({"a": [-1.0, -2.0], "b": [-1.0, -2.0]})
    assert mixture.weights == pytest.approx({"a": 0.5, "b": 0.5})
    assert mixture.objective == pytest.approx(-1.5)


def test_by_cost_the_cheapest_is_taken_and_the_errors_say_how_sure_that_is() -> None:
    generator = np.random.default_rng(1)
    noise = generator.normal(size=(2, 200))
    clear = mix_by_cost({"a": (1 + 0.1 * noise[0]).tolist(), "b": (2 + 0.1 * noise[1]).tolist()})
    assert clear.weights == {"a": 1.0, "b": 0.0}
    assert clear.errors == {"a": 0.0, "b": 0.0}
    assert clear.objective == min(clear.single.values()) == clear.curve[-1]
    assert clear.curve[0] == pytest.approx(sum(clear.single.values()) / 2)
    assert all(later <= earlier for earlier, later in zip(clear.curve, clear.curve[1:], strict=False))
    close = noise - noise.mean(axis=1, keepdims=True)
    doubtful = mix_by_cost({"a": close[0].tolist(), "b": (close[1] + 0.01).tolist()})
    assert doubtful.weights == {"a": 1.0, "b": 0.0}
    assert doubtful.errors["a"] == pytest.approx(0.5, abs=0.05)  # of a coin
    tie = mix_by_cost({"a": [1.0, 2.0], "b": [2.0, 1.0], "c": [5.0, 5.0]})
    assert tie.weights == {"a": 0.5, "b": 0.5, "c": 0.0}


def test_by_cost_of_rounds_in_which_each_policy_answered_others_than_the_rest() -> None:
    generator = np.random.default_rng(2)
    rounds = {"a": generator.normal(1.0, 1.0, 400).tolist(), "b": generator.normal(1.2, 1.0, 25).tolist()}
    mixture = mix_by_cost(rounds)
    assert mixture.rows == 25
    assert mixture.single == pytest.approx({name: float(np.mean(costs)) for name, costs in rounds.items()})
    best = min(mixture.single, key=lambda name: mixture.single[name])
    assert mixture.weights[best] == 1.0
    assert 0.2 < mixture.errors[best] <= 0.51  # 25 rounds leave it open
    with pytest.raises(ConfigError, match="policies and rows"):
        mix_by_cost({"a": [1.0], "b": []})


def test_a_mixture_of_one_is_that_one() -> None:
    for mix in (mix_by_cost, mix_by_likelihood):
        mixture = mix({"only": [-1.0, -3.0]})
        assert mixture.weights == {"only": 1.0} and mixture.errors == {"only": 0.0}
        assert mixture.objective == pytest.approx(-2.0)
        assert mix({"only": [-1.0]}).weights == {"only": 1.0}  # of one row


def test_what_cannot_be_mixed_is_one_line() -> None:
    for bad, mix in product(({}, {"a": []}), (mix_by_likelihood, mix_by_cost)):
        with pytest.raises(ConfigError, match="policies and rows"):
            mix(bad)
    with pytest.raises(ConfigError, match=r"not finite: \['b'\]"):
        mix_by_cost({"a": [1.0], "b": [math.nan]})


def test_a_prior_counts_for_as_many_rows_as_it_says() -> None:
    """Rows of which each is of one policy alone: weights are shares of rows, with those of the prior."""
    sure, never = 0.0, -1000.0
    rows = {"a": [sure] * 3 + [never], "b": [never] * 3 + [sure]}
    assert mix_by_likelihood(rows).weights["a"] == pytest.approx(3 / 4, abs=1e-3)
    assert mix_by_likelihood(rows, prior_rows=4).weights["a"] == pytest.approx((3 + 2) / 8, abs=1e-3)
    given = mix_by_likelihood(rows, prior={"a": 0.0, "b": 1.0}, prior_rows=4)
    assert given.weights["a"] == pytest.approx(3 / 8, abs=1e-3)
    # With many rows, it hardly matters.
    many = {name: values * 500 for name, values in rows.items()}
    assert mix_by_likelihood(many, prior_rows=4).weights["a"] == pytest.approx(3 / 4, abs=2e-3)


def test_a_prior_makes_the_weights_of_few_rows_vary_less() -> None:
    generator = np.random.default_rng(1)
    tables = [generator.normal(0, 1, (3, 10)) for _ in range(30)]

    def spread(rows: float) -> float:
        found = [
            mix_by_likelihood(dict(zip("abc", t.tolist(), strict=True)), prior_rows=rows).weights["a"]
            for t in tables
        ]
        return float(np.std(found))

    assert spread(30) < spread(3) < spread(0)


@pytest.mark.parametrize("prior_rows", [1e-6, 1e-3, 0.1, 1.0])
def test_weights_with_a_prior_are_weights(prior_rows: float) -> None:
    """A step of EM that is too long overflows, or takes a weight to zero; it is not taken."""
    generator = np.random.default_rng(0)
    for scale in (0.01, 1.0, 30.0, 800.0):
        for n, k in ((1, 2), (4, 3), (20, 6)):
            table = generator.normal(0, scale, (k, n))
            log_probs = {str(i): row.tolist() for i, row in enumerate(table)}
            found = mix_by_likelihood(log_probs, prior_rows=prior_rows)
            assert np.isfinite(list(found.weights.values())).all()
            assert sum(found.weights.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    "prior", [{"a": 0.5}, {"a": 0.5, "c": 0.5}, {"a": 1.5, "b": -0.5}, {"a": 0.3, "b": 0.3}]
)
def test_a_prior_that_is_no_distribution_is_refused(prior: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="the prior of a mixture is no distribution"):
        mix_by_likelihood({"a": [0.0], "b": [-1.0]}, prior=prior, prior_rows=1)
