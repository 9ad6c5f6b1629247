"""JSON that two parsers would read differently is refused, so that everything that is sent out is JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aiohttp import web
from serving import Service, error, run, serving, sqlite
from sqlalchemy import update

from editloop.errors import RunError
from editloop.policy import RunFolder
from editloop.serve.backends.base import BackendUnavailableError
from editloop.serve.backends.upstream import UpstreamBackend
from editloop.store.schema import drafts


def strict(text: str) -> Any:
    """A text as other parsers read it: JavaScript's knows neither NaN nor Infinity."""

    def refuse(name: str) -> NoReturn:
        raise ValueError(name)

    return json.loads(text, parse_constant=refuse)


async def everything_is_json(service: Service) -> None:
    page = await service.http.get("/v1/edits")
    assert page.status_code == 200
    for row in strict(page.text)["data"]:
        shown = await service.http.get(f"/v1/edits/{row['id']}")
        assert strict(shown.text)["response_id"] == row["id"]
    export = await service.http.get("/v1/edits", params={"format": "ndjson"})
    assert export.status_code == 200 and len([strict(line) for line in export.text.splitlines()]) >= 1


MESSAGES = '"model": "editloop", "messages": [{"role": "user", "content": "x"}]'
DEEP = f"{'[' * 65}{']' * 65}"
BAD = [
    ('"metadata": {"a": 1e400}', "a number too large for JSON readers"),
    ('"metadata": {"a": -1e400}', "a number too large for JSON readers"),
    (f'"metadata": {{"a": {"9" * 400}}}', "a number too large for JSON readers"),
    ('"metadata": {"a": NaN}', "NaN is no JSON number"),
    ('"temperature": Infinity', "Infinity is no JSON number"),
    ('"metadata": {"a": 1, "a": 2}', "the same key twice in one JSON object"),
    ('"user": "ada", "user": "bob"', "the same key twice in one JSON object"),
    (f'"metadata": {{"a": {DEEP}}}', "nested too deeply, more than 64 levels"),
    (f'"other": {"[" * 5000}{"]" * 5000}', "nested too deeply"),
    ('"metadata": {"a": tru}', "not JSON in UTF-8"),
]


@pytest.mark.parametrize(("field", "reason"), BAD, ids=range(len(BAD)))
def test_what_reads_two_ways_is_refused_with_the_reason(field: str, reason: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await service.http.post("/v1/chat/completions", content=f"{{{MESSAGES}, {field}}}")
            assert reason in error(answer, 400, "invalid_json")["message"]
            known = (await service.ask()).json()["id"]
            sent = await service.http.post("/v1/edits", content=f'{{"response_id": "{known}", {field}}}')
            assert reason in error(sent, 400, "invalid_json")["message"]
            triple = f'{{"context": "x", "response": "y", "edit": "z", {field}}}'
            assert (
                reason
                in error(await service.http.post("/v1/edits", content=triple), 400, "invalid_json")["message"]
            )
            assert service.loop.bandit.state.decisions == 1
            await everything_is_json(service)

    run(work())


@pytest.mark.parametrize("levels", [1, 30, 62])
def test_what_is_nested_less_deeply_is_taken(levels: int, tmp_path: Path) -> None:
    """Through the redaction and the store, and out again."""
    nested: Any = "leaf"
    for i in range(levels):
        nested = {"a": nested} if i % 2 else [nested]

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            assert (await service.ask(metadata={"m": nested})).status_code == 200
            row = (await service.http.get("/v1/edits")).json()["data"][0]
            assert row["metadata"] == {"m": nested}

    run(work())


def test_brackets_in_texts_are_no_levels(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            assert (await service.ask("[" * 500, metadata={"m": [[]] * 200})).status_code == 200

    run(work())


def test_rows_that_an_earlier_version_let_in_are_read(url: str, tmp_path: Path) -> None:
    """NaN is read as null, and metadata that a redaction broke as a text."""

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            for name, text in (("inf", '{"a": Infinity, "b": [NaN, 1]}'), ("cut", '{"card": ####}')):
                await service.ask(id=name)
                with service.loop.store.writer.begin() as connection:
                    mine = drafts.c.response_id == name
                    connection.execute(update(drafts).where(mine).values(metadata=text))
            await everything_is_json(service)
            rows = {
                row["id"]: row["metadata"] for row in (await service.http.get("/v1/edits")).json()["data"]
            }
            assert rows == {"inf": {"a": None, "b": [None, 1]}, "cut": {"unreadable": '{"card": ####}'}}

    run(work())


def test_a_run_folder_that_reads_two_ways_is_damaged(tmp_path: Path) -> None:
    for text in ('{"format": 1, "format": 2}', '{"format": 1, "base": {"cost": NaN}}', '{"format": 1e400}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=r"run\.json is damaged"):
            RunFolder(tmp_path).manifest()


@pytest.mark.parametrize("number", ["NaN", "1e400"])
def test_a_model_server_that_says_no_json_is_not_passed_on(number: str) -> None:
    """Neither a whole answer nor a stream of it is used; another arm answers in its place."""
    message = '"message": {"role": "assistant", "content": "Hi"}'
    body = f'{{"choices": [{{{message}, "delta": {{}}, "logprobs": {{"a": {number}}}}}]}}'

    async def answer(request: web.Request) -> web.Response:
        stream = (await request.json())["stream"]
        return web.Response(text=f"data: {body}\n\n" if stream else body)

    async def work() -> None:
        app = web.Application()
        app.router.add_post("/v1/chat/completions", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        backend = UpstreamBackend(f"http://127.0.0.1:{runner.addresses[0][1]}/v1")
        await backend.start()
        try:
            request = {"messages": [{"role": "user", "content": "x"}]}
            with pytest.raises(BackendUnavailableError, match="not a chat completion"):
                await backend.complete("a@1", request, "r")
            with pytest.raises(BackendUnavailableError, match="not a chunk"):
                [_ async for _ in backend.stream("a@1", request, "r")]
        finally:
            await backend.stop()
            await runner.cleanup()

    run(work())
