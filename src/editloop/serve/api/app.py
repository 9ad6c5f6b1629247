"""The server as an ASGI application: its routes, the middleware in front of them, its start and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from editloop import __version__
from editloop.autopilot.stages import Transition
from editloop.online import Arms, Event
from editloop.serve.api import arms, audit, chat, edits, in_context, keys, overview, stages, usage, users
from editloop.serve.api.authentication import KeyCache
from editloop.serve.api.hosts import AllowedHosts
from editloop.serve.api.limits import Limits
from editloop.serve.api.metrics import Metrics
from editloop.serve.api.middleware import AdmissionMiddleware
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.backends.base import Backend
from editloop.serve.dashboard import pages
from editloop.serve.in_context.backend import InContextBackend
from editloop.serve.in_context.base import InContextOptions
from editloop.serve.loop.admin_commands import NoteKeyUses
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.loop.redaction import Redact
from editloop.serve.problem import Problem

__all__ = ["create_app"]


def create_app(
    loop: FeedbackLoop,
    backend: Backend,
    *,
    runs: Sequence[str | Path] = (),
    limits: Limits | None = None,
    redact: Redact = str,
    hosts: Sequence[str] = (),
    past_edits: InContextOptions | None = None,
) -> FastAPI:
    """Make the server as an ASGI application.

    Args:
        loop: Decides, records and learns.
        backend: Generates responses.
        runs: Run folders whose policies are the first arms, if the store has none yet.
        limits: The limits on requests.
        redact: A function that is applied to each text before it is kept. If it raises, the request fails.
        hosts: Names of the server beside its address, as in `AllowedHosts`.
        past_edits: The in-context policies that are added to the arms, and how they find past edits.

    Raises:
        ConfigError: One of `hosts` is not a valid host name, or `past_edits` names what there is not.
    """
    allowed_hosts = AllowedHosts(hosts)
    limits, past_edits = limits or Limits(), past_edits or InContextOptions()
    served = InContextBackend(backend, loop, past_edits, redact=redact)
    key_cache = _key_cache(loop)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await loop.start()
        state = app.state.server = _make_state(loop, served, limits, redact, key_cache, past_edits.names)
        key_cache.start()
        try:
            await served.start()
            await _prepare_arms(state, runs)
            await in_context.add_arms(state, past_edits.names)
            yield
        finally:
            # The loop ends last, whatever happens: it writes how the backend's last responses ended, and
            # closes the store that the keys are read from.
            try:
                await asyncio.gather(state.completions.shadows.stop(), key_cache.stop())
                await served.stop()
            finally:
                await loop.stop()

    app = FastAPI(
        title="EditLoop",
        version=__version__,
        summary="Policies that learn from edits, behind an OpenAI-compatible endpoint.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other sites; the dashboard has one of its own
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to whatever Host the request named
    )
    _add_routes(app)
    app.add_middleware(AdmissionMiddleware, keys=key_cache, limits=limits, hosts=allowed_hosts)
    return app


def _key_cache(loop: FeedbackLoop) -> KeyCache:
    async def note_uses(uses: Mapping[str, float]) -> None:
        await loop.write(NoteKeyUses(uses), hurry=False)

    return KeyCache(loop.store, loop.folder / "keys.json", note_uses)


def _make_state(
    loop: FeedbackLoop,
    backend: InContextBackend,
    limits: Limits,
    redact: Redact,
    key_cache: KeyCache,
    in_context: Sequence[str],
) -> ServerState:
    """Return the parts of the server, once the loop has started."""
    metrics = Metrics(loop, backend.tallies)
    completions = CompletionService(
        loop, backend, redact=redact, on_failure=metrics.count_failure, seconds=limits.answer_seconds
    )
    return ServerState(loop, completions, backend, limits, metrics, key_cache, in_context=in_context)


async def _prepare_arms(state: ServerState, runs: Sequence[str | Path]) -> None:
    """Prepare the arms that the store knows, or else those of `runs`; follow every later change of them."""
    if state.loop.bandit.arms:
        await arms.follow(state)
    else:
        for run in runs:
            await arms.promote(state, str(run), None, force=True)
    tasks: set[asyncio.Task[None]] = set()

    # Also for changes by other replicas and by the autopilot, which no route here has seen.
    def on_event(event: Event | Transition) -> None:
        if isinstance(event, (Arms, Transition)):
            task = asyncio.create_task(arms.follow(state))
            tasks.add(task)  # the event loop keeps only a weak reference, and the task could be collected
            task.add_done_callback(tasks.discard)

    state.loop.subscribers.append(on_event)


def _add_routes(app: FastAPI) -> None:
    for part in (chat, edits, users, arms, stages, overview, usage, keys, audit, pages):
        app.include_router(part.router)
    _add_health_routes(app)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(RequestValidationError, _answer_invalid)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_unexpected)


def _add_health_routes(app: FastAPI) -> None:
    @app.get("/healthz", tags=["health"])
    async def healthz() -> dict[str, str]:
        """The process is alive."""
        return {"status": "ok"}

    @app.get("/readyz", tags=["health"])
    async def readyz(request: Request) -> Response:
        """Whether requests can be answered: 503 if there is no policy, or the store or backend is down."""
        loop, backend = get_state(request).loop, get_state(request).backend
        down = loop.down and loop.down.partition(":")[0]  # the rest may hold the database's address
        reason = down or (backend.down if loop.bandit.arms else "no policy is served yet")
        body = {"status": "ok"} if reason is None else {"status": "not ready", "reason": reason}
        return JSONResponse(body, 200 if reason is None else 503)

    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics(request: Request) -> Response:
        """Figures in Prometheus' format."""
        return Response(get_state(request).metrics.text(), media_type="text/plain; version=0.0.4")


async def _answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return JSONResponse(error.body(), error.status, error.headers())


async def _answer_invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or None
    what = f"{where}: {first['msg']}" if where else str(first["msg"])
    return JSONResponse(Problem(400, what, code="invalid_request", param=where).body(), 400)


async def _answer_http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "invalid_request")
    problem = Problem(error.status_code, str(error.detail), code=code)
    return JSONResponse(problem.body(), error.status_code, error.headers)


async def _answer_unexpected(_: Request, error: Exception) -> Response:
    return JSONResponse(Problem(500, "an internal error of the server", code="internal_error").body(), 500)
