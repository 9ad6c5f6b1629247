"""The page of users: figures by hand, on both databases; and an entry about each user who is forgotten."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from serving import Service, error, run, serving
from sqlalchemy import insert

from editloop.store import users as users_module
from editloop.store import writes
from editloop.store.schema import drafts
from editloop.store.users import UserFilter, user_page


async def put(service: Service, *rounds: tuple[float, str | None, list[float | None]]) -> None:
    """Write rounds: time, user, and the costs of the revisions of the edit."""

    def write() -> None:
        store = service.loop.store
        last = store.last()
        with store.writer.begin() as connection:
            for i, (time, user, costs) in enumerate(rounds):
                name = f"r{last}-{i}"
                row = {"response_id": name, "time": time, "user": user, "response": "x", "finish": "stop"}
                connection.execute(insert(drafts).values(row))
                for revision, cost in enumerate(costs, start=1):
                    event = {"time": time, "kind": "edited", "response_id": name, "arm": "a@1", "scope": ""}
                    writes.insert_event(connection, {**event, "revision": revision, "cost": cost})

    await asyncio.to_thread(write)


async def found(service: Service, **parameters: Any) -> dict[str, Any]:
    answer = await service.http.get("/v1/users", params=parameters)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def test_figures_by_hand(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await put(
                service,
                (100.0, "ada", [0.9, 0.2]),  # the last revision counts
                (110.0, "ada", [0.4]),
                (120.0, "bob", [1.0]),
                (130.0, "Ann_1", []),
                (140.0, None, [0.5]),  # nobody's
            )
            page = await found(service)
            assert (page["total"], page["since"]) == (3, None)
            assert page["data"] == [
                {"user": "Ann_1", "rounds": 1, "first": 130.0, "last": 130.0, "edits": 0, "cost": None}
                | {"scope": "shared", "arms": []},
                {"user": "bob", "rounds": 1, "first": 120.0, "last": 120.0, "edits": 1, "cost": 1.0}
                | {"scope": "shared", "arms": []},
                {"user": "ada", "rounds": 2, "first": 100.0, "last": 110.0, "edits": 2}
                | {"cost": pytest.approx(0.3), "scope": "shared", "arms": []},
            ]

            async def names(**parameters: Any) -> list[str]:
                return [each["user"] for each in (await found(service, **parameters))["data"]]

            assert await names(sort="cost") == ["bob", "ada", "Ann_1"]
            assert await names(sort="cost", order="asc") == ["ada", "bob", "Ann_1"]
            assert (await names(sort="rounds"))[0] == "ada"
            assert sorted(await names(sort="name", order="asc")) == ["Ann_1", "ada", "bob"]
            assert await names(q="AN") == ["Ann_1"] and await names(q="n_") == ["Ann_1"]
            assert await names(q="%") == []
            assert await names(since=105, until=125) == ["bob", "ada"]
            assert (await found(service, since=105, until=125))["data"][1]["cost"] == 0.4
            assert await names(limit=1, offset=1) == ["bob"]
            assert await found(service, offset=7) == {"object": "list", "total": 3, "since": None, "data": []}

    run(work())


def test_of_too_many_rounds_the_newest_are_counted(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(users_module, "MAX_ROUNDS", 3)

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await put(service, *((100.0 + i, f"u{i % 2}", [0.5]) for i in range(3)))
            assert (await found(service))["since"] is None
            await put(service, *((200.0 + i, "u0", [0.1]) for i in range(3)))
            page = await found(service)
            assert (page["since"], page["total"]) == (102.0, 1)
            assert page["data"][0]["rounds"] == 4

    run(work())


def test_bad_parameters(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path) as service:
            for bad in ({"sort": "mood"}, {"limit": 0}, {"offset": -1}, {"since": "nan"}, {"order": "up"}):
                error(await service.http.get("/v1/users", params=bad), 400, "invalid_request")
            error(await service.http.get("/v1/users", params={"q": "\0"}), 400, "invalid_text")

    run(work())


def test_a_user_with_an_arm_of_their_own(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path) as service:
            await service.ask(user="ada")
            state = service.loop.bandit.state
            state.owners["mine@1"] = service.loop.scopes.key("ada")
            (ada,) = (await found(service))["data"]
            assert (ada["scope"], ada["arms"]) == ("own", ["mine@1"])
            del state.owners["mine@1"]

    run(work())


def test_forgetting_is_noted_without_the_name(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            user = "<b>Ada</b> & /../%20"
            answer = await service.ask("My secret", user=user)
            await service.edit(answer.json()["id"], "Secret edit", reason="secret reason")
            gone = await service.http.delete("/v1/users/" + "%3Cb%3EAda%3C%2Fb%3E%20%26%20%2F..%2F%2520")
            assert gone.json()["user"] == user and gone.json()["removed"] == 1
            assert (await found(service))["total"] == 0
            entries = (await service.http.get("/v1/audit")).json()["data"]
            assert [(each["action"], each["by"]) for each in entries] == [("forget", "")]
            assert entries[0]["subject"] == service.loop.scopes.key(user)
            text = json.dumps(entries).lower()
            assert "ada" not in text and "secret" not in text

    run(work())


def test_ten_thousand_users_are_paged(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(f"sqlite:///{tmp_path}/edits.db", tmp_path) as service:
            await put(service, *((float(i), f"user{i:05d}", [0.5]) for i in range(10_000)))
            store = service.loop.store
            page = store.read(lambda c: user_page(c, UserFilter(), limit=25, offset=9_990))
            assert (page.total, len(page.rows)) == (10_000, 10)
            assert [row.user for row in page.rows][-1] == "user00000"

    run(work())
