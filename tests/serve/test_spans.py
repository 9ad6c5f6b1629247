"""Spans of completions and edits: the real SDK and exporter send them to a collector that listens here."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from serving import run, serving, sqlite

from editloop.errors import MissingExtraError
from editloop.serve.backends.base import BackendUnavailableError, Completion
from editloop.serve.loop.completion import CompletionResult
from editloop.serve.telemetry import spans
from editloop.serve.telemetry.spans import make_spans

TEXT = "Write a letter to Ada."


class Collector:
    """Keeps the spans that it gets; it may be made to hang."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.hangs, self.end = False, Event()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
                if collector.hangs:
                    collector.end.wait(60)
                collector.bodies.append(body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def spans(self) -> list[Any]:
        found = []
        for body in self.bodies:
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                assert {each.key: each.value.string_value for each in resource.resource.attributes}[
                    "service.name"
                ]
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return sorted(found, key=lambda span: span.start_time_unix_nano)


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    thread = Thread(target=made.server.serve_forever)
    thread.start()
    yield made
    made.end.set()
    made.server.shutdown()
    made.server.server_close()
    thread.join()


def attributes(held: Any) -> dict[str, Any]:
    def value(of: Any) -> Any:
        kind = of.WhichOneof("value")
        return [value(each) for each in of.array_value.values] if kind == "array_value" else getattr(of, kind)

    return {each.key: value(each.value) for each in held.attributes}


def test_a_completion_and_its_edit_are_spans_that_are_linked(collector: Collector, tmp_path: Path) -> None:
    async def work() -> None:
        options = {"spans": make_spans(collector.url)}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            trace = "0af7651916cd43dd8448eb211c80319c"
            service.http.headers["traceparent"] = f"00-{trace}-b7ad6b7169203331-01"
            answer = await service.ask(TEXT, user="ada-lovelace")
            await service.edit(answer.json()["id"], "Hello from me")
            await service.edit(answer.json()["id"], "Hello from me")  # a repetition is no other edit
            ids.append(answer.json()["id"])

    ids: list[str] = []
    run(work())
    completion, edit = collector.spans()
    assert completion.name == "chat editloop" and completion.kind == completion.SPAN_KIND_SERVER
    assert completion.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert completion.parent_span_id.hex() == "b7ad6b7169203331"
    assert attributes(completion) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "editloop",
        "gen_ai.request.model": "editloop",
        "gen_ai.response.model": "a@1",
        "editloop.policy": "a@1",
        "gen_ai.response.id": ids[0],
        "gen_ai.response.finish_reasons": ["stop"],
    }
    (link,) = edit.links
    assert (link.trace_id, link.span_id) == (completion.trace_id, completion.span_id)
    (event,) = edit.events
    assert event.name == "gen_ai.evaluation.result"
    assert attributes(event) == attributes(edit)
    assert attributes(event) == {
        "gen_ai.response.id": ids[0],
        "gen_ai.evaluation.name": "edit_cost",
        "gen_ai.evaluation.score.value": pytest.approx(1 / 3),
        "gen_ai.evaluation.score.label": "edited",
    }
    sent = b"".join(collector.bodies)
    assert b"ada-lovelace" not in sent and b"letter" not in sent and b"Hello" not in sent


def test_streams_tokens_and_failures(collector: Collector, tmp_path: Path) -> None:
    async def work() -> None:
        from serving import Parrot

        from editloop.serve.backends.base import Chunk, Completion

        class Counting(Parrot):
            async def complete(self, arm: str, *_: Any) -> Completion:
                usage = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
                return Completion("a b", "length", {"role": "assistant", "content": "a b"}, usage=usage)

            async def stream(self, arm: str, *rest: Any) -> Any:
                async for chunk in super().stream(arm, *rest):
                    yield chunk
                yield Chunk({}, None, usage={"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8})

        options = {"spans": make_spans(collector.url)}
        backend = Counting()
        async with serving(
            sqlite(tmp_path), tmp_path, arms=("a@1",), backend=backend, app_options=options
        ) as service:
            await service.ask()
            await service.ask(stream=True)
            backend.fails["a@1"] = BackendUnavailableError("late: gone")
            await service.ask(stream=True)
            backend.fails["a@1"] = BackendUnavailableError("gone")
            assert (await service.ask(stream=True)).status_code >= 500
            assert (await service.ask(model="nobody")).status_code == 404

    run(work())
    whole, streamed, broken, failed = map(attributes, collector.spans())
    assert (whole["gen_ai.usage.input_tokens"], whole["gen_ai.usage.output_tokens"]) == (7, 2)
    assert whole["gen_ai.response.finish_reasons"] == ["length"] and "error.type" not in whole
    assert (streamed["gen_ai.usage.input_tokens"], streamed["gen_ai.usage.output_tokens"]) == (5, 3)
    assert broken["error.type"] and broken["gen_ai.response.id"]
    assert failed["error.type"] and "gen_ai.response.id" not in failed
    assert [span.status.code for span in collector.spans()] == [0, 0, 2, 2]


def test_all_choices_are_one_span_and_so_is_a_response(collector: Collector, tmp_path: Path) -> None:
    async def work() -> None:
        options = {"spans": make_spans(collector.url)}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            choices = (await service.ask(n=2)).json()["choices"]
            await service.edit(choices[1]["response_id"], "Mine.")
            asked = {"model": "editloop", "input": "Write."}
            whole = (await service.http.post("/v1/responses", json=asked)).json()
            await service.http.post("/v1/responses", json={**asked, "stream": True})
            await service.edit(whole["id"], "Mine.")
            ids.extend([choices[0]["response_id"], choices[1]["response_id"], whole["id"]])

    ids: list[str] = []
    run(work())
    first, edited, whole, streamed, again = collector.spans()
    assert attributes(first)["gen_ai.response.id"] == ids[0]
    assert attributes(first)["gen_ai.response.finish_reasons"] == ["stop", "stop"]
    assert (edited.links[0].span_id, attributes(edited)["gen_ai.response.id"]) == (first.span_id, ids[1])
    assert attributes(whole)["gen_ai.response.id"] == ids[2]
    assert attributes(streamed)["gen_ai.response.finish_reasons"] == ["stop"]
    assert again.links[0].span_id == whole.span_id


def test_a_collector_that_hangs_slows_no_request_and_not_the_end(
    collector: Collector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector never answers; the exporter itself would wait for 10 s."""
    monkeypatch.setattr(spans, "STOP_SECONDS", 0.1)
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "2")
    collector.hangs = True

    async def work() -> None:
        options = {"spans": make_spans(collector.url)}
        async with (
            asyncio.timeout(30),
            serving(sqlite(tmp_path), tmp_path, app_options=options) as service,
        ):
            # Many more than the queue holds: whoever waited for the collector would wait for ever.
            assert {(await service.ask()).status_code for _ in range(40)} == {200}

    run(work())
    assert collector.bodies == []


def test_only_the_last_responses_are_remembered(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editloop.online import Feedback

    monkeypatch.setattr(spans, "REMEMBERED", 2)
    made = make_spans(collector.url)
    assert made is not None
    for names in ("a", "bc"):
        done = Completion("Hello", "stop", {})
        choices = [CompletionResult(name, "a@1", done, 0.0) for name in names]
        made.begin("editloop", {}).end(choices, None, [None for _ in names])
    for name in "abc":
        made.on_event(Feedback(name, "edited", 0.5, 1))
    made.on_event(Feedback("c", "expired", None, 0))
    asyncio.run(made.stop())
    edits = [attributes(span)["gen_ai.response.id"] for span in collector.spans() if span.name == "edit"]
    assert edits == ["b", "c"]


def test_nothing_is_sent_or_imported_unless_a_collector_is_named(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in spans.ENDPOINTS:
        monkeypatch.delenv(name, raising=False)
    assert make_spans(None) is None
    code = "import sys, editloop.serve.api.app\nfrom editloop.serve.telemetry.spans import make_spans\n"
    code += "make_spans(None); print('LOADED', [n for n in sys.modules if n.startswith('opentelemetry.sdk')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    made = make_spans(None)
    assert made is not None
    asyncio.run(made.stop())

    def missing(*_: object) -> None:
        raise MissingExtraError("OpenTelemetry needs opentelemetry.sdk, which is not installed")

    monkeypatch.setattr(spans, "requires", missing)
    assert make_spans(None) is None and "no spans are sent" in caplog.text
    with pytest.raises(MissingExtraError):
        make_spans("http://127.0.0.1:9")
