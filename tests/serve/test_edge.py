"""HTTP on real sockets: whoever sends half a request takes nobody's place, and is disconnected at last."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from serving import error, run, serving, sqlite
from site_server import Site

from editloop.serve.api.limits import Limits
from editloop.serve.api.quotas import PendingBodies, Quota
from editloop.serve.problem import Problem
from editloop.store.keys import create_key

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"


@contextmanager
def site_at(folder: Path, **options: Any) -> Iterator[Site]:
    site = Site(folder, **options)
    try:
        yield site
    finally:
        site.close()


def connect(site: Site, sent: bytes = b"") -> socket.socket:
    made = socket.create_connection(site.socket.getsockname())
    made.settimeout(30)
    made.sendall(sent)
    return made


def everything(connection: socket.socket) -> bytes:
    """All bytes that arrive until the other side closes."""
    parts = []
    while part := connection.recv(65_536):
        parts.append(part)
    return b"".join(parts)


def test_heads_without_bodies_take_nobodys_place(tmp_path: Path) -> None:
    limits = Limits(concurrency=512, body_seconds=4)
    with site_at(tmp_path, limits=limits) as site, ExitStack() as opened:
        idle = [opened.enter_context(connect(site, HEAD)) for _ in range(512)]
        time.sleep(0.5)  # they are all read
        answer = site.http.post(
            "/v1/chat/completions",
            json={"model": "editloop", "messages": [{"role": "user", "content": "Hi"}]},
        )
        assert answer.status_code == 200, answer.text
        shown = [everything(each) for each in idle]
        assert {each.split(b"\r\n")[0] for each in shown} == {b"HTTP/1.1 408 Request Timeout"}
        assert all(b"connection: close" in each.lower() and b'"body_timeout"' in each for each in shown)
        assert site.http.get("/v1/models").status_code == 200


def test_who_waits_longest_for_a_body_makes_room(tmp_path: Path) -> None:
    with site_at(tmp_path, limits=Limits(waiting=3, body_seconds=60)) as site, ExitStack() as opened:
        idle = []
        for _ in range(5):
            idle.append(opened.enter_context(connect(site, HEAD)))
            time.sleep(0.1)
        assert site.http.get("/v1/models").status_code == 200
        for each in idle[:3]:
            assert everything(each).startswith(b"HTTP/1.1 408 ")
        for each in idle[3:]:
            each.sendall(b" " * 1000)
            assert each.recv(100).startswith(b"HTTP/1.1 400 ")  # its body came in time


def test_the_key_with_the_most_makes_room() -> None:
    async def work() -> None:
        waiting, ended = PendingBodies(3, 60.0), []

        async def wait(key: str, number: int) -> None:
            try:
                async with waiting.one(key):
                    await asyncio.sleep(60)
            except TimeoutError:
                ended.append((key, number))

        tasks = []
        for number, key in enumerate(["modest", "greedy", "greedy", "greedy", "greedy", "other"]):
            tasks.append(asyncio.create_task(wait(key, number)))
            await asyncio.sleep(0.01)
        assert ended == [("greedy", 1), ("greedy", 2), ("greedy", 3)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert waiting._by_key == {}

    run(work())


def test_bytes_in_memory_are_not_endless(tmp_path: Path) -> None:
    with site_at(tmp_path, limits=Limits(held=1500, body_seconds=30)) as site, ExitStack() as opened:
        opened.enter_context(connect(site, HEAD + b"x" * 999))
        time.sleep(0.3)
        error(site.http.post("/v1/edits", content=b"x" * 600), 429, "memory_limit")
        assert site.http.get("/v1/models").status_code == 200


def test_the_bytes_of_a_request_that_has_ended_are_free_again(tmp_path: Path) -> None:
    async def work() -> None:
        options = {"limits": Limits(held=1000)}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            for _ in range(5):
                assert (await service.ask("x" * 500)).status_code == 200
            for _ in range(5):
                error(await service.ask("x" * 1000), 429, "memory_limit")
            assert (await service.ask("x" * 500)).status_code == 200

    run(work())


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: loc"])
def test_a_connection_that_asks_for_nothing_is_closed(tmp_path: Path, sent: bytes) -> None:
    with site_at(tmp_path, limits=Limits(head_seconds=0.5)) as site:
        with connect(site, sent) as idle:
            shown = everything(idle)
        assert shown.startswith(b"HTTP/1.1 408 ") if sent else shown == b""


def test_a_head_that_comes_byte_by_byte_is_not_waited_for(tmp_path: Path) -> None:
    limits = Limits(head_seconds=0.5)
    with site_at(tmp_path, limits=limits) as site, connect(site) as slow, pytest.raises(OSError):
        for byte in HEAD * 100:  # the connection is closed after about ten bytes
            slow.sendall(bytes([byte]))
            time.sleep(0.05)


def test_a_head_is_not_endless(tmp_path: Path) -> None:
    begun = b"GET /healthz HTTP/1.1\r\nX: "
    with site_at(tmp_path) as site, connect(site, begun) as long, pytest.raises(OSError):
        for _ in range(1000):
            long.sendall(b"x" * 10_000)
            time.sleep(0.002)


def test_an_answer_takes_longer_than_a_head_may(tmp_path: Path) -> None:
    """The time limits of heads and bodies do not apply to answers."""
    with site_at(tmp_path, limits=Limits(head_seconds=0.3, body_seconds=0.3)) as site:
        site.backend.waits = asyncio.Event()
        site.event_loop.call_soon_threadsafe(site.event_loop.call_later, 1.2, site.backend.waits.set)
        assert site.ask() != ""
        assert site.http.get("/v1/models").status_code == 200  # on the same connection


def test_a_key_takes_no_more_than_its_share(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("editloop.serve.api.authentication.REFRESH_INTERVAL", 0.02)

    async def work() -> None:
        options = {"limits": Limits(concurrency=4, share=0.75)}
        async with serving(sqlite(tmp_path), tmp_path, app_options=options) as service:
            greedy, modest = [
                {"Authorization": f"Bearer {await asyncio.to_thread(create_key, service.loop.store, name)}"}
                for name in ("greedy", "modest")
            ]
            await asyncio.sleep(0.3)
            service.backend.waits = asyncio.Event()
            body = {"model": "editloop", "messages": [{"role": "user", "content": "Hi"}]}

            def ask(headers: dict[str, str]) -> Any:
                return service.http.post("/v1/chat/completions", json=body, headers=headers)

            asked = [asyncio.create_task(ask(greedy)) for _ in range(3)]
            while len(service.backend.asked) < 3:
                await asyncio.sleep(0.01)
            refused = await ask(greedy)
            assert "this key" in error(refused, 429, "concurrency_limit")["message"]
            assert refused.headers["Retry-After"] == "1"
            asked.append(asyncio.create_task(ask(modest)))
            while len(service.backend.asked) < 4:
                await asyncio.sleep(0.01)
            assert "this key" not in error(await ask(modest), 429, "concurrency_limit")["message"]
            service.backend.waits.set()
            assert {each.status_code for each in await asyncio.gather(*asked)} == {200}

    run(work())


def test_an_upload_that_breaks_off_leaves_no_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with site_at(tmp_path) as site:
        for path in (b"/v1/chat/completions", b"/v1/edits", b"/v1/arms"):
            connect(site, HEAD.replace(b"/v1/chat/completions", path) + b'{"model": ').close()
        time.sleep(0.5)
        assert site.http.get("/v1/models").status_code == 200
    assert "Traceback" not in capfd.readouterr().err  # uvicorn's log goes there


@pytest.mark.parametrize(("seconds", "shown"), [(0.2, "1"), (1.0, "1"), (2.0, "2"), (2.4, "3")])
def test_nobody_is_asked_to_come_back_too_early(seconds: float, shown: str) -> None:
    problem = Problem(429, "too many requests", code="rate_limit", retry_after=seconds)
    assert problem.headers() == {"Retry-After": shown}


def test_places_are_left_to_others() -> None:
    quota = Quota(3, 0.5, what="things", code="things_limit")
    quota.acquire("a")
    with pytest.raises(Problem, match="too many things by this key"):
        quota.acquire("a")
    quota.acquire("b")
    quota.acquire(None)
    with pytest.raises(Problem, match=r"^too many things$") as refused:
        quota.acquire("c")
    assert (refused.value.status, refused.value.retry_after, quota.used) == (429, 1, 3)
    quota.release("a")
    quota.acquire("c")
