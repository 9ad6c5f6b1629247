"""A running server for a test: over ASGI, in the test's own event loop, with a backend that it controls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
from fastapi import FastAPI

from editloop.online import BanditConfig
from editloop.serve.api.app import create_app
from editloop.serve.backends.base import Backend, Chunk, Completion, ServedPolicy
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.store.database import Store
from editloop.store.keys import Role, create_key


class Parrot:
    """A backend that answers with the arm's name; some arms can be made to fail."""

    down: str | None = None
    answer_seconds: float | None = None

    def __init__(self) -> None:
        self.fails: dict[str, Exception] = {}
        self.says: Callable[[str, Mapping[str, Any]], str] = lambda arm, request: f"Hello from {arm}"
        self.prepared: list[str] = []
        self.retired: list[str] = []
        self.asked: list[tuple[str, Mapping[str, Any]]] = []
        self.waits: asyncio.Event | None = None

    async def start(self) -> None:
        pass

    async def stop(self) -> None:
        pass

    async def prepare(self, policy: ServedPolicy) -> None:
        self.prepared.append(policy.arm)

    async def retire(self, arm: str) -> None:
        self.retired.append(arm)

    def check(self, request: Mapping[str, Any]) -> None:
        pass

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        self.asked.append((arm, request))
        if self.waits:
            await self.waits.wait()
        if arm in self.fails:
            raise self.fails[arm]
        text = self.says(arm, request)
        return Completion(text, "stop", {"role": "assistant", "content": text})

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        self.asked.append((arm, request))
        if arm in self.fails and "late" not in str(self.fails[arm]):
            raise self.fails[arm]
        yield Chunk({"role": "assistant", "content": ""})
        for word in self.says(arm, request).split(" "):
            yield Chunk({"content": word + " "})
        if arm in self.fails:
            raise self.fails[arm]
        yield Chunk({}, "stop")


class Service:
    """A running server with a client."""

    def __init__(self, app: FastAPI, loop: FeedbackLoop, backend: Parrot, http: httpx.AsyncClient) -> None:
        self.app, self.loop, self.backend, self.http = app, loop, backend, http

    async def ask(self, text: str = "Write.", **more: Any) -> httpx.Response:
        body = {"model": "editloop", "messages": [{"role": "user", "content": text}], **more}
        return await self.http.post("/v1/chat/completions", json=body)

    async def edit(self, response_id: str, edit: str | None = None, **more: Any) -> httpx.Response:
        what = {"accepted": True} if edit is None else {"edit": edit}
        return await self.http.post("/v1/edits", json={"response_id": response_id, **what, **more})


@asynccontextmanager
async def serving(
    url: str,
    folder: Path,
    arms: tuple[str, ...] = ("a@1", "b@2"),
    backend: Backend | None = None,
    app_options: Mapping[str, Any] | None = None,
    **options: Any,
) -> AsyncIterator[Service]:
    # Not the default, which draws: the first arm answers first, whatever the response's identity is.
    options.setdefault("config", BanditConfig(algorithm="ucb"))
    loop = FeedbackLoop(Store(url), folder, **options)
    backend = backend or Parrot()
    app = create_app(loop, backend, **(app_options or {}))
    async with app.router.lifespan_context(app):
        if arms and not loop.bandit.arms:
            await loop.set_arms(StartEpoch(lambda _: arms, (), time.time()))
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            yield Service(app, loop, backend, http)  # type: ignore[arg-type]


def key_of(url: str, role: Role = "app") -> str:
    """A key that is made before the server starts."""
    store = Store(url)
    store.open(claim=False)
    try:
        return create_key(store, role, role)
    finally:
        store.close()


def run(work: Coroutine[Any, Any, None]) -> None:
    """Run a test's coroutine."""
    asyncio.run(work)


def sqlite(folder: Path) -> str:
    return f"sqlite:///{folder}/edits.db"


def error(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The body of an error, as OpenAI's clients expect it."""
    assert answer.status_code == status, answer.text
    found: dict[str, Any] = answer.json()["error"]
    assert set(found) == {"message", "type", "param", "code"} and found["message"]
    assert found["code"] == code
    return found
