"""LateEnsemble: chooses among policies while users edit (Algorithm 1).

    bandit = Bandit(["sft", "dpo", "early"])
    decision = bandit.decide("response-1", user="bob", context="Invite Ada.")    # play decision.arm
    bandit.edited("response-1", cost=0.3)                                        # whenever it is known

Each scope (all requests, a segment, a user) has a bandit of its own, which starts from what the other scopes
have seen: their mean cost of an arm counts as some pulls of this scope. How many is learned from how much the
scopes differ (`editloop.online.pooling`), up to a cap. A prior from offline validation is capped as well.
What the request says and who asks counts, too, by features whose slopes all scopes share
(`editloop.online.slopes`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

from editloop.edits import ContextLike, as_context
from editloop.errors import BanditError, ConfigError
from editloop.online.config import BanditConfig
from editloop.online.events import Arms, Decided, Event, Feedback, Heir, Outcome, check_cost
from editloop.online.features import decoded, encoded
from editloop.online.heirs import inherited
from editloop.online.pooling import pooled_strength
from editloop.online.slopes import Slopes
from editloop.online.state import State
from editloop.online.tallies import Pool, Tally

__all__ = ["Bandit"]

IN_VAIN = 1e-9
"""What an expired pull counts for in N where no other pull does. An arm without any pull is played first."""


class Bandit:
    """A bandit for each scope, over one set of arms.

    Its state is a fold over events: what a bandit knows after some events does not depend on which bandit
    made the decisions.

    Args:
        arms: Names of the policies to choose from. Empty if events or a snapshot follow.
        config: How they are chosen.

    Raises:
        ConfigError: Arms without a name, or twice.
    """

    def __init__(self, arms: Iterable[str] = (), config: BanditConfig | None = None) -> None:
        self.config = config or BanditConfig()
        self.algorithm = self.config.make_algorithm()
        self.feature_map = self.config.make_feature_map()
        self.state = State(
            discount=self.config.discount,
            memory=self.config.memory,
            bound=self.config.bound,
            kind=self.feature_map.kind,
        )
        if arms := tuple(arms):
            self.set_arms(arms)

    @property
    def arms(self) -> tuple[str, ...]:
        """The arms that are played."""
        return self.state.arms

    def arms_of(self, scope: str) -> tuple[str, ...]:
        """The arms that are played in a scope: those for everybody, and those that belong to it."""
        owners = self.state.owners
        if not owners:
            return self.state.arms
        return tuple(arm for arm in self.state.arms if owners.get(arm, scope) == scope)

    def set_arms(
        self,
        arms: Iterable[str],
        *,
        heirs: Mapping[str, Heir] | None = None,
        owners: Mapping[str, str] | None = None,
    ) -> Arms:
        """Start a new epoch with these arms. Arms keep their counts, also while they are retired.

        Args:
            arms: Their names.
            heirs: What arms begin with, by arm.
            owners: The scope to which an arm belongs, by arm; the others are for everybody.

        Raises:
            ConfigError: No arms, arms without a name, or twice.
            BanditError: No arm is for everybody.
        """
        arms = tuple(arms)
        if not arms or not all(arms) or len(set(arms)) < len(arms):
            raise ConfigError("a bandit needs at least one arm, and arms need distinct names", seen=arms)
        event = Arms(self.state.epoch + 1, arms, (), heirs or {}, owners or {})
        self.state.apply(event)
        return event

    def features_of(self, context: ContextLike, user: str = "") -> str | None:
        """Return what is known of a request, as it is kept with the decision; None if nothing is.

        Args:
            context: What is asked; an empty text if that is not known.
            user: Who asks.

        Raises:
            ConfigError: It is neither a text nor a chat.
            BanditError: The feature map returns numbers that are not finite.
        """
        return encoded(self.feature_map.kind, self.feature_map(as_context(context), user))

    def decide(
        self, response_id: str, *, scope: str = "", context: ContextLike | None = None, user: str = ""
    ) -> Decided:
        """Choose the arm for a response, and count the decision.

        Args:
            response_id: The key under which feedback will come; not used before.
            scope: Whose bandit chooses: a user, a segment, or the empty text for one bandit for all.
            context: What is asked, of which the configuration's features are taken; None if it is not known.
            user: Who asks, which is a feature, too. One bandit for all that knows the users learns faster
                than a bandit for each, where users have few edits.

        Raises:
            BanditError: The response was decided before, or there are no arms.
        """
        known = context is not None or user
        features = self.features_of("" if context is None else context, user) if known else None
        event = self.choose(response_id, scope=scope, features=features)
        self.state.apply(event)
        return event

    def choose(
        self,
        response_id: str,
        *,
        scope: str = "",
        features: str | None = None,
        in_flight: Mapping[str, float] | None = None,
    ) -> Decided:
        """Return the decision that `decide` would make without counting it, for a caller who stores it first.

        Args:
            response_id: As of `decide`.
            scope: As of `decide`.
            features: What is known of the request, as `features_of` returns it.
            in_flight: Decisions of the scope that were made and are not counted yet, by arm.

        Raises:
            BanditError: The response was decided before, there are no arms, or these are no features.
        """
        if response_id in self.state:
            raise BanditError("this response was decided before", seen=response_id)
        numbers = self._numbers(scope, features, in_flight)
        index, propensity = self.algorithm.choose(*numbers, lambda: self._uniform(response_id))
        arm = self.arms_of(scope)[index]
        return Decided(response_id, scope, arm, propensity, self.state.epoch, features)

    def probabilities(self, *, scope: str = "", features: str | None = None) -> list[float]:
        """Return the probability with which each arm would be chosen now [arms]; they sum to 1.

        An arm that belongs to another scope has 0.

        Args:
            scope: As of `decide`.
            features: As of `choose`.

        Raises:
            BanditError: There are no arms, these are no features, or the algorithm's propensities are not
                those with which it plays.
        """
        numbers = self._numbers(scope, features)
        places = [self.arms.index(arm) for arm in self.arms_of(scope)]
        found, u = [0.0] * len(self.arms), 0.0
        # An algorithm says the probability of the arm that it plays. So the next number to give it is the
        # first one at which it would play another arm: `drawn` gives each arm one stretch of [0, 1).
        while u < 1 - 1e-9:
            chosen, propensity = self.algorithm.choose(*numbers, partial(float, u))
            index = places[chosen]
            if propensity is None:
                found[index] = 1.0
                return found
            if found[index]:
                raise BanditError("the algorithm's propensities do not sum to 1", seen=self.algorithm.name)
            found[index] = propensity
            u += propensity * (1 + 1e-12) + 1e-15
        total = sum(found)
        return [each / total for each in found]

    def _numbers(
        self, scope: str, features: str | None, in_flight: Mapping[str, float] | None = None
    ) -> tuple[list[float], list[float], list[float]]:
        """What an algorithm chooses by: pulls, observed pulls and means of the arms, for one request."""
        if not self.arms:
            raise BanditError("the bandit has no arms", do="call set_arms, or replay events that name them")
        pulls, observed, means = self.beliefs(scope)
        # Decisions in flight count in N only, as their costs are not known. Without them, all requests that
        # come together would get the same arm.
        if in_flight:
            played = zip(self.arms_of(scope), pulls, strict=True)
            pulls = [n + in_flight.get(arm, 0.0) for arm, n in played]
        if features is not None:
            return self._for_request(scope, features, pulls, observed, means)
        return pulls, observed, means

    def edited(self, response_id: str, cost: float, *, revision: int = 0) -> Feedback:
        """Count that a response was edited at this cost. A higher revision replaces a lower one.

        Raises:
            BanditError: The cost is NaN, infinite or negative.
        """
        return self._feedback(response_id, "edited", cost, revision)

    def accepted(self, response_id: str, *, revision: int = 0) -> Feedback:
        """Count that a response was accepted unchanged: cost 0."""
        return self._feedback(response_id, "accepted", 0.0, revision)

    def discarded(self, response_id: str, *, revision: int = 0) -> Feedback:
        """Count that the user threw a response away, which costs as much as the configuration says."""
        return self._feedback(response_id, "discarded", self.config.discarded, revision)

    def expired(self, response_id: str) -> Feedback:
        """Count that no feedback is expected any more: the pull is taken out of N.

        Those that expire more often than with other arms count as discarded (`editloop.online.abandonment`).
        """
        return self._feedback(response_id, "expired", None, 0)

    def beliefs(self, scope: str = "") -> tuple[list[float], list[float], list[float]]:
        """Return N, the pulls observed and the mean cost of each arm of a scope, priors included."""
        pulls, observed, means = [], [], []
        # With one scope and no offline prior there is nothing to start from, and a decision is cheaper.
        informed = bool(self.config.prior) or (self.config.pool != 0 and self.state.n_scopes > 1)
        for arm in self.arms_of(scope):
            tally = self.state.tally(scope, arm)
            total, cost = self._known(scope, arm, informed)
            if (heir := self.state.heirs.get(arm)) is not None:
                more, mean = inherited(heir, *self._known(scope, heir.parent, informed), self.config.bound)
                total, cost = total + more, cost + more * mean
            # Of arms of which nothing is known, those that were tried in vain come after the others.
            pulls.append(total + tally.pending or IN_VAIN * tally.expired)
            observed.append(total)
            means.append(cost / total if total > 0 else 0.0)
        return pulls, observed, means

    def _known(self, scope: str, arm: str, informed: bool) -> tuple[float, float]:
        """The pulls of an arm in a scope and their summed cost, with those that its prior counts for."""
        tally, share = self.state.tally(scope, arm), self.state.abandoned_share(arm)
        n, cost = self._with_abandoned(tally, share)
        weight, mean = self._prior(arm, tally, share) if informed else (0.0, 0.0)
        return n + weight, cost + weight * mean

    def _for_request(
        self, scope: str, features: str, pulls: list[float], observed: list[float], means: list[float]
    ) -> tuple[list[float], list[float], list[float]]:
        """The same numbers for one request: what its features say moves the means and widens what is open."""
        x, slopes = decoded(features), self.state.slopes
        if not slopes.knows(x):
            return pulls, observed, means
        moved, spread = slopes.adjust(self.arms_of(scope), x)
        return (
            [n / (1 + n * more) for n, more in zip(pulls, spread, strict=True)],
            [n / (1 + n * more) for n, more in zip(observed, spread, strict=True)],
            [max(0.0, mean + by) for mean, by in zip(means, moved, strict=True)],
        )

    def _with_abandoned(self, counts: Tally | Pool, share: float) -> tuple[float, float]:
        """Pulls and summed cost of what is known: what was observed, and the finished pulls of this share."""
        if not share:
            return counts.observed, counts.cost
        abandoned = share * (counts.observed + counts.expired)
        return counts.observed + abandoned, counts.cost + abandoned * self.config.discarded

    def _prior(self, arm: str, tally: Tally, share: float) -> tuple[float, float]:
        """The weight, in pulls, and the mean of what other scopes and the offline prior say about an arm.

        Their mean counts each pull of the other scopes once and the offline cost `prior_strength` times, so
        that the offline cost fades as pulls come in. The weight is the larger of the two, so that both
        together count for no more pulls than the larger cap.
        """
        pool, weight, n, cost = self.state.pool(arm), 0.0, 0.0, 0.0
        if self.config.pool:
            (all_n, all_cost), (own_n, own_cost) = (
                self._with_abandoned(counts, share) for counts in (pool, tally)
            )
            n, cost = all_n - own_n, all_cost - own_cost
        n = n if n > 1e-6 else 0.0  # rounding leaves a little of a difference of equal sums
        if n:
            weight = pooled_strength(pool, tally, self.config.pool, n, scale=self.config.scale)
        offline = (self.config.prior or {}).get(arm)
        if offline is None:
            return weight, cost / n if n else 0.0
        strength = self.config.prior_strength
        if n + strength == 0:
            return 0.0, 0.0
        return max(weight, strength), ((cost if n else 0.0) + strength * offline) / (n + strength)

    def _feedback(self, response_id: str, outcome: Outcome, cost: float | None, revision: int) -> Feedback:
        check_cost(cost, outcome)
        event = Feedback(response_id, outcome, cost, revision)
        self.state.apply(event)
        return event

    def _uniform(self, response_id: str) -> float:
        """A number in [0, 1) that depends on seed and response only, so that a replay draws it too."""
        # Not `hash`, which differs between processes. The upper 53 bits of 64 make a double without rounding;
        # all 64 could be rounded up to 1.
        digest = hashlib.blake2b(f"{self.config.seed}:{response_id}".encode(), digest_size=8).digest()
        return (int.from_bytes(digest, "big") >> 11) / 2**53

    def to_json(self) -> dict[str, Any]:
        """Return a snapshot: configuration and state as JSON types, which `from_json` restores exactly."""
        return {"config": self.config.model_dump(mode="json"), "state": self.state.to_json()}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Bandit:
        """Return the bandit of a snapshot.

        Raises:
            BanditError: The snapshot is of another version, or incomplete.
        """
        try:
            bandit = cls((), BanditConfig(**row["config"]))
            bandit.state = State.from_json(row["state"], bound=bandit.config.bound)
            # A later version of a feature map has another kind, and no use for what the earlier one learned.
            if bandit.state.slopes.kind != bandit.feature_map.kind:
                bandit.state.slopes = Slopes(bandit.feature_map.kind)
        except (KeyError, TypeError) as error:
            raise BanditError(
                "the snapshot is incomplete", seen=str(error), do="replay the events"
            ) from error
        return bandit

    @classmethod
    def replay(cls, events: Iterable[Event], config: BanditConfig | None = None) -> Bandit:
        """Return the bandit that has seen these events."""
        bandit = cls((), config)
        for event in events:
            bandit.state.apply(event)
        return bandit
