"""The middleware: whom it admits, how often and how much; each refusal has its status and code."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import error, key_of, run, serving, sqlite
from starlette.applications import Starlette
from starlette.routing import Match, Mount, Route

from editloop.serve.api.limits import Limits
from editloop.serve.api.middleware import route_path
from editloop.store.keys import create_key, revoke_key


def test_limits_are_held(tmp_path: Path) -> None:
    limits = Limits(body=100_000, text=1000, rate=0.5, burst=5, concurrency=2)

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, app_options={"limits": limits}) as service:
            error(await service.ask("x" * 200_000), 413, "request_too_large")

            async def drip() -> Any:
                for _ in range(200):
                    yield b" " * 1000

            answer = await service.http.post("/v1/chat/completions", content=drip())
            error(answer, 413, "request_too_large")
            found = error(await service.ask("x" * 2000), 413, "text_too_long")
            assert found["param"] == "messages.0.content"
            assert [(await service.ask()).status_code for _ in range(2)] == [200, 200]
            answer = await service.ask()
            error(answer, 429, "rate_limit")
            assert int(answer.headers["Retry-After"]) >= 1

    run(work())


def test_too_many_at_once_are_told_to_come_again(tmp_path: Path) -> None:
    async def work() -> None:
        options = {"limits": Limits(concurrency=2)}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            service.backend.waits = asyncio.Event()
            asked = [asyncio.create_task(service.ask()) for _ in range(2)]
            while len(service.backend.asked) < 2:
                await asyncio.sleep(0.01)
            answer = await service.ask()
            error(answer, 429, "concurrency_limit")
            assert answer.headers["Retry-After"] == "1"
            assert (await service.http.get("/healthz")).status_code == 200
            service.backend.waits.set()
            assert all(each.status_code == 200 for each in await asyncio.gather(*asked))
            assert (await service.ask()).status_code == 200

    run(work())


async def read_again() -> None:
    """Wait until the keys have been read again."""
    await asyncio.sleep(0.3)


def test_keys_open_what_they_may(url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            store, http = service.loop.store, service.http
            app = await asyncio.to_thread(create_key, store, "app")
            admin = await asyncio.to_thread(create_key, store, "boss", "admin")
            await read_again()
            answer = await service.ask()
            error(answer, 401, "invalid_api_key")
            assert answer.headers["WWW-Authenticate"] == "Bearer"
            http.headers["Authorization"] = "Bearer wrong"
            error(await service.ask(), 401, "invalid_api_key")
            http.headers["Authorization"] = f"Bearer {app}"
            response_id = (await service.ask()).json()["id"]
            assert (await service.edit(response_id)).status_code == 200
            assert (await http.get("/v1/models")).status_code == 200
            assert (await http.get("/v1/models/a@1")).status_code == 200
            body = {"model": "editloop", "input": "Write."}
            made = (await http.post("/v1/responses", json=body)).json()["id"]
            assert (await http.get(f"/v1/responses/{made}")).status_code == 200
            error(await http.delete(f"/v1/responses/{made}"), 403, "permission_denied")
            for method, path in (("GET", "/v1/edits"), ("DELETE", "/v1/users/ada"), ("GET", "/metrics")):
                error(await http.request(method, path), 403, "permission_denied")
            http.headers["Authorization"] = f"Bearer {admin}"
            assert (await http.get("/v1/edits")).status_code == 200
            http.headers["Authorization"] = f"Bearer {app}"
            await asyncio.to_thread(revoke_key, store, "app")
            await read_again()
            error(await service.ask(), 401, "invalid_api_key")
            del http.headers["Authorization"]
            assert (await http.get("/healthz")).status_code == 200
            assert (await http.get("/readyz")).status_code == 200
            await asyncio.to_thread(revoke_key, store, "boss")
            await read_again()
            error(await service.ask(), 401, "invalid_api_key")  # not open again

    run(work())


def test_without_keys_other_sites_and_machines_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            answer = await service.http.get("/v1/models", headers={"Origin": "http://evil.example"})
            error(answer, 403, "not_local")
            own = {"Origin": "http://localhost"}
            assert (await service.http.get("/v1/models", headers=own)).status_code == 200

    run(work())


def test_the_middleware_holds_under_a_prefix(tmp_path: Path) -> None:
    key_of(sqlite(tmp_path))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            outer = Starlette(routes=[Mount("/editloop", app=service.app)])
            async with httpx.AsyncClient(
                transport=httpx.ASGITransport(outer), base_url="http://localhost"
            ) as http:
                for path in ("/v1/edits", "/v1/models", "/metrics", "/v1/overview"):
                    error(await http.get(f"/editloop{path}"), 401, "invalid_api_key")
                assert (await http.get("/editloop/healthz")).status_code == 200
                assert (await http.get("/editloop/dashboard/style.css")).status_code == 200

    run(work())


def test_machines_that_only_say_that_they_are_local_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            transport = httpx.ASGITransport(service.app, client=("203.0.113.9", 123))
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
                error(await http.get("/v1/models"), 403, "not_local")

    run(work())


@pytest.mark.parametrize(
    ("prefix", "path"),
    [
        ("", "/a/b"),
        ("/sub", "/sub/a/b"),
        ("/sub", "/sub"),
        ("/sub", "/sub/"),
        ("/sub", "/subway"),
        ("/x", "/a"),
    ],
)
def test_the_path_that_is_checked_is_the_one_that_is_routed(prefix: str, path: str) -> None:
    """What the middleware relies on: Starlette's routes match `path` without `root_path`, as ASGI says."""
    scope = {"type": "http", "method": "GET", "path": path, "root_path": prefix}
    found, _ = Route(route_path(scope) or "/", lambda _: None).matches(scope)
    assert found is (Match.FULL if route_path(scope) else Match.NONE)
    assert Route("/elsewhere", lambda _: None).matches(scope)[0] is Match.NONE
