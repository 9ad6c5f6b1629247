"""Figures for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from editloop.online import Event, Feedback
from editloop.serve.loop.feedback import Live

__all__ = ["Metrics"]

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)


class Metrics:
    """What is counted since this process began, and what the loop knows now."""

    def __init__(self, live: Live) -> None:
        self.registry = CollectorRegistry()
        self._live = live
        self._overhead = Histogram(
            "editloop_overhead_seconds",
            "Time of a completion without the model's, to its end or its first byte.",
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._feedback = Counter(
            "editloop_feedback", "Feedback by what it was.", ["outcome"], registry=self.registry
        )
        self._failed = Counter(
            "editloop_unanswered",
            "Answers that a policy could not give.",
            ["arm", "reason"],
            registry=self.registry,
        )
        self._cost = Gauge(
            "editloop_arm_cost", "Mean edit cost of an arm over all users.", ["arm"], registry=self.registry
        )
        self._observed = Gauge(
            "editloop_arm_observed",
            "Responses of an arm whose cost is known.",
            ["arm"],
            registry=self.registry,
        )
        self._pending = Gauge(
            "editloop_pending", "Responses whose edit is waited for.", registry=self.registry
        )
        self._up = Gauge("editloop_store_up", "Whether the store can be written.", registry=self.registry)
        live.heard.append(self._hear)

    def overhead(self, seconds: float) -> None:
        """Count a completion."""
        self._overhead.observe(max(seconds, 0.0))

    def failed(self, arm: str, reason: str) -> None:
        """Count an answer that was not given."""
        self._failed.labels(arm, reason).inc()

    def _hear(self, event: Event) -> None:
        if isinstance(event, Feedback):
            self._feedback.labels(event.outcome).inc()

    def text(self) -> bytes:
        """All figures, in Prometheus' format."""
        state = self._live.bandit.state
        for arm in state.arms:
            pool = state.pool(arm)
            self._observed.labels(arm).set(pool.observed)
            if pool.observed > 0:
                self._cost.labels(arm).set(pool.cost / pool.observed)
        self._pending.set(state.pending)
        self._up.set(self._live.down is None)
        return generate_latest(self.registry)
