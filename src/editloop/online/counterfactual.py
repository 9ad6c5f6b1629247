"""What other rules of choice would have cost on a log of decisions: `editloop estimate`.

A rule is `fixed:ARM`, or the name of an algorithm. An algorithm is replayed: it learns from the log's own
decisions and costs, in their order, and before each of them it says with which probability it would play
each arm. So its figure is what its advice would have cost at each moment of this log. Had it been followed,
later rows would have been others, and it would have learned from those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Record, get_cost
from editloop.errors import BanditError
from editloop.online.algorithms import Fixed, RandUCB, Uniform
from editloop.online.bandit import Bandit
from editloop.online.config import BanditConfig
from editloop.online.events import Decided, Feedback
from editloop.online.features import decoded
from editloop.online.off_policy import LoggedChoices, OffPolicyEstimate, arm_means, estimate, ridge_costs
from editloop.online.slopes import PENALTY

__all__ = ["LogEstimates", "estimate_rules"]


@dataclass(frozen=True)
class LogEstimates:
    """What rules would have cost on a log.

    Attributes:
        arms: The arms of the log.
        rows: The decisions that could be used.
        dropped: How many records could not be used, by reason.
        logged: The mean cost of the decisions as they were made.
        predicted_by: What the predictions of the direct method and of the doubly robust one come from.
        rules: By rule and estimator, the estimates.
        refused: By rule, why there is no estimate.
    """

    arms: tuple[str, ...]
    rows: int
    dropped: Counter[str]
    logged: float
    predicted_by: str
    rules: dict[str, dict[str, OffPolicyEstimate]]
    refused: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """The estimates as JSON types."""
        return asdict(self)


class _Row(NamedTuple):
    """A decision whose cost is known."""

    id: str
    scope: str
    arm: str
    propensity: float
    cost: float
    features: str | None


def estimate_rules(
    records: Iterable[Record],
    rules: Sequence[str] | None = None,
    *,
    config: BanditConfig | None = None,
    by_user: bool = False,
    seed: int = 0,
) -> LogEstimates:
    """Estimate what rules of choice would have cost on a log.

    Args:
        records: The log: the policies are the arms. Rows count in the order of their times, if all have one.
        rules: `fixed:ARM` or names of algorithms; by default each arm, `uniform` and `rand-ucb`.
        config: The cost and its scale, features, and what else an algorithm is configured by.
        by_user: Whether each user has a bandit of their own. Else one for all knows who asks.
        seed: The seed of the bootstrap.

    Raises:
        BanditError: No row has a policy, a propensity and an edit; a rule is unknown or plays an arm that the
            log does not have; or no rule has enough overlap with the log.
        ConfigError: There is no such algorithm.
    """
    config = config or BanditConfig()
    rows, dropped, decided = _rows(records, config, by_user)
    arms = tuple(sorted({row.arm for row in rows}))
    if not rows:
        raise BanditError(
            "no row has a policy, a propensity and an edit",
            seen=", ".join(f"{n} {reason}" for reason, n in dropped.most_common()) or "an empty log",
            do="log the decisions of an algorithm that draws, such as rand-ucb",
        )
    rules = rules or [*(f"fixed:{arm}" for arm in arms), Uniform.name, RandUCB.name]
    bandits = {rule: _make(rule, arms, config) for rule in rules}  # a wrong rule is reported before any work
    columns = _Columns.of(rows, arms, decided)
    as_logged = np.eye(len(arms))[columns.chosen]
    predicted, predicted_by = _predictions(rows, columns.log(as_logged))
    found: dict[str, dict[str, OffPolicyEstimate]] = {}
    refused: dict[str, str] = {}
    for rule, bandit in bandits.items():
        try:
            found[rule] = estimate(columns.log(_replayed(bandit, rows)), predicted, seed=seed)
        except BanditError as error:
            refused[rule] = error.what if error.seen is None else f"{error.what}: {error.seen}"
    if not found:
        raise BanditError("; ".join(f"{rule}: {why}" for rule, why in refused.items()))
    logged = float(columns.cost.mean())
    return LogEstimates(arms, len(rows), dropped, logged, predicted_by, found, refused)


@dataclass(frozen=True)
class _Columns:
    """The rows as arrays."""

    arms: tuple[str, ...]
    chosen: NDArray[np.int64]
    propensity: NDArray[np.float64]
    cost: NDArray[np.float64]
    answered: NDArray[np.float64]

    @classmethod
    def of(cls, rows: Sequence[_Row], arms: tuple[str, ...], decided: Counter[str]) -> _Columns:
        place = {arm: i for i, arm in enumerate(arms)}
        known = Counter(row.arm for row in rows)
        return cls(
            arms,
            np.array([place[row.arm] for row in rows], np.int64),
            np.array([row.propensity for row in rows], np.float64),
            np.array([row.cost for row in rows], np.float64),
            np.array([known[arm] / decided[arm] for arm in arms], np.float64),
        )

    def log(self, target: NDArray[np.float64]) -> LoggedChoices:
        """The choices, beside what a rule would have done [rows, arms]."""
        return LoggedChoices(self.arms, self.chosen, self.propensity, self.cost, target, self.answered)


def _rows(
    records: Iterable[Record], config: BanditConfig, by_user: bool
) -> tuple[list[_Row], Counter[str], Counter[str]]:
    """The records that can be used; how many others there are, by reason; and all decisions, by arm."""
    dropped: Counter[str] = Counter()
    decided: Counter[str] = Counter()
    kept: list[Record] = []
    for record in records:
        if record.policy is None or record.propensity is None:
            dropped["without policy or propensity"] += 1
            continue
        decided[str(record.policy)] += 1
        if not record.is_observed and record.status != "discarded":
            dropped[record.status] += 1
        else:
            kept.append(record)
    if all(record.time is not None for record in kept):
        kept.sort(key=attrgetter("time"))
    edited = [record for record in kept if record.edit is not None]
    measured = get_cost(config.cost)(
        [record.response for record in edited], [record.edit or "" for record in edited]
    )
    costs = {record.id: min(float(c), config.bound) for record, c in zip(edited, measured, strict=True)}
    bandit = Bandit((), config)  # for its feature map
    return (
        [
            _Row(
                record.id,
                (record.user or "") if by_user else "",
                str(record.policy),
                float(record.propensity or 0.0),
                costs.get(record.id, config.discarded),
                bandit.features_of(record.context, record.user or ""),
            )
            for record in kept
        ],
        dropped,
        decided,
    )


def _make(rule: str, arms: Sequence[str], config: BanditConfig) -> Bandit:
    """The bandit that decides by a rule.

    Raises:
        BanditError: The rule names an arm that the log does not have.
    """
    name, colon, arm = rule.partition(":")
    if not colon:
        return Bandit(arms, BanditConfig(**{**config.model_dump(), "algorithm": name}))
    # An arm of a server is `name@hash`; its name alone is enough where only one arm has it.
    same = [each for each in arms if arm in (each, each.partition("@")[0])]
    if name != Fixed.name or len(same) != 1:
        raise BanditError(
            "a rule is an algorithm's name, or fixed:ARM with an arm of the log",
            seen=rule,
            do=f"use {', '.join(f'fixed:{each}' for each in arms)}",
        )
    bandit = Bandit(arms, config)
    bandit.algorithm = Fixed(arm=list(arms).index(same[0]))
    return bandit


def _replayed(bandit: Bandit, rows: Sequence[_Row]) -> NDArray[np.float64]:
    """The probabilities of the arms before each row [rows, arms], with all rows before it learned from."""
    if not getattr(bandit.algorithm, "learns", True):
        return np.tile(bandit.probabilities(), (len(rows), 1))
    found = np.empty((len(rows), len(bandit.arms)))
    for i, row in enumerate(rows):
        found[i] = bandit.probabilities(scope=row.scope, features=row.features)
        decision = Decided(row.id, row.scope, row.arm, row.propensity, bandit.state.epoch, row.features)
        bandit.state.apply(decision)
        bandit.state.apply(Feedback(row.id, "edited", row.cost))
    return found


def _predictions(rows: Sequence[_Row], log: LoggedChoices) -> tuple[NDArray[np.float64], str]:
    """Predicted costs of all arms [rows, arms], by features if those predict better across folds."""
    plain = arm_means(log)
    if any(row.features is None for row in rows):
        return plain, "the arms' means"
    table = np.stack([decoded(row.features or "").dense() for row in rows])
    featured = ridge_costs(log, table, penalty=PENALTY)
    own = np.arange(len(log)), log.chosen
    if ((featured[own] - log.cost) ** 2).mean() < ((plain[own] - log.cost) ** 2).mean():
        return featured, "features of the requests"
    return plain, "the arms' means"
