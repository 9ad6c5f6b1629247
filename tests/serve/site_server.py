"""A server on a real socket, in a thread with an event loop of its own: for browsers and other clients."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from serving import Parrot

from editloop.online import BanditConfig
from editloop.serve.api import arms as arms_module
from editloop.serve.api.app import create_app
from editloop.serve.api.limits import Limits
from editloop.serve.api.server import listen, server_settings
from editloop.serve.backends.base import ServedPolicy
from editloop.serve.loop.commands import StartEpoch
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.store.database import Store


class Site:
    """A server in a thread of its own."""

    def __init__(
        self,
        folder: Path,
        arms: tuple[str, ...] = ("a@1", "b@2"),
        port: int = 0,
        limits: Limits | None = None,
        **app_options: Any,
    ) -> None:
        self.backend = app_options.pop("backend", None) or Parrot()
        self.limits, self.app_options = limits, app_options
        config = BanditConfig(algorithm="ucb")  # the first arm answers first
        self.loop = FeedbackLoop(Store(f"sqlite:///{folder}/edits.db"), folder, config, scope="user")
        self.ready = threading.Event()
        self.socket = listen("127.0.0.1", port)
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(arms)), daemon=True)
        self.thread.start()
        assert self.ready.wait(30), "the server did not start"
        self.http = httpx.Client(base_url=self.url, timeout=10)

    async def _serve(self, arms: tuple[str, ...]) -> None:
        app = self.app = create_app(self.loop, self.backend, limits=self.limits, **self.app_options)
        self.event_loop = asyncio.get_running_loop()
        self.server = uvicorn.Server(server_settings(app, self.limits))
        async with app.router.lifespan_context(app):
            if arms:
                await self.loop.set_arms(StartEpoch(lambda _: arms, (), time.time()))
            serving = asyncio.create_task(self.server.serve([self.socket]))
            while not self.server.started:
                await asyncio.sleep(0.01)
            self.ready.set()
            await serving

    def do(self, work: Coroutine[Any, Any, Any]) -> Any:
        """The result of a coroutine that runs in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.event_loop).result(10)

    def ask(self, text: str = "Write.", edit: str | None = None, **more: Any) -> str:
        body = {"model": "editloop", "messages": [{"role": "user", "content": text}], **more}
        response_id = str(self.http.post("/v1/chat/completions", json=body).raise_for_status().json()["id"])
        if edit is not None:
            self.edit(response_id, edit)
        return response_id

    def edit(self, response_id: str, edit: str) -> None:
        self.http.post("/v1/edits", json={"response_id": response_id, "edit": edit}).raise_for_status()

    def close(self) -> None:
        self.http.close()
        self.server.should_exit = True
        self.thread.join(20)
        self.socket.close()


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[tuple[str, Parrot]]:
    """The address of a server, and its backend."""
    site = Site(folder, port=port)
    try:
        yield site.url, site.backend
    finally:
        site.close()


def stub_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace the reading of run folders: every run has a policy better than the base, and one worse."""

    def find(run: str, names: list[str] | None = None) -> list[ServedPolicy]:
        return [ServedPolicy(f"{name}@{name * 2}", name, Path(run)) for name in names or ["sft", "dpo"]]

    def measured(run: Path, name: str) -> dict[str, Any]:
        base = {"mean": 0.5, "se": 0.01, "n": 100}
        cost = {"mean": 0.25 if name == "sft" else 0.75, "se": 0.02, "n": 100}
        return {"cost": cost, "base": base, "alarms": ["likelihood falls"] if name == "dpo" else []}

    monkeypatch.setattr(arms_module, "find_policies", find)
    monkeypatch.setattr(arms_module, "validation", measured)
    monkeypatch.setattr(arms_module, "_read_until", lambda run, loop: None)
