"""Keys and the audit over the API: what a role may do, what is noted, and what is never shown."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Service, error, key_of, run, serving, sqlite

from editloop.autopilot.ledger import write_transitions
from editloop.autopilot.stages import Stage, Transition
from editloop.serve.api import authentication
from editloop.store import reads
from editloop.store.keys import create_key, list_keys, revoke_key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


async def entries(service: Service, key: str = "", **parameters: Any) -> list[dict[str, Any]]:
    headers = bearer(key) if key else {}
    answer = await service.http.get("/v1/audit", params=parameters, headers=headers)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


def test_a_key_is_made_used_and_revoked(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            http = service.http
            refused = await http.post("/v1/keys", json={"name": "shop", "role": "app"})
            error(refused, 409, "admin_key_first")
            made = await http.post("/v1/keys", json={"name": "boss", "role": "admin"})
            assert made.status_code == 200 and made.headers["cache-control"] == "no-store"
            boss = bearer(made.json()["key"])
            error(await http.get("/v1/keys"), 401, "invalid_api_key")  # from now on, at once
            shop = (await http.post("/v1/keys", json={"name": "a/b <i>", "role": "app"}, headers=boss)).json()
            error(await http.post("/v1/keys", json={"name": "boss"}, headers=boss), 409, "name_taken")
            me = (await http.get("/v1/me", headers=bearer(shop["key"]))).json()
            assert (me["key"], me["role"], me["is_admin"]) == ("a/b <i>", "app", False)
            assert "POST /v1/edits" in me["routes"] and me["alignment"] == {"unit": "word", "weights": None}
            listed = (await http.get("/v1/keys", headers=boss)).json()["data"]
            assert [(each["name"], each["role"], each["revoked"]) for each in listed] == [
                ("boss", "admin", None),
                ("a/b <i>", "app", None),
            ]
            assert all(time.time() - each["last_used"] < 60 for each in listed)
            assert "digest" not in json.dumps(listed) and shop["key"] not in json.dumps(listed)
            error(await http.delete("/v1/keys/nobody", headers=boss), 404, "key_not_found")
            error(await http.delete("/v1/keys/boss", headers=boss), 409, "last_admin_key")
            assert (await http.delete("/v1/keys/a%2Fb%20%3Ci%3E", headers=boss)).status_code == 200
            error(await http.get("/v1/models", headers=bearer(shop["key"])), 401, "invalid_api_key")
            noted = await entries(service, made.json()["key"])
            assert [(each["action"], each["subject"], each["by"]) for each in noted] == [
                ("revoke key", "a/b <i>", "boss"),
                ("create key", "a/b <i>", "boss"),
                ("create key", "boss", ""),
            ]
            assert made.json()["key"] not in json.dumps(noted)

    run(work())


@pytest.mark.parametrize("name", ["", " x", "x\n", "x" * 65, 7])
def test_bad_names_of_keys(tmp_path: Path, name: object) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await service.http.post("/v1/keys", json={"name": name, "role": "admin"})
            error(answer, 400, "invalid_request")
            assert (await service.http.get("/v1/keys")).json()["data"] == []

    run(work())


def test_an_app_key_reads_no_audit_and_makes_no_key(tmp_path: Path) -> None:
    key_of(sqlite(tmp_path), "admin")
    app = bearer(key_of(sqlite(tmp_path)))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            http = service.http
            for path in ("/v1/audit", "/v1/keys", "/v1/users", "/v1/usage", "/v1/saving"):
                error(await http.get(path, headers=app), 403, "permission_denied")
            for answer in (
                await http.post("/v1/keys", json={"name": "x", "role": "admin"}, headers=app),
                await http.delete("/v1/keys/admin", headers=app),
                await http.put("/v1/edits/x/reason", json={"reason": "x"}, headers=app),
            ):
                error(answer, 403, "permission_denied")

    run(work())


def test_uses_are_written_to_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "REFRESH_INTERVAL", 0.01)
    monkeypatch.setattr(authentication, "USES_INTERVAL", 0.0)
    admin = bearer(key_of(sqlite(tmp_path), "admin"))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            store = service.loop.store
            assert (await asyncio.to_thread(list_keys, store))[0].last_used is None
            before = time.time()
            await service.http.get("/v1/me", headers=admin)
            for _ in range(500):
                used = (await asyncio.to_thread(list_keys, store))[0].last_used
                if used is not None:
                    break
                await asyncio.sleep(0.01)
            assert used is not None and used >= before

    run(work())


def test_uses_are_written_at_the_end(tmp_path: Path) -> None:
    admin = bearer(key_of(sqlite(tmp_path), "admin"))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            await service.http.get("/v1/me", headers=admin)
            store = service.loop.store
        store.open(claim=False)
        assert list_keys(store)[0].last_used is not None
        store.close()

    run(work())


def test_acts_of_admins_are_noted(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            http, store = service.http, service.loop.store
            steps = [Transition("a@1", None, Stage.ARM, 1.0), Transition("b@2", None, Stage.ARM, 2.0)]
            with store.transaction() as connection:
                write_transitions(connection, steps, [])
            for _ in range(500):
                if "b@2" in service.loop.state.stages.subjects:
                    break
                await asyncio.sleep(0.01)
            await http.post("/v1/autopilot", json={"paused": True})
            await http.post("/v1/autopilot", json={"paused": False})
            moved = {"subject": "b@2", "stage": "rolled back", "reason": "SECRET words of a user"}
            assert (await http.post("/v1/stages", json=moved)).status_code == 200
            error(await http.delete("/v1/arms/a@1"), 409, "last_arm")  # refused, and so not noted
            noted = await entries(service)
            assert [(each["action"], each["subject"], each["detail"]) for each in noted] == [
                ("move", "b@2", {"stage": "rolled back"}),
                ("resume", "autopilot", None),
                ("pause", "autopilot", None),
            ]
            assert "SECRET" not in json.dumps(noted)
            assert [each["action"] for each in await entries(service, action="pause")] == ["pause"]
            assert await entries(service, since=time.time() + 60) == []
            assert await entries(service, by="boss") == []

    run(work())


def test_the_audit_is_paged(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            for i in range(5):
                await service.http.post("/v1/autopilot", json={"paused": bool(i % 2)})
            seen: list[str] = []
            before: str | None = None
            for _ in range(3):
                query = {"limit": 2, **({"before": before} if before else {})}
                page = (await service.http.get("/v1/audit", params=query)).json()
                seen += [each["id"] for each in page["data"]]
                before = page["next"]
            assert before is None and len(set(seen)) == 5
            error(await service.http.get("/v1/audit", params={"before": "x"}), 400, "invalid_request")

    run(work())


def test_the_command_line_is_noted_too(url: str, tmp_path: Path) -> None:
    from editloop.store.database import Store

    store = Store(url)
    store.open(claim=False)
    create_key(store, "boss", "admin")
    revoke_key(store, "boss")
    keys = store.read(reads.all_keys)
    assert keys[0].last_used is None
    store.close()

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            answer: httpx.Response = await service.http.get("/v1/audit")
            error(answer, 401, "invalid_api_key")  # revoking the last key does not open the server
            from editloop.store.audit import AuditFilter, audit_page

            rows = await service.loop.read(lambda c: audit_page(c, AuditFilter(), 10))
            assert [(row.action, row.by) for row in rows] == [
                ("revoke key", "command line"),
                ("create key", "command line"),
            ]

    run(work())
