"""The HTTP API: completions, edits, arms, and every bad request with its status and code."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving import error, run, serving, sqlite
from sqlalchemy import Connection, event, select

from editloop.edits import Record
from editloop.online import Bandit
from editloop.serve.backends.base import BackendUnavailableError, Chunk, Completion, UpstreamRejectedError
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.loop.completion import CompletionRequest
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.events import read_events
from editloop.store.schema import drafts, events


def test_a_response_is_answered_and_its_edit_learned_from(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await service.ask(user="ada", metadata={"page": 3}, temperature=0.5)
            body = answer.json()
            assert body["object"] == "chat.completion" and body["model"] == "a@1"
            assert body["choices"][0]["message"] == {"role": "assistant", "content": "Hello from a@1"}
            assert answer.headers["X-EditLoop-Policy"] == "a@1"
            assert answer.headers["X-EditLoop-Response-Id"] == body["id"]
            arm, request = service.backend.asked[0]
            assert arm == "a@1" and request["temperature"] == 0.5 and "user" not in request
            edited = await service.edit(body["id"], "Hello from me")
            assert edited.json() == {
                "object": "edit",
                "response_id": body["id"],
                "revision": 1,
                "status": "edited",
                "cost": pytest.approx(1 / 3),
                "policy": "a@1",
                "repeated": False,
            }
            scope = service.loop.scopes.of("ada")
            tally = service.loop.bandit.state.tally(scope, "a@1")
            assert (tally.observed, tally.pending, tally.cost) == (1, 0, pytest.approx(1 / 3))
            assert (await service.ask(user="ada")).headers["X-EditLoop-Policy"] == "b@2"
            lines = (await service.http.get("/v1/edits", params={"format": "ndjson"})).text.splitlines()
            record = Record.model_validate_json(lines[0])
            assert record.context == "Write." and record.edit == "Hello from me"
            assert (record.user, record.policy, record.metadata) == ("ada", "a@1", {"page": 3})
            assert Record.model_validate_json(lines[1]).status == "pending"

    run(work())


def test_a_subscriber_that_fails_stops_neither_answers_nor_the_fold(tmp_path: Path) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("unexpected")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service, asyncio.timeout(10):
            service.loop.subscribers.insert(0, fail)
            assert {(await service.ask()).status_code for _ in range(3)} == {200}
            assert service.loop.bandit.state.decisions == 3

    run(work())


def test_requests_in_flight_are_counted(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.waits = asyncio.Event()
            asked = [asyncio.create_task(service.ask()) for _ in range(6)]
            while len(service.backend.asked) < 6:
                await asyncio.sleep(0.01)
            assert sorted(arm for arm, _ in service.backend.asked) == ["a@1"] * 3 + ["b@2"] * 3
            service.backend.waits.set()
            await asyncio.gather(*asked)

    run(work())


def test_a_quick_response_shares_the_commit_of_its_decision(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            commits: list[Connection] = []
            event.listen(service.loop.store.writer, "commit", commits.append)
            await service.ask()
            assert len(commits) == 1
            service.backend.waits = asyncio.Event()
            asking = asyncio.create_task(service.ask(id="slow"))
            async with asyncio.timeout(10):
                while service.loop.store.last() < 3:  # the arms and two decisions: durable before the answer
                    await asyncio.sleep(0.01)
            assert len(commits) == 2
            service.backend.waits.set()
            assert (await asking).status_code == 200 and len(commits) == 3

    run(work())


def test_a_chat_completion_reads_nothing_from_the_store(tmp_path: Path) -> None:
    """Beside its own commit, a request waits for no round trip to the database."""

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:

            async def read(*_: Any) -> None:
                raise AssertionError("a read")

            service.loop.access.read = read  # type: ignore[method-assign,assignment]
            more = {"user": "ada", "metadata": {"editloop_key": "k"}}
            for n, stream in ((1, False), (1, True), (3, False), (3, True)):
                assert (await service.ask(n=n, stream=stream, **more)).status_code == 200
            body = {"model": "editloop", "input": "Write."}
            assert (await service.http.post("/v1/responses", json=body)).status_code == 200

    run(work())


def test_a_stream_is_what_a_whole_response_is(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer = await service.ask(stream=True, stream_options={"include_usage": True})
            assert answer.headers["content-type"].startswith("text/event-stream")
            lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
            assert lines[-1] == "[DONE]"
            chunks = [json.loads(line) for line in lines[:-1]]
            assert chunks[-1]["choices"] == [] and "usage" in chunks[-1]
            parts = [each["choices"][0]["delta"].get("content", "") for each in chunks[:-1]]
            assert "".join(parts) == "Hello from a@1 "
            assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
            done = await service.edit(chunks[0]["id"])
            assert (done.json()["cost"], done.json()["status"]) == (0.0, "accepted")

    run(work())


def test_parts_leave_as_they_come(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            go_on = asyncio.Event()

            async def slow(arm: str, request: Any, response_id: str) -> AsyncIterator[Chunk]:
                yield Chunk({"content": "One"})
                await go_on.wait()
                yield Chunk({"content": " two"}, "stop")
                yield Chunk({}, usage={"total_tokens": 2})

            service.backend.stream = slow  # type: ignore[method-assign]
            completions = CompletionService(service.loop, service.backend)
            streamed = await completions.stream(
                CompletionRequest({"messages": [{"role": "user", "content": "Hi"}]})
            )
            assert (await anext(streamed.chunks)).delta == {"content": "One"}
            go_on.set()
            rest = [chunk async for chunk in streamed.chunks]
            assert [chunk.finish for chunk in rest] == ["stop", None]
            assert (await service.edit(streamed.response_id)).json()["status"] == "accepted"

    run(work())


def test_a_model_is_shown_by_its_name(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for name, shown in (("editloop", "editloop"), ("a@1", "a@1"), ("a", "a@1")):
                model = (await service.http.get(f"/v1/models/{name}")).json()
                assert (model["id"], model["object"]) == (shown, "model")
            for name in ("nobody", "a/b", "%00", "a@2"):
                found = error(await service.http.get(f"/v1/models/{name}"), 404, "model_not_found")
                assert found["param"] == "model" and "a@1" in found["message"]

    run(work())


def test_what_has_no_text_cannot_be_edited(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            message = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}

            async def call(arm: str, request: Any, response_id: str) -> Completion:
                return Completion(None, "tool_calls", message)

            service.backend.complete = call  # type: ignore[method-assign]
            answer = await service.ask()
            assert answer.json()["choices"][0]["message"] == message
            assert answer.json()["choices"][0]["finish_reason"] == "tool_calls"
            error(await service.edit(answer.json()["id"], "x"), 410, "response_tool_calls")
            assert service.loop.bandit.state.pending == 0

    run(work())


def test_a_stream_that_breaks_off_says_so_and_is_not_learned_from(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.fails["a@1"] = BackendUnavailableError("error", "too late")
            answer = await service.ask(stream=True)
            last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
            assert "could not answer" in last["error"]["message"]
            response_id = answer.headers["X-EditLoop-Response-Id"]
            error(await service.edit(response_id, "x"), 410, "response_failed")
            assert service.loop.bandit.state.pending == 0

    run(work())


def test_another_arm_answers_for_one_that_cannot(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            service.backend.fails["a@1"] = BackendUnavailableError("timeout")
            for stream in (False, True):
                answer = await service.ask(stream=stream)
                assert answer.headers["X-EditLoop-Policy"] == "b@2"
                await service.edit(answer.headers["X-EditLoop-Response-Id"], "x")
            state = service.loop.bandit.state
            assert (state.tally("", "a@1").pending, state.tally("", "b@2").observed) == (0, 2)
            rows = await service.loop.read(lambda c: c.execute(select(events.c.kind)).scalars().all())
            assert rows.count("rerouted") >= 1
            policy = await service.loop.read(lambda c: c.scalars(select(drafts.c.policy)).all())
            assert policy == ["b@2", "b@2"]
            metrics = (await service.http.get("/metrics")).text
            assert 'editloop_backend_failures_total{arm="a@1",reason="timeout"}' in metrics
            service.backend.fails["b@2"] = BackendUnavailableError("error")
            error(await service.ask(), 502, "upstream_error")
            assert state.pending == 0
            service.backend.fails = dict.fromkeys(("a@1", "b@2"), BackendUnavailableError("timeout"))
            error(await service.ask(stream=True), 504, "upstream_timeout")

    run(work())


def test_a_refusal_of_the_models_server_is_passed_on(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.fails["a@1"] = UpstreamRejectedError(
                400, {"error": {"message": "context too long"}}
            )
            answer = await service.ask()
            assert answer.status_code == 400 and answer.json()["error"]["message"] == "context too long"
            assert len(service.backend.asked) == 1 and service.loop.bandit.state.pending == 0
            service.backend.fails["a@1"] = UpstreamRejectedError(
                429, {"error": {"message": "slow down"}}, "7"
            )
            answer = await service.ask()
            assert answer.status_code == 429 and answer.headers["Retry-After"] == "7"

    run(work())


def test_a_client_may_choose_id_and_arm(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first = await service.ask(id="draft-17", model="b")
            assert (first.json()["id"], first.json()["model"]) == ("draft-17", "b@2")
            again = await service.ask(id="draft-17", model="b")
            assert again.json()["choices"][0]["message"] == first.json()["choices"][0]["message"]
            assert len(service.backend.asked) == 1
            streamed = await service.ask(id="draft-17", model="b", stream=False)
            assert streamed.status_code == 200
            error(await service.ask("Other", id="draft-17", model="b"), 409, "id_reused")
            assert (await service.ask(model="a@1")).json()["model"] == "a@1"
            found = error(await service.ask(model="gpt-9"), 404, "model_not_found")
            assert found["param"] == "model" and "editloop, a@1, b@2" in found["message"]
            models = (await service.http.get("/v1/models")).json()["data"]
            assert [each["id"] for each in models] == ["editloop", "a@1", "b@2"]

    run(work())


def test_an_edit_is_idempotent_by_key(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            response_id = (await service.ask()).json()["id"]
            body = {"response_id": response_id, "edit": "Hi"}
            for _ in range(10):
                answer = await service.http.post("/v1/edits", json=body, headers={"Idempotency-Key": "k"})
                assert answer.json()["revision"] == 1
            assert answer.json()["repeated"]
            other = await service.http.post(
                "/v1/edits", json={**body, "edit": "Hey"}, headers={"Idempotency-Key": "k"}
            )
            error(other, 409, "key_reused")
            assert service.loop.bandit.state.tally("", "a@1").observed == 1

    run(work())


def test_a_triple_from_elsewhere_is_kept(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            triple = {
                "context": "Write.",
                "response": "Hello",
                "edit": "Hello!",
                "user": "ada",
                "policy": "x",
            }
            done = (await service.http.post("/v1/edits", json=triple)).json()
            assert (done["cost"], done["policy"]) == (1.0, "x")
            chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write."}]
            await service.http.post("/v1/edits", json={**triple, "context": chat, "response_id": "mine"})
            lines = (await service.http.get("/v1/edits", params={"format": "ndjson"})).text.splitlines()
            first, second = map(Record.model_validate_json, lines)
            assert (first.context, first.edit, first.propensity) == ("Write.", "Hello!", None)
            assert second.id == "mine" and [m.role for m in second.context] == ["system", "user"]
            assert service.loop.bandit.state.decisions == 0

    run(work())


def test_edits_are_found_and_shown(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            ids = [
                (await service.ask(f"Letter {i}", user=f"u{i % 2}", id=f"r{i}")).json()["id"]
                for i in range(7)
            ]
            await service.edit(ids[2], "100% <b>bold</b>")
            await service.edit(ids[2], "Hello from Ada")
            await service.edit(ids[3])

            async def found(**filters: Any) -> list[str]:
                answer = await service.http.get("/v1/edits", params=filters)
                assert answer.status_code == 200, answer.text
                return [each["id"] for each in answer.json()["data"]]

            assert await found() == ids[::-1]
            assert await found(user="u1") == ["r5", "r3", "r1"]
            assert await found(status="accepted") == ["r3"]
            assert await found(status="edited") == ["r2"]
            assert await found(q="letter 4") == ["r4"]
            assert await found(q="%") == []
            assert await found(policy="nobody") == []
            assert await found(since=time.time() + 9) == []
            page = (await service.http.get("/v1/edits", params={"limit": 4})).json()
            assert [each["id"] for each in page["data"]] == ["r6", "r5", "r4", "r3"]
            assert await found(limit=4, before=page["next"]) == ["r2", "r1", "r0"]
            shown = (await service.http.get("/v1/edits/r2")).json()
            assert [each["revision"] for each in shown["revisions"]] == [1, 2]
            assert shown["revisions"][1]["redline"] == [
                ["kept", "Hello from "],
                ["deleted", shown["response"].removeprefix("Hello from ")],
                ["inserted", "Ada"],
            ]
            error(await service.http.get("/v1/edits/none"), 404, "response_not_found")
            error(await service.http.get("/v1/edits", params={"before": "x"}), 400, "invalid_request")
            error(await service.http.get("/v1/edits", params={"limit": 0}), 400, "invalid_request")

    run(work())


def test_a_user_is_forgotten(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            response_id = (await service.ask(user="ada")).json()["id"]
            await service.edit(response_id, "Secret")
            gone = await service.http.delete("/v1/users/ada")
            assert gone.json() == {"object": "user.deleted", "user": "ada", "removed": 1, "trained": []}
            assert (await service.http.get("/v1/edits")).json()["data"] == []
            error(await service.edit(response_id, "x"), 410, "response_removed")
            assert service.loop.bandit.state.tally(service.loop.scopes.of("ada"), "a@1").observed == 1

    run(work())


def test_what_is_restarted_knows_what_was_known(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            for i in range(5):
                response_id = (await service.ask(user=f"u{i}")).json()["id"]
                if i < 3:
                    await service.edit(response_id, "Hello there")
            known = service.loop.bandit.to_json()
        for remove in (False, True):
            if remove:
                (tmp_path / "snapshot.json").unlink()
            async with serving(url, tmp_path) as service:
                assert service.loop.bandit.to_json() == known
                replay = Bandit.replay(
                    (event for _, event in read_events(service.loop.store)), service.loop.config
                )
                assert replay.to_json() == known

    run(work())


def test_responses_expire_and_old_texts_go(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, expire_after=0.0) as service:
            response_id = (await service.ask()).json()["id"]
            assert await service.loop.maintenance.expire() == 1
            assert await service.loop.maintenance.expire() == 0
            assert service.loop.bandit.state.pending == 0
            late = await service.edit(response_id, "Hi")
            assert late.status_code == 200  # it is a good edit all the same
            assert service.loop.bandit.state.tally("", "a@1").observed == 0
            row = (await service.http.get("/v1/edits")).json()["data"][0]
            assert row["status"] == "edited"

    run(work())


BAD_CHATS: list[tuple[dict[str, Any], str]] = [
    ({"max_tokens": -1}, "max_tokens"),
    ({"messages": []}, "messages"),
    ({"messages": "hi"}, "messages"),
    ({"messages": [{"content": "hi"}]}, "messages.0.role"),
    ({"temperature": 3}, "temperature"),
    ({"n": 9}, "n"),
    ({"n": 0}, "n"),
    ({"id": "no spaces"}, "id"),
    ({"model": ""}, "model"),
    ({"messages": [{"role": "user", "content": "nul \0"}]}, "messages.0.content"),
    ({"messages": [{"role": "user", "content": "half \ud800"}]}, "messages.0.content"),
]


def test_bad_completions_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for change, param in BAD_CHATS:
                body = {"model": "editloop", "messages": [{"role": "user", "content": "x"}], **change}
                answer = await service.http.post("/v1/chat/completions", content=json.dumps(body))
                assert answer.status_code == 400, (change, answer.text)
                assert answer.json()["error"]["param"] == param
            for raw in (b"{", b"\xff\xfe", b'{"model": NaN}', b"[" * 100_000, b"", b"[]"):
                answer = await service.http.post("/v1/chat/completions", content=raw)
                assert answer.status_code == 400, raw[:20]
                assert answer.json()["error"]["code"] in ("invalid_json", "invalid_request")
            assert service.backend.asked == [] and service.loop.bandit.state.decisions == 0
            error(await service.http.get("/v1/nothing"), 404, "not_found")
            error(await service.http.put("/v1/edits"), 405, "method_not_allowed")

    run(work())


BAD_EDITS: list[dict[str, Any]] = [
    {},
    {"response_id": "x"},
    {"response_id": "x", "edit": "a", "accepted": True},
    {"edit": "a"},
    {"edit": "a", "context": "c"},
    {"edit": "a", "context": "c", "response": "  "},
    {"response_id": "x", "edit": "a", "user": "ada"},
    {"response_id": "x", "edit": "a", "revision": 0},
    {"response_id": "x", "edit": "a", "nonsense": 1},
    {"response_id": "x", "accepted": False},
    {"response_id": "x", "accepted": True, "discarded": True},
    {"response_id": "x", "edit": "a", "discarded": True},
    {"response_id": "x", "edit": 3},
]


def test_bad_edits_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for body in BAD_EDITS:
                error(await service.http.post("/v1/edits", json=body), 400, "invalid_request")
            error(await service.edit("unknown", "x"), 404, "response_not_found")

    run(work())


def test_texts_are_redacted_before_they_are_kept(url: str, tmp_path: Path) -> None:
    def redact(text: str) -> str:
        return re.sub(r"\d{4}", "####", text)

    async def work() -> None:
        async with serving(url, tmp_path, app_options={"redact": redact}) as service:
            service.backend.says = lambda arm, request: "Card 1234"
            answer = await service.ask("My card is 9876")
            assert answer.json()["choices"][0]["message"]["content"] == "Card 1234"
            assert service.backend.asked[0][1]["messages"][0]["content"] == "My card is 9876"
            done = await service.edit(answer.json()["id"], "Card 1234, code 5555")
            # Two words are inserted, beside two that are kept: (2/4) / (2 + 2/4).
            assert done.json()["cost"] == pytest.approx(0.2)
            line = (await service.http.get("/v1/edits", params={"format": "ndjson"})).text
            kept = Record.model_validate_json(line)
            assert (kept.context, kept.response) == ("My card is ####", "Card ####")
            assert kept.edit == "Card ####, code ####"

    run(work())


def test_nothing_is_served_before_a_policy_is(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=()) as service:
            error(await service.ask(), 503, "no_policies")
            ready = await service.http.get("/readyz")
            assert ready.status_code == 503 and "no policy" in ready.json()["reason"]

    run(work())


def test_an_id_is_answered_once_at_a_time(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.waits = asyncio.Event()
            first = asyncio.create_task(service.ask(id="x"))
            while not service.backend.asked:
                await asyncio.sleep(0.01)
            for stream in (False, True):
                again = await service.ask(id="x", stream=stream)
                error(again, 409, "id_in_progress")
                assert again.headers["Retry-After"] == "1"
            service.backend.waits.set()
            assert (await first).status_code == 200
            for stream in (True, False):
                assert (await service.ask(id="y", stream=stream)).status_code == 200

    run(work())


def test_what_fails_unforeseen_leaves_nothing_in_flight(tmp_path: Path) -> None:
    def redact(text: str) -> str:
        if "secret" in text:
            raise ValueError("cannot redact")
        return text

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options={"redact": redact}) as service:
            error(await service.ask("a secret"), 500, "internal_error")
            service.backend.fails["a@1"] = AttributeError("a bug")
            error(await service.ask("Hi"), 500, "internal_error")
            await asyncio.sleep(0.1)
            assert service.loop.state.in_flight == {} and service.loop.bandit.state.pending == 0

    run(work())


def test_reasons_to_end_are_those_that_are_known(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:

            async def odd(arm: str, request: Any, response_id: str) -> Completion:
                return Completion(
                    "Hi", "removed_for_want_of_resources", {"role": "assistant", "content": "Hi"}
                )

            service.backend.complete = odd  # type: ignore[method-assign]
            assert (await service.edit((await service.ask()).json()["id"], "Hello")).status_code == 200

    run(work())


def test_any_name_can_be_forgotten(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            assert (await service.ask(user="team/bo b?")).status_code == 200
            error(await service.ask(user=""), 400, "invalid_request")
            gone = await service.http.delete("/v1/users/team%2Fbo%20b%3F")
            assert gone.json()["removed"] == 1

    run(work())


def test_a_header_makes_a_triple_idempotent(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            triple = {"context": "Write.", "response": "Hello", "edit": "Hello!"}
            for repeated in (False, True, True):
                done = await service.http.post("/v1/edits", json=triple, headers={"Idempotency-Key": "k"})
                assert done.json()["repeated"] is repeated, done.text
            assert len((await service.http.get("/v1/edits")).json()["data"]) == 1

    run(work())


def test_a_retired_arm_has_no_gauges(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:

            async def observed() -> list[str]:
                text = (await service.http.get("/metrics")).text
                return re.findall(r'^editloop_arm_observed\{arm="(.*)"\}', text, re.MULTILINE)

            assert await observed() == ["a@1", "b@2"]
            await service.loop.set_arms(StartEpoch(lambda _: ("b@2",), (), time.time()))
            assert await observed() == ["b@2"]

    run(work())
