"""The state of a bandit: pulls N(π) and summed costs C(π), as a fold over events.

Only `State.apply` changes it, and the same events in the same order give the same state, bit by bit; a
snapshot (`to_json`) is a cache of that. Feedback may come late, twice, revised, out of order, before its
decision, or never. Events that cannot be used are counted in `skipped`, by reason, and have no other effect.

This module knows neither how an arm is chosen nor what the costs are.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from editloop.errors import BanditError
from editloop.online.abandonment import Silence
from editloop.online.events import UNKNOWN, Arms, Decided, Event, Feedback, Heir, Rerouted, event_from_json
from editloop.online.features import decoded
from editloop.online.old_state import upgraded
from editloop.online.slopes import Slopes
from editloop.online.tallies import Pool, Tally, filled, values_of

__all__ = ["FORMAT", "State"]

FORMAT = 3
"""The version of the snapshot's format. Version 1, which is still read, did not count expired pulls; of
version 2, which kept slopes in another way, the events are replayed."""

SCOPE_PULLS = 3.0
"""How many pulls of other scopes a scope's mean starts from where features explain what it does not."""


class _Response(NamedTuple):
    """A decision and its feedback.

    Attributes:
        scope: The scope of the decision.
        arm: The arm that answered.
        tick: The number of decisions in the scope when it was made, itself included.
        revision: The revision of the feedback; -1 while it is pending.
        outcome: The outcome of the feedback, or `pending`.
        cost: The cost that the tallies hold for it, at most the bound; 0 while there is none.
        number: The number of the decision among all, from 1.
        features: What was known of the request, as of `Decided`.
    """

    scope: str
    arm: str
    tick: int
    revision: int = -1
    outcome: str = "pending"
    cost: float = 0.0
    number: int = 0
    features: str | None = None


class State:
    """What is known after some events.

    Args:
        discount: The weight that an observation keeps per further decision in its scope, in (0, 1].
        memory: How many responses are kept for feedback at most. Beyond it the oldest are forgotten: a
            pending one is taken out of the pulls, and a later revision is unknown. The counts of its scope
            stay.
        bound: The most that a cost counts for in the tallies; infinity counts all costs as they are.
        kind: The kind of features that are learned from; empty for that of the first ones that come.

    Attributes:
        epoch: The epoch of the arms; 0 before the first.
        arms: The arms that are played.
        canaries: The policies in a canary, whose pulls count although they are never chosen.
        heirs: What arms begin with, by arm, also of those that are retired.
        owners: The scopes to which arms belong, by arm.
        decisions: The number of decisions so far.
        skipped: The number of events without effect, by reason: `repeated`, `superseded`, `after expiry`. And
            of those that count only without their features, which are of another kind: `other features`.
        slopes: What features say about the costs.
        on_cost: Called with the arm and the bounded cost when the first cost of a response is counted. It is
            no part of a snapshot.
    """

    def __init__(
        self, *, discount: float = 1.0, memory: int = 100_000, bound: float = math.inf, kind: str = ""
    ) -> None:
        self.discount, self.memory, self.bound = discount, memory, bound
        self.epoch = 0
        self.arms: tuple[str, ...] = ()
        self.canaries: tuple[str, ...] = ()
        self.heirs: dict[str, Heir] = {}
        self.owners: dict[str, str] = {}
        self.decisions = 0
        self.skipped: Counter[str] = Counter()
        self._tallies: dict[str, dict[str, Tally]] = {}
        self._clocks: dict[str, int] = {}
        self._pools: dict[str, Pool] = {}
        self._responses: dict[str, _Response] = {}
        self._early: dict[str, Feedback] = {}
        self._silence = Silence(memory)
        self.slopes = Slopes(kind)
        self.on_cost: Callable[[str, float], None] | None = None

    def tally(self, scope: str, arm: str) -> Tally:
        """Return the counts of an arm in a scope; zeros if it was never played."""
        return self._tallies.get(scope, {}).get(arm) or Tally()

    def pool(self, arm: str) -> Pool:
        """Return the counts of an arm over all scopes."""
        return self._pools.get(arm) or Pool()

    def abandoned_share(self, arm: str) -> float:
        """Return the share of an arm's finished pulls that count as discarded (`abandonment`)."""
        return self._silence.share(arm)

    def __contains__(self, response_id: object) -> bool:
        return response_id in self._responses

    @property
    def scopes(self) -> list[str]:
        """The scopes with a decision, in the order of their first one."""
        return list(self._clocks)

    @property
    def n_scopes(self) -> int:
        """The number of scopes with a decision."""
        return len(self._clocks)

    @property
    def pending(self) -> int:
        """The number of responses whose feedback may still come."""
        return sum(response.revision < 0 for response in self._responses.values())

    @property
    def unknown(self) -> int:
        """The number of responses with feedback whose decision has not been seen (yet)."""
        return len(self._early)

    def apply(self, event: Event) -> bool:
        """Apply an event, and return whether it changed the counts.

        Raises:
            BanditError: A decision is for an arm that is not played, or an epoch does not follow the last
                one, or has no arm for everybody.
        """
        if isinstance(event, Decided):
            return self._decide(event)
        if isinstance(event, Feedback):
            return self._observe(event)
        if isinstance(event, Rerouted):
            return self._reroute(event)
        return self._begin(event)

    def _begin(self, event: Arms) -> bool:
        if event.epoch <= self.epoch or not event.shared:
            raise BanditError(
                "an epoch must follow the last one and have arms for everybody", seen=event.to_json()
            )
        self.epoch, self.arms, self.canaries = event.epoch, event.arms, event.canaries
        for arm, heir in event.heirs.items():
            if arm not in self.heirs:  # once; the counts are asked at each choice (`editloop.online.heirs`)
                self.slopes.inherit(arm, heir.parent, heir.pulls)
        self.heirs |= event.heirs
        self.owners = dict(event.owners)
        return True

    def _decide(self, event: Decided) -> bool:
        if event.response_id in self._responses:
            self.skipped["repeated"] += 1
            return False
        # A decision of an earlier epoch may be recorded after its arm was retired; it counts all the same.
        if event.arm not in (*self.arms, *self.canaries) and event.epoch >= self.epoch:
            raise BanditError("a decision for an arm that is not played", seen=event.arm)
        tallies = self._tallies.setdefault(event.scope, {})
        if self.discount < 1:
            self._fade(tallies)  # before the new pull is counted, so that it begins with the weight 1
        tally = tallies.get(event.arm)
        if tally is None:
            tally = tallies[event.arm] = Tally()
        tally.pending += 1
        tick = self._clocks.get(event.scope, 0) + 1
        self._clocks[event.scope] = tick
        self.decisions += 1
        self._responses[event.response_id] = _Response(
            event.scope, event.arm, tick, number=self.decisions, features=event.features
        )
        # A dict keeps the order in which its keys were added, also when a value is replaced: the first
        # response is that of the oldest decision.
        if len(self._responses) > self.memory:
            self._forget(next(iter(self._responses)))
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
        # Only what is left of the pull moves (see `_weight_left`). Its feedback will find it at the new arm.
        weight = self._weight_left(response)
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
        if response.outcome in UNKNOWN:
            self.skipped["after expiry"] += 1
            return False
        if event.revision <= response.revision:
            self.skipped["repeated" if event.revision == response.revision else "superseded"] += 1
            return False
        if event.outcome in UNKNOWN and response.revision >= 0:
            self.skipped["superseded"] += 1  # its feedback came before
            return False
        tally = self._tallies[response.scope][response.arm]
        weight = self._weight_left(response)
        if response.revision < 0:
            tally.pending = max(0.0, tally.pending - weight)
        pool = self._pools.get(response.arm)
        if pool is None:
            pool = self._pools[response.arm] = Pool()
        cost = min(event.cost or 0.0, self.bound)
        if event.cost is not None and response.features is not None:
            self._explain(response, cost, tally, pool)  # by what was known before this cost
        pool.count(tally, -1)  # out with the old counts of the scope, and in again with the new ones
        if event.outcome == "expired":
            tally.expired += weight
            self._silence.expire(response.number, response.arm)
        elif event.cost is not None:
            if response.revision < 0:
                tally.observed += weight
                self._silence.observe(response.number, response.arm)
                if self.on_cost is not None:
                    self.on_cost(response.arm, cost)
            # A revision adds the difference to the cost that it replaces, which is 0 for the first feedback.
            tally.cost += weight * (cost - response.cost)
            tally.square += weight * (cost * cost - response.cost * response.cost)
        pool.count(tally, 1)
        self._responses[event.response_id] = response._replace(
            revision=event.revision, outcome=event.outcome, cost=cost
        )
        return True

    def _explain(self, response: _Response, cost: float, tally: Tally, pool: Pool) -> None:
        """Count the part of a cost that the means do not explain for the features of its request."""
        assert response.features is not None
        try:
            x = decoded(response.features)
        except BanditError:
            self.skipped["unreadable features"] += 1
            return
        if not self.slopes.takes(x):
            self.skipped["other features"] += 1
            return
        if response.revision >= 0:
            self.slopes.revise(response.arm, x, cost - response.cost)
            return
        # The scope's own mean, and the others' as far as `SCOPE_PULLS` pulls.
        others = max(pool.observed - tally.observed, 0.0)
        weight = min(others, SCOPE_PULLS)
        pulls = tally.observed + weight
        if pulls > 0:
            elsewhere = (pool.cost - tally.cost) / others if others > 0 else 0.0
            mean = (tally.cost + weight * elsewhere) / pulls
            self.slopes.observe(response.arm, x, cost - mean, pulls)

    def _weight_left(self, response: _Response) -> float:
        """The weight that is left of a pull: `_fade` has run once for each later decision of its scope."""
        return self.discount ** (self._clocks[response.scope] - response.tick)

    def _fade(self, tallies: dict[str, Tally]) -> None:
        """Discount all counts of a scope by one decision, and keep the pools in step."""
        for arm, tally in tallies.items():
            pool = self._pools.get(arm)
            if pool is not None:
                pool.count(tally, -1)
            tally.observed *= self.discount
            tally.pending *= self.discount
            tally.cost *= self.discount
            tally.square *= self.discount
            tally.expired *= self.discount
            if pool is not None:
                pool.count(tally, 1)

    def _forget(self, response_id: str) -> None:
        """Drop a response; a pending one leaves the pulls, as it would by expiring."""
        response = self._responses.pop(response_id)
        if response.revision < 0:
            tally = self._tallies[response.scope][response.arm]
            tally.pending = max(0.0, tally.pending - self._weight_left(response))

    def to_json(self) -> dict[str, Any]:
        """Return the state as JSON types, from which `from_json` restores it exactly."""
        # Exactly means bit by bit: JSON keeps floats and the order of keys, on which `_forget` depends. The
        # pools follow from the tallies, but sums in another order would be rounded in another way.
        return {
            "format": FORMAT,
            "discount": self.discount,
            "memory": self.memory,
            "bound": None if math.isinf(self.bound) else self.bound,
            "epoch": self.epoch,
            "arms": list(self.arms),
            **Arms(self.epoch, self.arms, self.canaries, self.heirs, self.owners).detail(),
            "decisions": self.decisions,
            "skipped": dict(self.skipped),
            "clocks": dict(self._clocks),
            "tallies": {
                scope: {arm: values_of(t) for arm, t in tallies.items()}
                for scope, tallies in self._tallies.items()
            },
            "pools": {arm: values_of(p) for arm, p in self._pools.items()},
            "silence": self._silence.to_json(),
            "slopes": self.slopes.to_json(),
            "responses": {key: list(response) for key, response in self._responses.items()},
            "early": [event.to_json() for event in self._early.values()],
        }

    @classmethod
    def from_json(cls, row: Mapping[str, Any], *, bound: float = math.inf) -> State:
        """Return the state that `to_json` wrote, in this version or in version 1.

        Args:
            row: What it wrote.
            bound: The most that a cost counts for, for a state of version 1, which has none of its own.

        Raises:
            BanditError: The state is of another version, or incomplete.
        """
        try:
            if row.get("format") == 1:
                row = upgraded(row, bound)
            if row.get("format") != FORMAT:
                raise BanditError(
                    "the state is of another version", seen=row.get("format"), do="replay the events instead"
                )
            own = math.inf if row["bound"] is None else row["bound"]
            state = cls(discount=row["discount"], memory=row["memory"], bound=own)
            state.epoch, state.arms = row["epoch"], tuple(row["arms"])
            begun = Arms(row["epoch"], state.arms).with_detail(row)  # an earlier version had none of it
            state.canaries = begun.canaries
            state.heirs, state.owners = dict(begun.heirs), dict(begun.owners)
            state.decisions, state.skipped = row["decisions"], Counter(row["skipped"])
            state._clocks = dict(row["clocks"])
            state._tallies = {
                scope: {arm: filled(Tally(), values) for arm, values in tallies.items()}
                for scope, tallies in row["tallies"].items()
            }
            state._pools = {arm: filled(Pool(), values) for arm, values in row["pools"].items()}
            state._silence = Silence.from_json(row["silence"], state.memory)
            state.slopes = Slopes.from_json(row["slopes"])
            state._responses = {key: _Response(*value) for key, value in row["responses"].items()}
            for event in map(event_from_json, row["early"]):
                if not isinstance(event, Feedback):
                    raise ValueError("only feedback can be early")
                state._early[event.response_id] = event
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BanditError(
                "the state is incomplete", seen=str(error), do="replay the events instead"
            ) from error
        return state
