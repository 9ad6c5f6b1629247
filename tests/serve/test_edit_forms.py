"""Edits in all their forms: tokens of every answer; reasons, times and tokens in batches; texts not kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from serving import Service, error, key_of, run, serving, sqlite

from editloop.edits.record import Record
from editloop.serve.client_base import edit_row

ON = {"edit_tokens": 3600.0}
ASKED = {"model": "editloop", "messages": [{"role": "user", "content": "Write."}]}


def of(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def send(service: Service, response_id: str, token: str, edit: str, **more: Any) -> dict[str, Any]:
    """Send an edit as a page does, without a key."""
    body = {"response_id": response_id, "token": token, "edit": edit, **more}
    answer = await service.http.post("/v1/edits", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def events_of(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


def test_each_choice_has_a_token_of_its_own(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            asked = {**ASKED, "n": 3}
            answer = await service.http.post("/v1/chat/completions", json=asked, headers=of(key))
            body = answer.json()
            assert answer.headers["X-EditLoop-Edit-Token"] == body["edit_token"]
            assert body["edit_token"] == body["choices"][0]["edit_token"]
            assert len({choice["edit_token"] for choice in body["choices"]}) == 3
            last = body["choices"][2]
            assert (await send(service, last["response_id"], last["edit_token"], "Mine."))["cost"] > 0
            wrong = {"response_id": last["response_id"], "token": body["edit_token"], "accepted": True}
            error(await service.http.post("/v1/edits", json=wrong), 403, "edit_token_mismatch")

            streamed = await service.http.post(
                "/v1/chat/completions", json={**asked, "stream": True}, headers=of(key)
            )
            chunks = events_of(streamed.text)
            assert [chunk.get("edit_token") for chunk in chunks if "edit_token" in chunk] == [
                streamed.headers["X-EditLoop-Edit-Token"]
            ]
            tokens = [
                (c["response_id"], c["edit_token"]) for e in chunks for c in e["choices"] if "edit_token" in c
            ]
            assert len(dict(tokens)) == len(tokens) == 3
            for response_id, token in tokens:
                assert (await send(service, response_id, token, "Mine."))["status"] == "edited"

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_has_a_token(tmp_path: Path, stream: bool) -> None:
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            asked = {"model": "editloop", "input": "Write.", "stream": stream}
            answer = await service.http.post("/v1/responses", json=asked, headers=of(key))
            body = events_of(answer.text)[0]["response"] if stream else answer.json()
            assert body["edit_token"] == answer.headers["X-EditLoop-Edit-Token"]
            assert (await send(service, body["id"], body["edit_token"], "Mine."))["status"] == "edited"

    run(work())


def test_a_text_that_is_not_kept_is_edited_with_a_token_and_no_reason_stays(tmp_path: Path) -> None:
    key = key_of(sqlite(tmp_path), "admin")

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options=ON) as service:
            asked = {"model": "editloop", "input": "Write.", "store": False}
            body = (await service.http.post("/v1/responses", json=asked, headers=of(key))).json()
            text = body["output"][0]["content"][0]["text"]
            more = {"response": text, "reason": "Secret.", "seconds": 4.0}
            assert (await send(service, body["id"], body["edit_token"], "Mine.", **more))["cost"] > 0
            shown = (await service.http.get(f"/v1/edits/{body['id']}", headers=of(key))).json()
            (revision,) = shown["revisions"]
            assert (revision["reason"], revision["seconds"], shown["response"]) == (None, 4.0, None)

    run(work())


def test_rows_of_a_batch_have_reasons_times_keys_of_clients_and_tokens(url: str, tmp_path: Path) -> None:
    key = key_of(url, "admin")

    async def work() -> None:
        async with serving(url, tmp_path, app_options=ON) as service:
            asked = {**ASKED, "metadata": {"editloop_key": "mine"}}
            first = (await service.http.post("/v1/chat/completions", json=asked, headers=of(key))).json()
            second = (await service.http.post("/v1/chat/completions", json=ASKED, headers=of(key))).json()
            unkept = {"model": "editloop", "input": "Write.", "store": False}
            third = (await service.http.post("/v1/responses", json=unkept, headers=of(key))).json()
            text = third["output"][0]["content"][0]["text"]
            rows = [
                {"metadata": {"editloop_key": "mine"}, "edit": "A.", "reason": "too long", "seconds": 7},
                {"response_id": second["id"], "edit": "B.", "token": second["edit_token"]},
                {"response_id": first["id"], "edit": "C.", "token": second["edit_token"]},
                {"response_id": third["id"], "edit": "D.", "response": text},
                {"response_id": third["id"], "edit": "E."},
                {"metadata": {"editloop_key": "unknown"}, "edit": "F."},
            ]
            answer = await service.http.post(
                "/v1/edits:batch",
                content="\n".join(map(json.dumps, rows)),
                headers=of(key),
            )
            found = [json.loads(line) for line in answer.text.splitlines()]
            assert [row.get("status") or row["error"]["code"] for row in found] == [
                *("edited", "edited", "edit_token_mismatch", "edited"),
                *("response_unstored", "response_not_found"),
            ]
            assert [row.get("response_id") for row in found[:2]] == [first["id"], second["id"]]
            lines = (await service.http.get("/v1/edits?format=ndjson", headers=of(key))).text.splitlines()
            metadata = {row["id"]: row.get("metadata") for row in map(json.loads, lines)}
            known = {"editloop_key": "mine", "reason": "too long", "edit_seconds": 7.0}
            assert metadata[first["id"]] == known
            refused = await service.http.post(
                "/v1/edits:batch", content=json.dumps(rows[1]), headers=of(second["edit_token"])
            )
            error(refused, 403, "permission_denied")

    run(work())


def test_a_record_keeps_its_reason_and_its_time_with_the_edit_where_a_server_takes_them() -> None:
    about = {"reason": "too long", "edit_seconds": 7.5, "page": 1, "revisions": ["B."]}
    row = edit_row(Record(context="Write.", response="A.", edit="C.", metadata=about))
    assert row is not None and row["metadata"] == {"page": 1}
    assert (row["reason"], row["seconds"]) == ("too long", 7.5)
    others = {"reason": ["long"], "edit_seconds": "7"}
    row = edit_row(Record(context="Write.", response="A.", edit="C.", metadata=others))
    assert row is not None and row["metadata"] == others and not {"reason", "seconds"} & row.keys()
