"""The state of a bandit: counts and summed costs, C(π) and N(π), as a fold over events.

`State.apply` is the only way in, and equal events in equal order give equal states, bit by bit; a
snapshot (`to_json`) is a cache of that. Feedback may come late, twice, revised, out of order, before its
decision, or never. What cannot be used is counted in `skipped`, by reason; nothing else is done with it.

This module does not know how an arm is chosen, nor what a cost is a cost of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from editloop.errors import BanditError
from editloop.online.events import Decided, Event, Feedback, Rerouted, event_from_json

__all__ = ["FORMAT", "Pool", "State", "Tally"]

Sums = TypeVar("Sums", "Tally", "Pool")

FORMAT = 1
"""Version of the snapshot's format."""


class Tally:
    """One arm in one scope.

    Attributes:
        observed: Pulls whose cost is known, discounted.
        pending: Pulls in flight, discounted; N of Algorithm 1 is `observed + pending`.
        cost: Their summed cost C, discounted.
        square: Their summed squared cost, discounted.
    """

    __slots__ = ("cost", "observed", "pending", "square")

    def __init__(self) -> None:
        self.observed = self.pending = self.cost = self.square = 0.0


class Pool:
    """One arm over all scopes, kept so that its spread between scopes is known without a pass over them.

    Attributes:
        scopes: How many scopes have observed it.
        observed: Σ n_s, the pulls observed.
        cost: Σ C_s.
        square: Summed squared cost.
        between: Σ C_s² / n_s.
        observed_square: Σ n_s².
    """

    __slots__ = ("between", "cost", "observed", "observed_square", "scopes", "square")

    def __init__(self) -> None:
        self.scopes = 0
        self.observed = self.cost = self.square = self.between = self.observed_square = 0.0

    def count(self, tally: Tally, sign: int) -> None:
        """Adds (+1) or takes away (-1) what one scope has observed."""
        n = tally.observed
        if n <= 0:
            return
        self.scopes += sign
        self.observed += sign * n
        self.cost += sign * tally.cost
        self.square += sign * tally.square
        self.between += sign * tally.cost * tally.cost / n
        self.observed_square += sign * n * n


class _Response(NamedTuple):
    """A decision and what became of it: `tick` is its scope's clock, `revision` -1 while it is pending."""

    scope: str
    arm: str
    tick: int
    revision: int = -1
    outcome: str = "pending"
    cost: float = 0.0


class State:
    """What is known after some events.

    Args:
        discount: Weight that an observation keeps per further decision of its scope, in (0, 1].
        memory: Most responses that are kept for feedback. Beyond it the oldest are let go: a pending one
            counts as expired, a later revision as unknown.

    Attributes:
        epoch: Of the arms, 0 before the first.
        arms: The arms that are played.
        decisions: Decisions so far.
        skipped: Events that were passed over, by reason: `repeated`, `superseded`, `after expiry`.
    """

    def __init__(self, *, discount: float = 1.0, memory: int = 100_000) -> None:
        self.discount, self.memory = discount, memory
        self.epoch = 0
        self.arms: tuple[str, ...] = ()
        self.decisions = 0
        self.skipped: Counter[str] = Counter()
        self._tallies: dict[str, dict[str, Tally]] = {}
        self._clocks: dict[str, int] = {}
        self._pools: dict[str, Pool] = {}
        self._responses: dict[str, _Response] = {}
        self._early: dict[str, Feedback] = {}

    def tally(self, scope: str, arm: str) -> Tally:
        """The counts of an arm in a scope; zeros where it was never played."""
        return self._tallies.get(scope, {}).get(arm) or Tally()

    def pool(self, arm: str) -> Pool:
        """The counts of an arm over all scopes."""
        return self._pools.get(arm) or Pool()

    def __contains__(self, response_id: object) -> bool:
        return response_id in self._responses

    @property
    def scopes(self) -> list[str]:
        """The scopes with a decision, in the order of their first."""
        return list(self._clocks)

    @property
    def n_scopes(self) -> int:
        """How many scopes have a decision."""
        return len(self._clocks)

    @property
    def pending(self) -> int:
        """Responses without feedback that are still waited for."""
        return sum(response.revision < 0 for response in self._responses.values())

    @property
    def unknown(self) -> int:
        """Responses with feedback whose decision was not seen (yet)."""
        return len(self._early)

    def apply(self, event: Event) -> bool:
        """Takes an event in; returns whether it changed what is counted.

        Raises:
            BanditError: A decision for an arm that is not played, or an epoch that goes back.
        """
        if isinstance(event, Decided):
            return self._decide(event)
        if isinstance(event, Feedback):
            return self._observe(event)
        if isinstance(event, Rerouted):
            return self._reroute(event)
        if event.epoch <= self.epoch or not event.arms:
            raise BanditError("an epoch has to follow the last one and have arms", seen=event.to_json())
        self.epoch, self.arms = event.epoch, event.arms
        return True

    def _decide(self, event: Decided) -> bool:
        if event.response_id in self._responses:
            self.skipped["repeated"] += 1
            return False
        if event.arm not in self.arms and event.epoch >= self.epoch:
            raise BanditError("a decision for an arm that is not played", seen=event.arm)
        tallies = self._tallies.setdefault(event.scope, {})
        if self.discount < 1:
            self._fade(tallies)
        tally = tallies.get(event.arm)
        if tally is None:
            tally = tallies[event.arm] = Tally()
        tally.pending += 1
        tick = self._clocks.get(event.scope, 0) + 1
        self._clocks[event.scope] = tick
        self._responses[event.response_id] = _Response(event.scope, event.arm, tick)
        self.decisions += 1
        if len(self._responses) > self.memory:
            self._let_go(next(iter(self._responses)))
        early = self._early.pop(event.response_id, None) if self._early else None
        if early is not None:
            self._observe(early)
        return True

    def _reroute(self, event: Rerouted) -> bool:
        response = self._responses.get(event.response_id)
        if response is None or response.revision >= 0 or response.arm == event.arm:
            self.skipped["superseded"] += 1
            return False
        tallies = self._tallies[response.scope]
        weight = self.discount ** (self._clocks[response.scope] - response.tick)
        tallies[response.arm].pending = max(0.0, tallies[response.arm].pending - weight)
        tallies.setdefault(event.arm, Tally()).pending += weight
        self._responses[event.response_id] = response._replace(arm=event.arm)
        return True

    def _observe(self, event: Feedback) -> bool:
        response = self._responses.get(event.response_id)
        if response is None:
            known = self._early.get(event.response_id)
            if known is None or event.revision > known.revision:
                self._early[event.response_id] = event
                if len(self._early) > self.memory:
                    del self._early[next(iter(self._early))]
            else:
                self.skipped["repeated"] += 1
            return False
        if response.outcome == "expired":
            self.skipped["after expiry"] += 1
            return False
        if event.revision <= response.revision:
            self.skipped["repeated" if event.revision == response.revision else "superseded"] += 1
            return False
        if event.outcome == "expired" and response.revision >= 0:
            self.skipped["superseded"] += 1  # it was answered before it expired
            return False
        tally = self._tallies[response.scope][response.arm]
        weight = self.discount ** (self._clocks[response.scope] - response.tick)
        if response.revision < 0:
            tally.pending = max(0.0, tally.pending - weight)
        if event.cost is not None:
            pool = self._pools.get(response.arm)
            if pool is None:
                pool = self._pools[response.arm] = Pool()
            pool.count(tally, -1)
            if response.revision < 0:
                tally.observed += weight
            tally.cost += weight * (event.cost - response.cost)
            tally.square += weight * (event.cost * event.cost - response.cost * response.cost)
            pool.count(tally, 1)
        self._responses[event.response_id] = response._replace(
            revision=event.revision, outcome=event.outcome, cost=event.cost or 0.0
        )
        return True

    def _fade(self, tallies: dict[str, Tally]) -> None:
        for arm, tally in tallies.items():
            pool = self._pools.get(arm)
            if pool is not None:
                pool.count(tally, -1)
            tally.observed *= self.discount
            tally.pending *= self.discount
            tally.cost *= self.discount
            tally.square *= self.discount
            if pool is not None:
                pool.count(tally, 1)

    def _let_go(self, response_id: str) -> None:
        response = self._responses.pop(response_id)
        if response.revision < 0:
            weight = self.discount ** (self._clocks[response.scope] - response.tick)
            tally = self._tallies[response.scope][response.arm]
            tally.pending = max(0.0, tally.pending - weight)

    def to_json(self) -> dict[str, Any]:
        """The state as JSON types; `from_json` gives it back exactly."""
        return {
            "format": FORMAT,
            "discount": self.discount,
            "memory": self.memory,
            "epoch": self.epoch,
            "arms": list(self.arms),
            "decisions": self.decisions,
            "skipped": dict(self.skipped),
            "clocks": dict(self._clocks),
            "tallies": {
                scope: {arm: [getattr(t, name) for name in Tally.__slots__] for arm, t in tallies.items()}
                for scope, tallies in self._tallies.items()
            },
            "pools": {arm: [getattr(p, name) for name in Pool.__slots__] for arm, p in self._pools.items()},
            "responses": {key: list(response) for key, response in self._responses.items()},
            "early": [event.to_json() for event in self._early.values()],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> State:
        """The state that `to_json` wrote.

        Raises:
            BanditError: It is of another version, or incomplete.
        """
        if row.get("format") != FORMAT:
            raise BanditError(
                "a state is of another version", seen=row.get("format"), do="replay the events instead"
            )
        try:
            state = cls(discount=row["discount"], memory=row["memory"])
            state.epoch, state.arms = row["epoch"], tuple(row["arms"])
            state.decisions, state.skipped = row["decisions"], Counter(row["skipped"])
            state._clocks = dict(row["clocks"])
            state._tallies = {
                scope: {arm: _filled(Tally(), values) for arm, values in tallies.items()}
                for scope, tallies in row["tallies"].items()
            }
            state._pools = {arm: _filled(Pool(), values) for arm, values in row["pools"].items()}
            state._responses = {key: _Response(*value) for key, value in row["responses"].items()}
            for event in map(event_from_json, row["early"]):
                assert isinstance(event, Feedback)
                state._early[event.response_id] = event
        except (KeyError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise BanditError(
                "a state is incomplete", seen=str(error), do="replay the events instead"
            ) from error
        return state


def _filled(sums: Sums, values: Sequence[float]) -> Sums:
    """Sums with these values, in the order of their slots."""
    for name, value in zip(sums.__slots__, values, strict=True):
        setattr(sums, name, value)
    return sums
