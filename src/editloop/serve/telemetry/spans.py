"""This server's completions as GenAI spans, and the cost of each edit as a later span that is linked to one.

Spans have no texts and no names of users. They are handed to a queue, from which a thread of OpenTelemetry's
SDK sends them; if the collector hangs, the queue overflows and spans are lost, and no request waits.
OpenTelemetry's libraries are imported by `make_spans` only.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from editloop import __version__
from editloop.autopilot.stages import Transition
from editloop.errors import MissingExtraError
from editloop.extras import requires
from editloop.online import Event, Feedback
from editloop.serve.backends.base import UpstreamRejectedError
from editloop.serve.problem import Problem

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanContext

    from editloop.serve.loop.completion import CompletionResult, CompletionStream

__all__ = ["CompletionSpan", "Spans", "begin_span", "make_spans"]

log = logging.getLogger("editloop.serve")

ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
"""The environment variables that name a collector, for any program with OpenTelemetry."""

REMEMBERED = 10_000
"""Responses whose edits are linked to them; of an older one, and after a restart, an edit has no span."""

STOP_SECONDS = 5.0
"""Seconds for which the end of the server waits for the last spans to be sent."""


class CompletionSpan:
    """The span of one request for a completion, until its end; it does nothing if nobody wants spans."""

    def __init__(self, spans: Spans | None = None, span: Span | None = None) -> None:
        self._spans, self._span = spans, span

    def end(
        self,
        answers: Sequence[CompletionResult | CompletionStream],
        usage: Mapping[str, Any] | None,
        finishes: Sequence[str | None],
        error: str = "",
    ) -> None:
        """End it.

        Args:
            answers: The choices. The span has the identity and the policy of the first, and an edit of any of
                them is linked to it.
            usage: The tokens of all, as in OpenAI's API.
            finishes: Why each ended.
            error: What went wrong, in a word; empty if nothing did.
        """
        if self._spans is None or self._span is None:
            return
        tokens, first = usage or {}, answers[0]
        attributes = {
            "gen_ai.response.id": first.response_id,
            "gen_ai.response.model": first.arm,
            "editloop.policy": first.arm,
            "gen_ai.usage.input_tokens": tokens.get("prompt_tokens"),
            "gen_ai.usage.output_tokens": tokens.get("completion_tokens"),
            "gen_ai.response.finish_reasons": [each for each in finishes if each] or None,
            "error.type": error or None,
        }
        self._span.set_attributes({name: each for name, each in attributes.items() if each is not None})
        if not error:
            for each in answers:
                self._spans.remember(each.response_id, self._span.get_span_context())
        self.fail(error)

    @contextmanager
    def ended_by_errors(self) -> Iterator[None]:
        """End it if the block raises an error."""
        try:
            yield
        except UpstreamRejectedError as error:
            self.fail(str(error.status))
            raise
        except BaseException as error:
            self.fail(error.code if isinstance(error, Problem) else type(error).__name__)
            raise

    def fail(self, error: str) -> None:
        """End it without a response. Ending a span twice changes nothing.

        Args:
            error: What went wrong, in a word; empty if nothing did.
        """
        if self._span is None:
            return
        if error:
            from opentelemetry.trace import StatusCode

            self._span.set_attribute("error.type", error)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()


class Spans:
    """Emits spans.

    Args:
        provider: Makes and sends them.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._provider = provider
        self._tracer = provider.get_tracer("editloop", __version__)
        self._known: OrderedDict[str, SpanContext] = OrderedDict()

    def begin(self, model: str, headers: Mapping[str, str]) -> CompletionSpan:
        """Begin the span of a completion, below the span that a header `traceparent` names.

        Args:
            model: What was asked for.
            headers: The headers of the request.
        """
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        parent = TraceContextTextMapPropagator().extract(dict(headers))
        attributes = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "editloop",
            "gen_ai.request.model": model,
        }
        span = self._tracer.start_span(f"chat {model}", parent, SpanKind.SERVER, attributes)
        return CompletionSpan(self, span)

    def remember(self, response_id: str, context: SpanContext) -> None:
        """Keep the span of a response for its edits."""
        self._known[response_id] = context
        self._known.move_to_end(response_id)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)

    def on_event(self, event: Event | Transition) -> None:
        """Emit the span of an edit. Of several replicas, the one that answered does."""
        if not isinstance(event, Feedback) or event.cost is None:
            return
        context = self._known.get(event.response_id)
        if context is None:
            return
        from opentelemetry.trace import Link

        about = {
            "gen_ai.response.id": event.response_id,
            "gen_ai.evaluation.name": "edit_cost",
            "gen_ai.evaluation.score.value": event.cost,
            "gen_ai.evaluation.score.label": event.outcome,
        }
        span = self._tracer.start_span("edit", attributes=about, links=[Link(context)])
        span.add_event("gen_ai.evaluation.result", about)
        span.end()

    async def stop(self) -> None:
        """Send what is left, for `STOP_SECONDS` at most."""
        # A thread of its own that nobody has to wait for: those of asyncio's pool are joined at the end.
        thread = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, STOP_SECONDS)


def begin_span(spans: Spans | None, model: str, headers: Mapping[str, str]) -> CompletionSpan:
    """Begin the span of a completion, as `Spans.begin`, if somebody wants it."""
    return CompletionSpan() if spans is None else spans.begin(model, headers)


def make_spans(endpoint: str | None) -> Spans | None:
    """Return what emits spans; None if nobody has named a collector.

    Args:
        endpoint: The collector's address, without `/v1/traces`; None for that of the environment.

    Raises:
        MissingExtraError: OpenTelemetry is not installed, and an `endpoint` was given.
    """
    if endpoint is None and not any(os.environ.get(name) for name in ENDPOINTS):
        return None
    try:
        requires("otel")
    except MissingExtraError as error:
        if endpoint is not None:
            raise
        log.warning("no spans are sent, although the environment names a collector: %s", error)
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    exporter = OTLPSpanExporter(endpoint and f"{endpoint.rstrip('/')}/v1/traces")
    name = os.environ.get("OTEL_SERVICE_NAME", "editloop")
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Spans(provider)
