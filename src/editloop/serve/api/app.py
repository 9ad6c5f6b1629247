"""The server: the routes, the gate before them, and what starts and stops with them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from editloop import __version__
from editloop.online import Arms, Event
from editloop.serve.api import arms, chat, edits, overview
from editloop.serve.api.hosts import Hosts
from editloop.serve.api.metrics import Metrics
from editloop.serve.api.middleware import Gate, Keys, Limits
from editloop.serve.api.state import Room, room_of
from editloop.serve.backends.base import Backend
from editloop.serve.dashboard import pages
from editloop.serve.loop.completions import Desk
from editloop.serve.loop.feedback import Live
from editloop.serve.loop.redaction import Redact
from editloop.serve.problem import Problem

__all__ = ["create_app"]


def create_app(
    live: Live,
    backend: Backend,
    *,
    runs: Sequence[str | Path] = (),
    limits: Limits | None = None,
    redact: Redact = str,
    hosts: Sequence[str] = (),
) -> FastAPI:
    """The server as an ASGI application.

    Args:
        live: Decides and learns.
        backend: Writes responses.
        runs: Run folders whose policies are the first arms, if the store has none yet.
        limits: Of requests.
        redact: What is done to each text before it is kept; what it raises refuses the request.
        hosts: Names of the server beside its address, as of `Hosts`.

    Raises:
        ConfigError: One of `hosts` is none.
    """
    known_hosts = Hosts(hosts)
    limits = limits or Limits()
    keys = Keys(live.store, live.folder / "keys.json")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await live.start()
        metrics = Metrics(live)
        desk = Desk(live, backend, redact=redact, failed=metrics.failed, seconds=limits.answer_seconds)
        room = app.state.room = Room(live, desk, backend, limits, metrics)
        keys.start()
        try:
            await backend.start()
            await _take_up(room, runs)
            yield
        finally:
            await keys.stop()
            await backend.stop()
            await live.stop()

    app = FastAPI(
        title="EditLoop",
        version=__version__,
        summary="Policies that learn from edits, behind an OpenAI-compatible endpoint.",
        lifespan=lifespan,
        docs_url=None,  # they load scripts from elsewhere; the dashboard has a page of its own
        redoc_url=None,
        redirect_slashes=False,  # such a redirect would lead to whatever Host was named
    )
    for part in (chat.router, edits.router, arms.router, overview.router, pages.router):
        app.include_router(part)
    _health(app)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unforeseen)
    app.add_middleware(Gate, keys=keys, limits=limits, hosts=known_hosts)
    return app


async def _take_up(room: Room, runs: Sequence[str | Path]) -> None:
    """Make the arms ready that the store knows, or the first runs'; and later those of other replicas."""
    if room.live.bandit.arms:
        await arms.follow(room)
    else:
        for run in runs:
            await arms.promote(room, str(run), None, force=True)
    tasks: set[asyncio.Task[None]] = set()

    def hear(event: Event) -> None:
        if isinstance(event, Arms):
            task = asyncio.create_task(arms.follow(room))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    room.live.heard.append(hear)


def _health(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz(request: Request) -> Response:
        """Whether requests can be answered: 503 if there is no policy, or nothing to write to or to ask."""
        live, backend = room_of(request).live, room_of(request).backend
        down = live.down and live.down.partition(":")[0]  # not the database's address to everybody
        reason = down or (backend.down if live.bandit.arms else "no policy is served yet")
        body = {"status": "ok"} if reason is None else {"status": "not ready", "reason": reason}
        return JSONResponse(body, 200 if reason is None else 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Figures in Prometheus' format."""
        return Response(room_of(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return JSONResponse(error.body(), error.status, error.headers())


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or None
    what = f"{where}: {first['msg']}" if where else str(first["msg"])
    return JSONResponse(Problem(400, what, code="invalid_request", param=where).body(), 400)


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    problem = Problem(error.status_code, str(error.detail), code=code)
    return JSONResponse(problem.body(), error.status_code, error.headers)


async def _unforeseen(_: Request, error: Exception) -> Response:
    return JSONResponse(Problem(500, "an error of the server's own", code="internal_error").body(), 500)
