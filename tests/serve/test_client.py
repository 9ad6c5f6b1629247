"""Clients: the project's own with their spool, and the official OpenAI package, over a real socket."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import httpx
import openai
import pytest
from serving import run, serving
from site_server import served

from editloop.errors import ServeError
from editloop.serve import AsyncClient, Client
from editloop.store.testing import Postgres


def test_the_openai_package_works_unchanged(tmp_path: Path) -> None:
    with served(tmp_path) as (url, _), openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client:
        assert [model.id for model in client.models.list()] == ["editloop", "a@1", "b@2"]
        messages = [{"role": "user", "content": "Write."}]
        done = client.chat.completions.create(
            model="editloop",
            messages=messages,  # type: ignore[arg-type]
            user="ada",
            max_tokens=9,
            metadata={"page": "3"},
            extra_body={"id": "draft-1"},
        )
        assert done.id == "draft-1" and done.choices[0].message.content == "Hello from a@1"
        raw = client.chat.completions.with_raw_response.create(model="b", messages=messages)  # type: ignore[arg-type]
        assert raw.headers["x-editloop-policy"] == "b@2"
        parts = []
        with client.chat.completions.create(model="a", messages=messages, stream=True) as stream:  # type: ignore[call-overload]
            for chunk in stream:
                parts.append(chunk.choices[0].delta.content or "")
        assert "".join(parts) == "Hello from a@1 "
        with pytest.raises(openai.NotFoundError, match="no such model"):
            client.chat.completions.create(model="gpt-9", messages=messages)  # type: ignore[arg-type]
        with pytest.raises(openai.BadRequestError, match="max_tokens"):
            client.chat.completions.create(model="a", messages=messages, max_tokens=-1)  # type: ignore[arg-type]
        sent = httpx.post(f"{url}/v1/edits", json={"response_id": done.id, "edit": "Hello from me"})
        assert sent.json()["cost"] == pytest.approx(1 / 3)


def test_an_edit_outlives_a_server_that_is_down(tmp_path: Path) -> None:
    with served(tmp_path) as (url, _):
        port = int(url.rpartition(":")[2])
        with Client(url, spool=tmp_path / "spool" / "edits.jsonl", retry_missing=0) as client:
            first = client.complete("Write.", user="ada")
            assert first.text == "Hello from a@1" and first.policy == "a@1"
            second = client.complete([{"role": "user", "content": "Write."}])
            assert client.edit(first.response_id, "Hi from a@1").cost == pytest.approx(1 / 3)
            assert client.accept(first.response_id).revision == 2
            assert client.discard(first.response_id)[2:] == (1.0, 3)
            with pytest.raises(ServeError, match="no such response"):
                client.edit("unknown", "x")
    client = Client(url, spool=tmp_path / "spool" / "edits.jsonl")
    assert client.edit(second.response_id, "One") == (second.response_id, True, None, None)
    assert client.edit("unknown", "Two").spooled
    assert client.edit(second.response_id, "Three").spooled
    with pytest.raises(ServeError, match="does not answer"):
        client.complete("Write.")
    with pytest.raises(ServeError, match="give the client a spool"):
        Client(url).discard(second.response_id)
    assert len(client.waiting()) == 3
    client.http.close()
    again = Client(url, spool=tmp_path / "spool" / "edits.jsonl", retry_missing=0)
    with served(tmp_path, port) as (url, _), again as client:
        assert client.discard(first.response_id).revision == 3
        assert client.waiting() == []
        shown = httpx.get(f"{url}/v1/edits/{second.response_id}").json()
        assert [each["edit"] for each in shown["revisions"]] == ["One", "Three"]
        assert "unknown" in (tmp_path / "spool" / "edits.refused").read_text()


def test_the_async_client_does_the_same(tmp_path: Path) -> None:
    async def work() -> None:
        with served(tmp_path) as (url, _):
            async with AsyncClient(url, spool=tmp_path / "edits.jsonl") as client:
                drafts = await asyncio.gather(*(client.complete("Write.") for _ in range(4)))
                taken = await asyncio.gather(*(client.edit(each.response_id, "x") for each in drafts))
                assert [each.revision for each in taken] == [1] * 4
            port = int(url.rpartition(":")[2])
        client = AsyncClient(url, spool=tmp_path / "edits.jsonl")
        waits = await asyncio.gather(*(client.edit(each.response_id, "y") for each in drafts))
        assert all(each.spooled for each in waits) and len(client.waiting()) == 4
        await client.http.aclose()
        with served(tmp_path, port) as (url, _):
            async with AsyncClient(url, spool=tmp_path / "edits.jsonl") as client:
                assert await client.flush() == 4
                assert client.waiting() == [] and await client.flush() == 0
                assert (await client.accept(drafts[0].response_id)).revision == 3
                assert (await client.discard(drafts[0].response_id))[2:] == (1.0, 4)

    run(work())


@pytest.mark.parametrize("status", [401, 403, 408, 500])
def test_an_edit_is_kept_while_it_is_not_what_is_wrong(status: int, tmp_path: Path) -> None:
    answers = [status, status, status, 409, 200]
    done = {"response_id": "r", "cost": 0.5, "revision": 1}

    def answer(_: httpx.Request) -> httpx.Response:
        code = answers.pop(0)
        return httpx.Response(code, json=done if code == 200 else {"error": {"message": "no"}})

    http = httpx.Client(transport=httpx.MockTransport(answer), base_url="http://server")
    with Client("http://server", spool=tmp_path / "edits.jsonl", http=http) as client:
        assert client.edit("r", "One").spooled
        assert client.edit("r", "Two").spooled
        with pytest.raises(httpx.HTTPError):
            client.flush()
        assert [each["edit"] for each in client.waiting()] == ["One", "Two"]
        assert client.flush() == 2 and client.waiting() == []
    assert "One" in (tmp_path / "edits.refused").read_text()


MISSING = {"error": {"message": "no such response", "code": "response_not_found"}}


def answering(answers: list[int | None], seen: list[str]) -> httpx.MockTransport:
    """A server that gives these answers, one after the other; None stands for no answer."""

    def answer(request: httpx.Request) -> httpx.Response:
        code = answers.pop(0)
        seen.append(json.loads(request.content)["edit"])
        assert "missing_since" not in request.content.decode()
        if code is None:
            raise httpx.ConnectError("down", request=request)
        done = {"response_id": "r", "cost": 0.5, "revision": 1}
        return httpx.Response(code, json=MISSING if code == 404 else done)

    return httpx.MockTransport(answer)


def test_an_edit_of_a_response_that_is_not_known_yet_waits(tmp_path: Path) -> None:
    """Later edits of the same response wait behind it, even if the server goes down in between."""
    answers: list[int | None] = [404, 404, 404, 200, None, 404, None, 200, 200, 200]
    seen: list[str] = []
    http = httpx.Client(transport=answering(answers, seen), base_url="http://server")
    with Client("http://server", spool=tmp_path / "edits.jsonl", http=http) as client:
        assert client.edit("r", "One") == ("r", True, None, None)
        assert client.edit("r", "Two").spooled  # not sent now: it would be recorded before the earlier edit
        assert client.edit("s", "Other").cost == 0.5
        assert seen == ["One", "One", "One", "Other"]
        assert client.edit("s", "Late").spooled
        with pytest.raises(httpx.ConnectError):
            client.flush()
        assert seen[4:] == ["One", "One", "Late"]
        assert [each["edit"] for each in client.waiting()] == ["One", "Two", "Late"]
        assert client.flush() == 3 and client.waiting() == []
        assert seen[7:] == ["One", "Two", "Late"] and not (tmp_path / "edits.refused").exists()


def test_an_edit_that_nobody_comes_to_know_is_refused_in_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("editloop.serve.client_base.time.time", lambda: now[0])
    seen: list[str] = []
    http = httpx.Client(transport=answering([404] * 9, seen), base_url="http://server")
    with Client("http://server", spool=tmp_path / "edits.jsonl", http=http) as client:
        assert client.edit("r", "One").spooled
        now[0] += 3599
        assert client.flush() == 0 and len(client.waiting()) == 1
        now[0] += 1
        assert client.flush() == 1 and client.waiting() == []
        (refused,) = map(json.loads, (tmp_path / "edits.refused").read_text().splitlines())
        assert refused["edit"] == "One" and set(refused) == {"response_id", "key", "edit"}
    without = httpx.Client(transport=answering([404], seen), base_url="http://server")
    with (
        Client("http://server", http=without) as client,
        pytest.raises(ServeError, match="no such response"),
    ):
        client.edit("r", "One")


def test_an_edit_reaches_a_response_that_another_replica_has_spooled(
    postgres: Postgres, tmp_path: Path
) -> None:
    """One answers while the database is down, and stops. The other is asked. Then the first comes back."""
    url = postgres.new()

    async def work() -> None:
        try:
            async with serving(url, tmp_path / "a") as a:
                await asyncio.to_thread(postgres.stop, at_once=True)
                assert (await a.ask(id="r")).status_code == 200
        finally:
            await asyncio.to_thread(postgres.start)
        async with serving(url, tmp_path / "b", arms=()) as b:
            client = AsyncClient("http://localhost", spool=tmp_path / "edits.jsonl", http=b.http)
            assert (await client.edit("r", "Hi from a@1")).spooled
            assert (await client.edit("r", "Hi from me")).spooled
            assert await client.flush() == 0 and len(client.waiting()) == 2
            async with serving(url, tmp_path / "a", arms=()) as a:
                while a.loop.writer.spooled() or a.loop.down:
                    await asyncio.sleep(0.05)
            assert await client.flush() == 2 and client.waiting() == []
            shown = (await b.http.get("/v1/edits/r")).json()
            assert [each["edit"] for each in shown["revisions"]] == ["Hi from a@1", "Hi from me"]

    run(work())


def test_a_draft_is_one_choice() -> None:
    with Client("http://127.0.0.1:1") as client, pytest.raises(ServeError, match="one choice: 3"):
        client.complete("Write.", n=3)
