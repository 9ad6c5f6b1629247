"""What the loop knows: the fold of the store's events, and the decisions that are not among them yet.

The bandit's state is a fold: events are applied one by one, in the order of their numbers, by a function of
the state and the event alone. Therefore a restart, a replica and a replay all arrive at the same state, bit
for bit; a snapshot may be thrown away; and nothing else may change the bandit. A decision becomes an event
only when its commit is on the disk. Until then it is kept beside the fold, as in flight: otherwise requests
that arrive together would all be given the arm with the fewest pulls.

Only the event loop's thread touches this state, so it needs no lock.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from editloop.autopilot.decisions import canary_of
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.watch import Canary
from editloop.errors import AutopilotError, BanditError
from editloop.online import Bandit, Decided, Event
from editloop.serve.loop.intervals import CostIntervals
from editloop.serve.problem import Problem

__all__ = ["LoopState"]

log = logging.getLogger("editloop.serve")


class LoopState:
    """The fold, and the decisions in flight.

    Args:
        bandit: The fold of the store's first events.
        seq: Number of the last event of the store that was seen.
        policies: The run folder of each policy that ever was an arm, and its name in it, by arm.
        intervals: Intervals for the arms' mean costs, over the same events.
        stages: The stages of the policies, over the same events.

    Attributes:
        canary: The canary that is under way; None if there is none.
        in_flight: The scope and the arm of each decision that is not on the disk yet, by response.
    """

    def __init__(
        self,
        bandit: Bandit,
        seq: int = 0,
        policies: dict[str, tuple[str, str]] | None = None,
        intervals: CostIntervals | None = None,
        stages: Stages | None = None,
    ) -> None:
        self.bandit, self.seq = bandit, seq
        self.policies = policies or {}
        self.intervals = intervals or CostIntervals(bandit.config.bound)
        bandit.state.on_cost = self.intervals.add
        self.stages = stages or Stages()
        self.canary: Canary | None = canary_of(self.stages)
        self.in_flight: dict[str, tuple[str, str]] = {}
        self._by_scope: dict[str, Counter[str]] = {}

    # Learning

    def learn(self, seq: int, event: Event | Transition) -> None:
        """Fold the next event of the store; if it is a decision, it is no longer in flight."""
        self.fold(event)
        self.seq = seq
        if isinstance(event, Decided):
            self.remove_in_flight(event.response_id)

    def fold(self, event: Event | Transition) -> None:
        """Fold an event. An event that contradicts the state is skipped with a warning.

        One bad row must not stop the server. Every replay of the same events skips the same ones, so the fold
        stays deterministic.
        """
        try:
            if isinstance(event, Transition):
                self.stages.apply(event)
                self.canary = canary_of(self.stages)
            else:
                self.bandit.state.apply(event)
        except (AutopilotError, BanditError) as error:
            log.warning("an event that contradicts the state was skipped: %s", error)

    @property
    def served(self) -> tuple[str, ...]:
        """The policies that have to be ready: the arms, and those in the canary and in the shadow."""
        arms = self.bandit.state
        shadow = self.stages.the(Stage.SHADOW)
        more = (*arms.canaries, *([] if shadow is None else [shadow.subject]))
        return (*arms.arms, *(arm for arm in dict.fromkeys(more) if arm not in arms.arms))

    # Deciding

    def canary_for(self, user: str, response_id: str) -> str | None:
        """The policy in the canary, if a user, or this request, is one of those who get it.

        Args:
            user: The key of the user; empty if the user is not known.
            response_id: The response.
        """
        canary = self.canary
        if canary is None or canary.arm not in self.bandit.state.canaries:
            return None
        return canary.arm if canary.takes(user, response_id) else None

    def choose(self, response_id: str, scope: str, arm: str | None, features: str | None = None) -> Decided:
        """Choose an arm for a response, which is in flight from here on.

        Args:
            response_id: The response.
            scope: Whose bandit decides.
            arm: The arm, if the client asked for one, or it is that of a canary.
            features: What is known of the request.

        Raises:
            Problem: 503 without any arm; 409 if the response's identity is in use.
        """
        state = self.bandit.state
        if not state.arms:
            raise Problem(503, "no policy is served yet", code="no_policies", retry_after=5)
        if self.knows(response_id):
            raise Problem(409, "another response has this id", code="id_reused", seen=response_id)
        if arm is None:
            in_flight = self._by_scope.get(scope)
            decision = self.bandit.choose(response_id, scope=scope, features=features, in_flight=in_flight)
        else:
            decision = Decided(response_id, scope, arm, None, state.epoch, features)
        self.add_in_flight(decision)
        return decision

    def knows(self, response_id: str) -> bool:
        """Whether a response has been decided, in this process or in an event that is still remembered."""
        return response_id in self.in_flight or response_id in self.bandit.state

    def other_arms(self, scope: str, tried: Sequence[str]) -> list[str]:
        """The arms that were not tried yet, the one with the lowest mean cost in this scope first."""
        _, observed, means = self.bandit.beliefs(scope)
        # The mean of an arm without observations is only a placeholder, so such arms come last.
        ranked = sorted(
            zip(self.bandit.arms_of(scope), observed, means, strict=True),
            key=lambda each: (each[1] == 0, each[2]),
        )
        return [arm for arm, _, _ in ranked if arm not in tried]

    def add_in_flight(self, decision: Decided) -> None:
        """Count a decision that is not on the disk yet."""
        self.in_flight[decision.response_id] = (decision.scope, decision.arm)
        self._by_scope.setdefault(decision.scope, Counter())[decision.arm] += 1

    def remove_in_flight(self, response_id: str) -> None:
        """Stop counting a decision: it is on the disk, or it was given up. Unknown ones are ignored."""
        found = self.in_flight.pop(response_id, None)
        if found is None:
            return
        scope, arm = found
        counts = self._by_scope[scope]
        counts[arm] -= 1
        if not any(counts.values()):  # otherwise one entry for each user who ever asked would stay
            del self._by_scope[scope]
