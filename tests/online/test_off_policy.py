"""Off-policy estimates: each estimator by hand, the coverage of intervals, and what is refused."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from editloop.errors import BanditError
from editloop.online import off_policy
from editloop.online.off_policy import ESTIMATORS, LoggedChoices, arm_means, estimate, ridge_costs


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logs of a few rows, which can be computed by hand, have enough overlap."""
    monkeypatch.setattr(off_policy, "LEAST_EFFECTIVE", 1.0)
    monkeypatch.setattr(off_policy, "MOST_ERRORS", math.inf)


def by_hand(**changes: Any) -> LoggedChoices:
    """Three rows and two arms; the weights are .5/.5 = 1, .9/.25 = 3.6 and .2/.8 = .25."""
    columns = {
        "arms": ["a", "b"],
        "chosen": np.array([0, 1, 0]),
        "propensity": np.array([0.5, 0.25, 0.8]),
        "cost": np.array([0.4, 0.1, 0.8]),
        "target": np.array([[0.5, 0.5], [0.1, 0.9], [0.2, 0.8]]),
    }
    return LoggedChoices(**columns | changes)


def test_each_estimator_by_hand(small: None) -> None:
    predicted = np.array([[0.5, 0.2], [0.6, 0.3], [0.7, 0.2]])
    found = estimate(by_hand(), predicted)
    weighted = [1 * 0.4, 3.6 * 0.1, 0.25 * 0.8]
    model = [0.5 * 0.5 + 0.5 * 0.2, 0.1 * 0.6 + 0.9 * 0.3, 0.2 * 0.7 + 0.8 * 0.2]
    corrected = [model[0] + 1 * (0.4 - 0.5), model[1] + 3.6 * (0.1 - 0.3), model[2] + 0.25 * (0.8 - 0.7)]
    assert found["ips"].value == pytest.approx(sum(weighted) / 3)
    assert found["snips"].value == pytest.approx(sum(weighted) / (1 + 3.6 + 0.25))
    assert found["direct"].value == pytest.approx(sum(model) / 3)
    assert found["dr"].value == found["switch"].value == pytest.approx(sum(corrected) / 3)
    assert found["ips"].error == pytest.approx(np.std(weighted, ddof=1) / math.sqrt(3))
    assert found["ips"].effective == pytest.approx(4.85**2 / (1 + 3.6**2 + 0.25**2))
    assert found["snips"].bounds is None
    width = max(weighted) - min(weighted)
    reach = math.sqrt(2 * np.var(weighted, ddof=1) * math.log(80) / 3) + 7 * width * math.log(80) / 6
    assert found["ips"].bounds == pytest.approx([sum(weighted) / 3 - reach, sum(weighted) / 3 + reach])


def test_switch_leaves_the_correction_out_where_a_weight_is_large(small: None) -> None:
    log = by_hand(propensity=np.array([0.5, 0.05, 0.8]))  # the second weight is 18
    predicted = np.array([[0.5, 0.2], [0.6, 0.3], [0.7, 0.2]])
    found = estimate(log, predicted)
    assert found["dr"].value - found["switch"].value == pytest.approx(18 * (0.1 - 0.3) / 3)


def test_a_perfect_prediction_leaves_no_noise(small: None) -> None:
    costs = np.array([[0.4, 0.2], [0.6, 0.1], [0.8, 0.2]])
    found = estimate(by_hand(), costs)
    assert found["dr"].value == pytest.approx(found["direct"].value)


def test_predictions_do_not_see_the_cost_that_they_correct() -> None:
    generator = np.random.default_rng(0)
    n = 40
    log = simulated(generator, n)[0]
    before = ridge_costs(log, np.ones((n, 1)))
    log.cost[7] += 5.0
    after = ridge_costs(log, np.ones((n, 1)))
    assert after[7] == pytest.approx(before[7])
    assert not np.allclose(after, before)


def test_predictions_by_hand() -> None:
    cost = 2.0 ** np.arange(10)  # no two sums of these are equal
    target = np.tile([1.0, 0.0], (10, 1))
    log = LoggedChoices(["a", "b"], np.zeros(10, np.int64), np.full(10, 0.5), cost, target)
    predicted = arm_means(log)
    for row in range(10):
        # Each fold has two rows; the prediction is the mean of the eight rows outside.
        (partner,) = (o for o in range(10) if o != row and predicted[o, 0] == predicted[row, 0])
        assert predicted[row, 0] == pytest.approx((cost.sum() - cost[row] - cost[partner]) / 8)
    assert predicted[:, 1] == pytest.approx(predicted[:, 0])  # of an arm without rows, the mean of all


KINDS = 4


def simulated(generator: np.random.Generator, n: int) -> tuple[LoggedChoices, np.ndarray]:
    """Requests of four kinds, for each of which another of four arms costs .2, and the others .5."""
    kind = generator.integers(KINDS, size=n)
    logging = 0.9 * generator.dirichlet(np.full(KINDS, 2.0), n) + 0.1 / KINDS
    chosen = (logging.cumsum(axis=1) < generator.random((n, 1))).sum(axis=1).clip(max=KINDS - 1)
    mean = np.where(chosen == kind, 0.2, 0.5)
    target = np.full((n, KINDS), 0.1 / (KINDS - 1))
    target[np.arange(n), kind] = 0.9
    propensity = logging[np.arange(n), chosen]
    cost = generator.beta(5 * mean, 5 * (1 - mean))
    names = [str(arm) for arm in range(KINDS)]
    return LoggedChoices(names, chosen, propensity, cost, target), np.eye(KINDS)[kind]


def test_intervals_cover_the_truth_and_doubly_robust_is_narrower() -> None:
    truth = 0.9 * 0.2 + 0.1 * 0.5
    covered, widths = dict.fromkeys(ESTIMATORS, 0), dict.fromkeys(ESTIMATORS, 0.0)
    logs = 200
    for seed in range(logs):
        log, features = simulated(np.random.default_rng(seed), 400)
        for name, found in estimate(log, ridge_costs(log, features)).items():
            covered[name] += found.interval[0] <= truth <= found.interval[1]
            widths[name] += found.interval[1] - found.interval[0]
            if found.bounds is not None and name != "direct":
                assert found.bounds[0] < found.interval[0] and found.interval[1] < found.bounds[1]
    # Of 200 intervals of 95%, 190 ± 3 hold the truth.
    assert 180 <= covered["dr"] <= 199 and 180 <= covered["snips"] <= 199
    assert widths["dr"] < 0.8 * widths["ips"]


def test_what_is_refused() -> None:
    log, _ = simulated(np.random.default_rng(0), 200)
    only = np.tile([1.0, 0, 0, 0], (200, 1))
    with pytest.raises(BanditError, match="no decision for an arm that the rule plays: '0'"):
        bad = LoggedChoices(
            log.arms, np.where(log.chosen == 0, 1, log.chosen), log.propensity, log.cost, only
        )
        estimate(bad, arm_means(bad))
    few = LoggedChoices(log.arms, np.where(np.arange(200) < 9, 0, 1), log.propensity, log.cost, only)
    with pytest.raises(BanditError, match=r"too little overlap .* of 200 rows.*rand-ucb"):
        estimate(few, arm_means(few))
    # The arm would have been played in half of these rows, and what the log has of it are the rest.
    half = LoggedChoices(log.arms, np.zeros(200, np.int64), np.full(200, 0.99), log.cost, only)
    assert estimate(half, arm_means(half))["dr"].effective == pytest.approx(200)
    half = LoggedChoices(
        log.arms, np.arange(200) % 2, np.where(np.arange(200) % 2, 0.01, 0.99), log.cost, only
    )
    with pytest.raises(BanditError, match=r"lacks decisions .* mean weight of 0.51 .* explores more"):
        estimate(half, arm_means(half))
    # Twice as many decisions for arm 0 are answered, and the rule plays it alone.
    seen = simulated(np.random.default_rng(1), 2000)[0]
    kept = (seen.chosen == 0) | (np.arange(2000) % 2 == 0)
    columns = seen.chosen[kept], seen.propensity[kept], seen.cost[kept], np.eye(4)[np.zeros(kept.sum(), int)]
    answered = np.array([1.0, 0.5, 0.5, 0.5])
    with pytest.raises(BanditError, match="has too many of the decisions"):
        estimate(LoggedChoices(seen.arms, *columns), np.zeros((kept.sum(), 4)))
    told = LoggedChoices(seen.arms, *columns, answered)
    assert told.mean_weight == pytest.approx(1, abs=0.1)
    assert set(estimate(told, np.zeros((kept.sum(), 4)))) == set(ESTIMATORS)
    with pytest.raises(BanditError, match="unknown estimator: 'best'"):
        estimate(log, arm_means(log), names=["best"])
    with pytest.raises(BanditError, match="features must be finite"):
        ridge_costs(log, np.full((200, 2), np.nan))
    with pytest.raises(BanditError, match="features must be finite"):
        ridge_costs(log, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"propensity": np.array([0.5, 0.0, 0.8])}, "a propensity lies in .*: 0.0"),
        ({"propensity": np.array([0.5, 1.2, 0.8])}, "a propensity lies in .*: 1.2"),
        ({"propensity": np.array([0.5, math.nan, 0.8])}, "a propensity lies in"),
        ({"propensity": np.array([0.5, 0.5])}, "differ in length"),
        ({"cost": np.array([0.5, math.inf, 0.1])}, "a cost is a finite number"),
        ({"target": np.array([[0.5, 0.4], [0.1, 0.9], [0.2, 0.8]])}, "sum to 1"),
        ({"target": np.array([[1.5, -0.5], [0.1, 0.9], [0.2, 0.8]])}, "at least 0"),
    ],
)
def test_bad_logs(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BanditError, match=message):
        by_hand(**change)


def test_an_empty_log() -> None:
    nothing = np.zeros(0)
    with pytest.raises(BanditError, match="no decision whose cost is known"):
        LoggedChoices(["a"], np.zeros(0, np.int64), nothing, nothing, np.zeros((0, 1)))
