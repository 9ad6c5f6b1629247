"""Why a draft was edited: said with the edit or by an admin, searched, exported in both formats, removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import Service, error, run, serving, sqlite

from editloop import read_log
from editloop.store.log import DATABASE


async def edited(service: Service, text: str = "Hello you", **more: Any) -> str:
    response_id = str((await service.ask("Write.", user="ada")).json()["id"])
    answer = await service.edit(response_id, text, **more)
    assert answer.status_code == 200, answer.text
    return response_id


async def rows(service: Service, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await service.http.get("/v1/edits", params=parameters)).json()["data"]
    return found


def test_a_reason_is_kept_searched_and_changed(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first = await edited(service, reason="Too long, #tone")
            second = await edited(service)
            assert [row["id"] for row in await rows(service, q="#TONE")] == [first]
            # A later revision without a reason leaves it in force.
            await service.edit(first, "Hello you all")
            assert (await rows(service, q="#tone"))[0]["reason"] == "Too long, #tone"
            shown = (await service.http.get(f"/v1/edits/{first}")).json()["revisions"]
            assert [each["reason"] for each in shown] == ["Too long, #tone", None]
            put = await service.http.put(f"/v1/edits/{second}/reason", json={"reason": "a name was wrong"})
            assert put.json() == {"object": "reason", "response_id": second, "revision": 1} | {
                "reason": "a name was wrong"
            }
            assert [row["id"] for row in await rows(service, q="name was")] == [second]
            await service.http.put(f"/v1/edits/{first}/reason", json={"reason": None})
            assert await rows(service, q="#tone") == []
            entries = (await service.http.get("/v1/audit")).json()["data"]
            assert [(each["action"], each["subject"]) for each in entries] == [
                ("annotate", first),
                ("annotate", second),
            ]
            assert "name" not in json.dumps(entries)

    run(work())


def test_a_reason_of_a_draft_that_was_thrown_away_or_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for what in ({"discarded": True}, {"accepted": True}):
                response_id = (await service.ask("Write.")).json()["id"]
                body = {"response_id": response_id, "reason": "because", **what}
                assert (await service.http.post("/v1/edits", json=body)).status_code == 200
            assert [row["reason"] for row in await rows(service)] == ["because", "because"]

    run(work())


def test_bad_reasons(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            response_id = (await service.ask("Write.")).json()["id"]
            for bad in ("", "x" * 1001, 7):
                error(await service.edit(response_id, "Hi", reason=bad), 400, "invalid_request")
                answer = await service.http.put(f"/v1/edits/{response_id}/reason", json={"reason": bad})
                error(answer, 400, "invalid_request")
            error(await service.edit(response_id, "Hi", reason="a\0b"), 400, "invalid_text")
            for missing in (response_id, "nothing", "a%00b"):  # the first has no edit yet
                answer = await service.http.put(f"/v1/edits/{missing}/reason", json={"reason": "x"})
                error(answer, 404, "edit_not_found")

    run(work())


def test_reasons_are_redacted_and_removed(tmp_path: Path) -> None:
    async def work() -> None:
        options = {"redact": lambda text: text.replace("Bob", "[name]")}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            response_id = await edited(service, reason="Bob said so")
            assert (await rows(service))[0]["reason"] == "[name] said so"
            await service.http.put(f"/v1/edits/{response_id}/reason", json={"reason": "ask Bob"})
            assert (await rows(service))[0]["reason"] == "ask [name]"
            await service.http.delete("/v1/users/ada")
        assert b"said so" not in Path(tmp_path, "edits.db").read_bytes()
        assert b"ask [name]" not in Path(tmp_path, "edits.db").read_bytes()

    run(work())


@pytest.mark.parametrize("format", ["ndjson", "csv"])
def test_what_is_shown_is_exported_as_a_log(tmp_path: Path, format: str) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            service.backend.says = lambda arm, request: 'Dear "Ada",\r\nhello; you\ttoo = 1'
            kept = await edited(service, '=1+1,\n"quoted"', reason='Why, "not"')
            await edited(service, "")
            chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi, you"}]
            await service.ask(messages=chat, user="ada", metadata={"place": "x"})
            await service.ask("Of another user", user="bob")
            answer = await service.http.get("/v1/edits", params={"format": format, "user": "ada"})
            assert answer.headers["content-type"].startswith(
                f"{'text' if format == 'csv' else 'application'}/"
            )
            path = tmp_path / f"export.{'jsonl' if format == 'ndjson' else 'csv'}"
            path.write_bytes(answer.content)
            records = {record.id: record for record in read_log(path)}
            from_store = {record.id: record for record in read_log(f"{sqlite(tmp_path)}", user=["ada"])}
            assert records == from_store and len(records) == 3
            assert (
                records[kept].edit == '=1+1,\n"quoted"' and records[kept].metadata["reason"] == 'Why, "not"'
            )
            query = {"format": format, "q": "no such text"}
            nothing = (await service.http.get("/v1/edits", params=query)).text.splitlines()
            assert len(nothing) == (1 if format == "csv" else 0)

    run(work())


def test_the_log_of_a_store_has_the_reasons(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            await edited(service, reason="too formal")
        (row,) = DATABASE.locate(sqlite(tmp_path)).rows()
        assert row["metadata"] == {"reason": "too formal"} and "reason" not in row

    run(work())
