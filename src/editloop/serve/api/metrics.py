"""Metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from editloop.autopilot.stages import Transition
from editloop.online import Event, Feedback
from editloop.serve.in_context.tallies import PromptTallies
from editloop.serve.loop.feedback import FeedbackLoop

__all__ = ["Metrics"]

BUCKETS = (0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0)
"""Upper bounds of the overhead's buckets, in seconds; most lie around its goals, p50 3 ms and p99 10 ms."""


class Metrics:
    """What was counted since this process began, and what the loop knows now.

    Args:
        loop: The feedback loop; it is subscribed to.
        prompts: What was counted of the prompts of in-context policies.
        further: Metrics that are counted elsewhere.
    """

    def __init__(self, loop: FeedbackLoop, prompts: PromptTallies | None = None, *further: Collector) -> None:
        # A registry of its own: the library's global one would refuse a second server in one process.
        self.registry = registry = CollectorRegistry()
        self._loop = loop
        self._overhead = Histogram(
            "editloop_overhead_seconds",
            "Time that a completion, or the first byte of a stream, took in addition to the model's.",
            buckets=BUCKETS,
            registry=registry,
        )
        self._feedback = Counter(
            "editloop_feedback", "Feedback on responses, by outcome.", ["outcome"], registry=registry
        )
        self._failures = Counter(
            "editloop_backend_failures",
            "Attempts in which the backend could not generate a response, by arm and reason.",
            ["arm", "reason"],
            registry=registry,
        )
        self._cost = Gauge(
            "editloop_arm_cost", "Mean edit cost of an arm over all users.", ["arm"], registry=registry
        )
        self._observed = Gauge(
            "editloop_arm_observed", "Responses of an arm whose cost is known.", ["arm"], registry=registry
        )
        self._pending = Gauge(
            "editloop_pending", "Responses without feedback that have not expired.", registry=registry
        )
        self._up = Gauge("editloop_store_up", "1 if the store can be written, else 0.", registry=registry)
        if prompts is not None:
            registry.register(_Prompts(prompts))
        for metric in further:
            registry.register(metric)
        loop.subscribers.append(self._on_event)

    def count_completion(self, overhead: float) -> None:
        """Count a completion, and the seconds that it took in addition to the model's."""
        self._overhead.observe(max(overhead, 0.0))

    def count_failure(self, arm: str, reason: str) -> None:
        """Count an attempt in which an arm could not answer."""
        self._failures.labels(arm, reason).inc()

    def _on_event(self, event: Event | Transition) -> None:
        if isinstance(event, Feedback):
            self._feedback.labels(event.outcome).inc()

    def text(self) -> bytes:
        """All metrics, in Prometheus' text format."""
        state = self._loop.bandit.state
        for gauge in (self._observed, self._cost):
            gauge.clear()  # arms that were retired since the last time have no figures
        for arm in state.arms:
            pool = state.pool(arm)
            self._observed.labels(arm).set(pool.observed)
            if pool.observed > 0:
                self._cost.labels(arm).set(pool.cost / pool.observed)
        self._pending.set(state.pending)
        self._up.set(self._loop.down is None)
        return generate_latest(self.registry)


class _Prompts(Collector):
    """The prompts of in-context policies, as they were counted elsewhere."""

    def __init__(self, tallies: PromptTallies) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Yield the metrics."""
        requests = CounterMetricFamily(
            "editloop_in_context_requests",
            "Requests to in-context policies, by what became of the prompt: extended, plain (there are no "
            "past edits), failed (they could not be used).",
            labels=["arm", "prompt"],
        )
        tokens = CounterMetricFamily(
            "editloop_in_context_tokens",
            "Tokens that in-context policies took beside the drafts: added to prompts, or used for learning "
            "what users prefer.",
            labels=["arm", "use"],
        )
        for arm, tally in self._tallies.by_arm.items():
            plain = max(0, tally.requests - tally.extended - tally.failed)
            for name, n in (("extended", tally.extended), ("plain", plain), ("failed", tally.failed)):
                requests.add_metric([arm, name], n)
            tokens.add_metric([arm, "prompt"], tally.prompt_tokens)
            tokens.add_metric([arm, "learning"], tally.learning_tokens)
        yield requests
        yield tokens
