"""Edits by the client's own key, for frameworks that lose the response's id."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Service, error, run, serving, sqlite
from sqlalchemy import text

from editloop.serve.backends.base import Completion


async def edit_by(service: Service, client_key: Any, edit: str = "Mine.", **more: Any) -> httpx.Response:
    body = {"metadata": {"editloop_key": client_key}, "edit": edit, **more}
    return await service.http.post("/v1/edits", json=body)


def test_a_response_is_found_by_its_key_after_a_restart(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            mine = (await service.ask(metadata={"editloop_key": "mine", "page": 3})).json()["id"]
            await service.ask(metadata={"editloop_key": "other"})
            await service.ask()
            streamed = await service.ask(metadata={"editloop_key": "streamed"}, stream=True)
            body = {"model": "editloop", "input": "x", "metadata": {"editloop_key": "new"}}
            new = (await service.http.post("/v1/responses", json=body)).json()["id"]
        async with serving(url, tmp_path) as service:
            done = (await edit_by(service, "mine")).json()
            assert (done["response_id"], done["revision"], done["status"]) == (mine, 1, "edited")
            for key, expected in (("streamed", streamed.headers["X-EditLoop-Response-Id"]), ("new", new)):
                assert (await edit_by(service, key)).json()["response_id"] == expected
            row = (await service.http.get(f"/v1/edits/{mine}")).json()
            assert row["revisions"][0]["edit"] == "Mine."

    run(work())


def test_an_unknown_or_ambiguous_key_is_one_error(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            ids = [(await service.ask(metadata={"editloop_key": "k"})).json()["id"] for _ in range(3)]
            param = "metadata.editloop_key"
            assert error(await edit_by(service, "k"), 409, "key_ambiguous")["param"] == param
            assert error(await edit_by(service, "none"), 404, "response_not_found")["param"] == param
            await service.ask(metadata={"editloop_key": "n"}, n=2)
            error(await edit_by(service, "n"), 409, "key_ambiguous")
            # An edit that was recorded before its key became ambiguous is recognised when it is sent again.
            await service.ask(metadata={"editloop_key": "late"})
            first = (await edit_by(service, "late", key="e1")).json()
            await service.ask(metadata={"editloop_key": "late"})
            again = (await edit_by(service, "late", key="e1")).json()
            assert (again["response_id"], again["repeated"]) == (first["response_id"], True)
            error(await edit_by(service, "late", key="e2"), 409, "key_ambiguous")
            await service.edit(ids[0], "x", key="e3")
            error(await edit_by(service, "late", key="e3"), 409, "key_ambiguous")

    run(work())


def test_of_the_steps_of_an_agent_the_one_with_a_text_is_meant(url: str, tmp_path: Path) -> None:
    """Its requests all have the key; a tool call has no text that anybody could edit."""

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            complete = service.backend.complete
            call = {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}

            async def calls(*_: Any) -> Completion:
                return Completion(None, "tool_calls", call)

            service.backend.complete = calls  # type: ignore[method-assign]
            for _ in range(2):
                await service.ask(metadata={"editloop_key": "run"})
            error(await edit_by(service, "run"), 409, "key_ambiguous")
            service.backend.complete = complete  # type: ignore[method-assign]
            said = (await service.ask(metadata={"editloop_key": "run"})).json()["id"]
            assert (await edit_by(service, "run")).json()["response_id"] == said

    run(work())


def test_a_key_is_gone_with_the_texts(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await service.ask(metadata={"editloop_key": "k"}, user="ada")
            await service.http.delete("/v1/users/ada")
            error(await edit_by(service, "k"), 404, "response_not_found")

    run(work())


def test_the_search_reads_an_index(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            is_sqlite = url.startswith("sqlite")
            # PostgreSQL reads a small table whole, unless that is forbidden.
            explain = "EXPLAIN QUERY PLAN " if is_sqlite else "EXPLAIN "
            query = "SELECT response_id FROM drafts WHERE client_key = 'k'"

            def plan(connection: Any) -> str:
                if not is_sqlite:
                    connection.execute(text("SET LOCAL enable_seqscan = off"))
                return str(connection.execute(text(explain + query)).all())

            assert "drafts_client_key" in await service.loop.read(plan)

    run(work())


@pytest.mark.parametrize("key", ["", "x" * 129, 5, None, ["k"], {}])
def test_a_key_is_a_short_text(tmp_path: Path, key: Any) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            asked = error(await service.ask(metadata={"editloop_key": key}), 400, "invalid_request")
            assert "text of 1 to 128 characters" in asked["message"] and asked["param"] == "metadata"
            error(await edit_by(service, key), 400, "invalid_request")
            assert service.backend.asked == []

    run(work())


def test_a_key_stands_alone(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for more in (
                {"metadata": {"editloop_key": "k", "page": 1}},
                {"metadata": {"page": 1}},
                {"metadata": {"editloop_key": "k"}, "response_id": "x"},
                {"metadata": {"editloop_key": "k"}, "user": "ada"},
            ):
                body = {"edit": "Mine.", **more}
                error(await service.http.post("/v1/edits", json=body), 400, "invalid_request")

    run(work())
