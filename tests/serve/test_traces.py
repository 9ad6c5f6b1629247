"""`POST /v1/traces`: GenAI spans of today's and of older conventions, and edits that refer to them.

Spans are made by hand from the semantic conventions for GenAI (the package
`opentelemetry-semantic-conventions` 0.66b2 has the names of the attributes) and from OTLP's specification;
one test sends them by the real SDK.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Parrot, Service, error, run, serving, sqlite
from sqlalchemy import select

from editloop.serve.api.app import create_app
from editloop.serve.api.limits import Limits
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.telemetry.gen_ai import generation_of
from editloop.serve.telemetry.otlp import PROTOBUF, Span
from editloop.store.database import Store
from editloop.store.schema import drafts
from listening import listening

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
ASKED = [{"role": "user", "parts": [{"type": "text", "content": "Invite Ada."}]}]
SAID = [
    {"role": "assistant", "parts": [{"type": "text", "content": "Dear Ada, come"}], "finish_reason": "stop"}
]
CHAT = {
    "gen_ai.operation.name": "chat",
    "gen_ai.provider.name": "openai",
    "gen_ai.request.model": "gpt-x",
    "gen_ai.response.id": "chatcmpl-1",
    "gen_ai.input.messages": json.dumps(ASKED),
    "gen_ai.output.messages": json.dumps(SAID),
    "enduser.id": "bob",
}


def value(given: Any) -> dict[str, Any]:
    if isinstance(given, list):
        return {"arrayValue": {"values": [value(each) for each in given]}}
    if isinstance(given, dict):
        return {"kvlistValue": {"values": pairs(given)}}
    return {"intValue": str(given)} if isinstance(given, int) else {"stringValue": given}


def pairs(given: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"key": name, "value": value(each)} for name, each in given.items()]


def span(
    attributes: dict[str, Any], *events: Any, span_id: str = SPAN, trace_id: str = TRACE
) -> dict[str, Any]:
    about = {"traceId": trace_id, "spanId": span_id, "name": "chat gpt-x", "kind": 3}
    about |= {"startTimeUnixNano": "1772600000000000000", "endTimeUnixNano": "1772600001500000000"}
    held = [{"name": name, "timeUnixNano": "0", "attributes": pairs(each)} for name, each in events]
    return about | {"attributes": pairs(attributes), "events": held}


def request(*spans: Any) -> dict[str, Any]:
    resource = {"attributes": pairs({"service.name": "letters"})}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}]}


async def post(service: Service, body: Any, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await service.http.post("/v1/traces", content=content, headers=given)


async def kept(service: Service) -> list[Any]:
    return list(await service.loop.read(lambda c: c.execute(select(drafts)).all()))


def test_a_span_becomes_a_draft_that_edits_refer_to_by_either_name(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            for _ in range(2):  # an exporter that got no answer sends again
                answer = await post(service, request(span(CHAT)))
                assert (answer.status_code, answer.text) == (200, "{}")
            (draft,) = await kept(service)
            assert (draft.response_id, draft.user, draft.policy) == ("chatcmpl-1", "bob", "gpt-x")
            assert json.loads(draft.context) == "Invite Ada." and draft.response == "Dear Ada, come"
            assert draft.time == 1772600001.5
            about = {"trace_id": TRACE, "span_id": SPAN, "service": "letters"}
            assert json.loads(draft.metadata) == about
            first = await service.edit(f"{TRACE}-{SPAN}", "Hi Ada, come")
            assert first.json()["response_id"] == "chatcmpl-1" and first.json()["cost"] == pytest.approx(
                1 / 3
            )
            again = await service.edit("chatcmpl-1", "Hi Ada, come")
            assert again.json()["repeated"]
            accepted = await service.edit(f"{TRACE}-{SPAN}", key="k")
            assert (accepted.json()["revision"], accepted.json()["status"]) == (2, "accepted")
            shown = (await service.http.get(f"/v1/edits/{TRACE}-{SPAN}")).json()
            assert (shown["response_id"], len(shown["revisions"])) == ("chatcmpl-1", 2)
            (row,) = (await service.http.get("/v1/edits")).json()["data"]
            assert (row["id"], row["status"]) == ("chatcmpl-1", "accepted")

    run(work())


def test_a_span_of_a_response_from_this_server_gives_it_another_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            response_id = (await service.ask()).json()["id"]
            await post(service, request(span({**CHAT, "gen_ai.response.id": response_id})))
            (draft,) = await kept(service)
            assert draft.policy == "a@1" and draft.response == "Hello from a@1"
            assert (await service.edit(f"{TRACE}-{SPAN}", "Hello from me")).json()["policy"] == "a@1"
            assert service.loop.bandit.state.pool("a@1").observed == 1

    run(work())


def parsed(attributes: dict[str, Any], *events: Any) -> Any:
    found = generation_of(Span(TRACE, SPAN, 0.0, attributes, list(events)))
    return found and (found.context, found.response)


USER = {"role": "user", "content": "Invite Ada."}
BASE = {"gen_ai.system": "openai"}
WANTED = ([USER], "Dear Ada")


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        (  # structured, in the event of today's conventions
            {"gen_ai.operation.name": "chat"},
            [
                (
                    "gen_ai.client.inference.operation.details",
                    {
                        "gen_ai.input.messages": ASKED,
                        "gen_ai.output.messages": [
                            {"role": "assistant", "parts": [{"type": "text", "content": "Dear Ada"}]}
                        ],
                    },
                )
            ],
        ),
        (  # an event for each message
            BASE,
            [
                ("gen_ai.user.message", {"content": "Invite Ada."}),
                ("gen_ai.choice", {"index": 0, "message": '{"role": "assistant", "content": "Dear Ada"}'}),
            ],
        ),
        (  # an event for the prompt and one for the completion
            BASE,
            [
                ("gen_ai.content.prompt", {"gen_ai.prompt": json.dumps([USER])}),
                (
                    "gen_ai.content.completion",
                    {"gen_ai.completion": '[{"role": "assistant", "content": "Dear Ada"}]'},
                ),
            ],
        ),
        (  # numbered attributes
            BASE
            | {
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "Invite Ada.",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "Dear Ada",
            },
            [],
        ),
    ],
)
def test_older_conventions_say_the_same(attributes: dict[str, Any], events: list[Any]) -> None:
    assert parsed(attributes, *events) == WANTED


def test_instructions_thoughts_choices_and_texts_that_are_no_messages() -> None:
    parts = [
        {"type": "reasoning", "content": "hm"},
        {"type": "text", "content": "A"},
        {"type": "text", "content": "B"},
    ]
    outputs = [
        {"role": "assistant", "parts": parts},
        {"role": "assistant", "parts": [{"type": "text", "content": "C"}]},
    ]
    system = {"gen_ai.system_instructions": json.dumps([{"type": "text", "content": "Be kind."}])}
    found = parsed({**CHAT, **system, "gen_ai.output.messages": json.dumps(outputs)})
    assert found == ([{"role": "system", "content": "Be kind."}, USER], "AB")
    plain = BASE | {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.prompt": "q",
        "gen_ai.completion": "a",
    }
    assert parsed(plain) == ("q", "a")


@pytest.mark.parametrize(
    "change",
    [
        {"gen_ai.operation.name": "embeddings"},
        {"gen_ai.operation.name": "execute_tool"},
        {"gen_ai.output.messages": "[]"},
        {"gen_ai.output.messages": "not JSON"},
        {"gen_ai.input.messages": "[]"},
        {"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "tool_call", "id": "1"}]}]'},
        {"gen_ai.output.messages": '[{"role": "assistant", "parts": [{"type": "text", "content": "  "}]}]'},
    ],
)
def test_spans_without_a_text_are_accepted_and_not_kept(change: dict[str, Any], tmp_path: Path) -> None:
    assert parsed({**CHAT, **change}) is None


def test_bad_spans_are_rejected_and_the_others_kept(tmp_path: Path) -> None:
    long = json.dumps([{"role": "assistant", "parts": [{"type": "text", "content": "x" * 300_000}]}])
    spans = [
        span(CHAT),
        span({**CHAT, "gen_ai.output.messages": long}, span_id="1" * 16),
        span(CHAT, span_id="nonsense"),
        span(CHAT, trace_id="0" * 32),
        span({"http.method": "GET"}, span_id="2" * 16),
        {**span(CHAT, span_id="3" * 16), "endTimeUnixNano": "soon"},
    ]

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await post(service, request(*spans))
            assert answer.status_code == 200
            partial = answer.json()["partialSuccess"]
            assert partial["rejectedSpans"] == "4"
            assert "longer than 200000 characters, and 3 more" in partial["errorMessage"]
            assert len(await kept(service)) == 1

    run(work())


@pytest.mark.parametrize(
    ("body", "headers", "status", "code"),
    [
        (b"{", {}, 400, "invalid_json"),
        (b"[]", {}, 400, "invalid_json"),
        (b"\x0a\xff", {"Content_Type": PROTOBUF}, 400, "invalid_protobuf"),
        (b"x", {"Content_Type": "text/plain"}, 415, "media_type"),
        (b"{}", {"Content_Encoding": "br"}, 415, "encoding"),
        (b"{}", {"Content_Encoding": "gzip"}, 400, "invalid_gzip"),
        (gzip.compress(b"{}" * 9, mtime=0)[:-9], {"Content_Encoding": "gzip"}, 400, "invalid_gzip"),
        (gzip.compress(b" " * 9_000, mtime=0), {"Content_Encoding": "gzip"}, 413, "request_too_large"),
        (b" " * 1001, {}, 413, "request_too_large"),
    ],
)
def test_bad_requests(body: bytes, headers: dict[str, str], status: int, code: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options={"limits": Limits(body=1000)}) as service:
            error(await post(service, body, **headers), status, code)

    run(work())


def test_a_body_of_50_mb_is_refused_before_it_is_read(tmp_path: Path) -> None:
    sent = 0

    async def pieces() -> Any:
        nonlocal sent
        for _ in range(50):
            sent += 1
            yield b" " * 2**20

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            headers = {"Content-Type": "application/json", "Content-Length": str(50 * 2**20)}
            answer = await service.http.post("/v1/traces", content=pieces(), headers=headers)
            error(answer, 413, "request_too_large")
            assert sent == 0
            del headers["Content-Length"]
            error(
                await service.http.post("/v1/traces", content=pieces(), headers=headers),
                413,
                "request_too_large",
            )
            assert sent <= 4

    run(work())


def test_gzip_and_what_is_empty(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            packed = gzip.compress(json.dumps(request(span(CHAT))).encode())
            assert (await post(service, packed, Content_Encoding="gzip")).text == "{}"
            assert len(await kept(service)) == 1
            assert (await post(service, {})).text == "{}"
            empty = await post(service, b"", Content_Type=PROTOBUF)
            assert (empty.status_code, empty.content, empty.headers["content-type"]) == (200, b"", PROTOBUF)

    run(work())


@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_the_real_exporter_sends_protobuf(compression: str, tmp_path: Path) -> None:
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    store = Store(sqlite(tmp_path))
    with listening(create_app(FeedbackLoop(store, tmp_path / "state"), Parrot())) as url:  # type: ignore[arg-type]
        exporter = OTLPSpanExporter(f"{url}/v1/traces", compression=Compression(compression), timeout=10)
        provider = TracerProvider(
            resource=Resource.create({"service.name": "letters"}), shutdown_on_exit=False
        )
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        with provider.get_tracer("test").start_as_current_span("chat gpt-x", attributes=CHAT) as made:
            made.add_event("gen_ai.content.prompt", {"gen_ai.prompt": "ignored: messages are newer"})
        context = made.get_span_context()
        alias = f"{context.trace_id:032x}-{context.span_id:016x}"
        provider.shutdown()
        edited = httpx.post(f"{url}/v1/edits", json={"response_id": alias, "edit": "Hi Ada, come"}).json()
        assert (edited["response_id"], edited["policy"]) == ("chatcmpl-1", "gpt-x")
        assert edited["cost"] == pytest.approx(1 / 3)
