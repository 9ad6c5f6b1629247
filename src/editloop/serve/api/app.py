"""The server as an ASGI application: its routes, the middleware in front of them, its start and its end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from starlette.exceptions import HTTPException

from editloop import __version__
from editloop.autopilot.stages import Transition
from editloop.online import Arms, Event
from editloop.serve.api import (
    arms,
    audit,
    batch,
    chat,
    client_script,
    edits,
    in_context,
    keys,
    models,
    overview,
    stages,
    traces,
    usage,
    users,
)
from editloop.serve.api.authentication import KeyCache
from editloop.serve.api.edit_tokens import EditTokens
from editloop.serve.api.hosts import AllowedHosts, HostMiddleware
from editloop.serve.api.limits import Limits
from editloop.serve.api.metrics import Metrics
from editloop.serve.api.middleware import AdmissionMiddleware
from editloop.serve.api.origins import CrossOriginMiddleware, allowed_origins
from editloop.serve.api.responses import routes as responses
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.api.worker_metrics import WorkerMetrics
from editloop.serve.backends.base import Backend, UpstreamRejectedError
from editloop.serve.dashboard import pages
from editloop.serve.in_context.backend import InContextBackend
from editloop.serve.in_context.base import InContextOptions
from editloop.serve.loop.admin_commands import NoteKeyUses
from editloop.serve.loop.completions import CompletionService
from editloop.serve.loop.feedback import FeedbackLoop
from editloop.serve.loop.redaction import Redact
from editloop.serve.problem import Problem, internal_error
from editloop.serve.telemetry.spans import Spans

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
    origins: Sequence[str] = (),
    edit_tokens: float | None = None,
    spans: Spans | None = None,
    is_worker: bool = False,
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
        origins: The origins whose pages may ask, as in `allowed_origins`.
        edit_tokens: Seconds for which the edit token of a response is valid; None gives none.
        spans: Emits spans of completions and edits.
        is_worker: Whether it is one of several workers, whose state folders are beside each other.

    Raises:
        ConfigError: One of `hosts` or `origins` is not valid, or `past_edits` names what there is not.
    """
    names, pages_of = AllowedHosts(hosts), allowed_origins(origins)
    limits, past_edits = limits or Limits(), past_edits or InContextOptions()
    served = InContextBackend(backend, loop, past_edits, redact=redact)
    key_cache, tokens = _key_cache(loop), EditTokens(edit_tokens, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await loop.start()
        tokens.secret = loop.token_secret
        app.state.server = _make_state(
            loop, served, limits, key_cache, tokens, redact, past_edits.names, spans, is_worker
        )
        async with _running(app.state.server, runs):
            yield

    app = _empty_app(lifespan)
    _add_routes(app)
    _add_middleware(app, key_cache, limits, tokens, names, pages_of)
    return app


def _key_cache(loop: FeedbackLoop) -> KeyCache:
    async def note_uses(uses: Mapping[str, float]) -> None:
        await loop.write(NoteKeyUses(uses), hurry=False)

    return KeyCache(loop.store, loop.folder / "keys.json", note_uses)


@asynccontextmanager
async def _running(state: ServerState, runs: Sequence[str | Path]) -> AsyncIterator[None]:
    """Run the parts of the server within the block, once the loop has started.

    The loop ends after them, whatever happens: it writes how the backend's last responses ended, and closes
    the store that the keys are read from. The spans of what it has learned at last are sent behind it.
    """
    state.keys.start()
    try:
        await state.backend.start()
        await _prepare_arms(state, runs)
        async with state.workers.shared() if state.workers else nullcontext():
            yield
    finally:
        try:
            await asyncio.gather(state.completions.shadows.stop(), state.keys.stop())
            await state.backend.stop()
        finally:
            await state.loop.stop()
            if state.spans is not None:
                await state.spans.stop()


def _empty_app(lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> FastAPI:
    return FastAPI(
        title="EditLoop",
        version=__version__,
        summary="Policies that learn from edits, behind an OpenAI-compatible endpoint.",
        lifespan=lifespan,
        docs_url=None,  # these pages load scripts from other sites; the dashboard has one of its own
        redoc_url=None,
        redirect_slashes=False,  # a redirect would lead to whatever Host the request named
    )


def _make_state(
    loop: FeedbackLoop,
    backend: InContextBackend,
    limits: Limits,
    keys: KeyCache,
    tokens: EditTokens,
    redact: Redact,
    in_context: Sequence[str],
    spans: Spans | None,
    is_worker: bool,
) -> ServerState:
    """Return the parts of the server, once the loop has started."""
    metrics = Metrics(loop, backend.tallies, tokens.refusals)
    completions = CompletionService(
        loop, backend, redact=redact, on_failure=metrics.count_failure, seconds=limits.answer_seconds
    )
    workers = WorkerMetrics(metrics, loop.folder) if is_worker else None
    if spans is not None:
        loop.subscribers.append(spans.on_event)
    return ServerState(
        loop,
        completions,
        backend,
        limits,
        metrics,
        keys,
        tokens,
        spans,
        in_context=in_context,
        workers=workers,
    )


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
    await in_context.add_arms(state, state.in_context)


def _add_middleware(
    app: FastAPI,
    keys: KeyCache,
    limits: Limits,
    tokens: EditTokens,
    hosts: AllowedHosts,
    origins: Collection[str],
) -> None:
    """Add the middleware; the last one that is added is the first that a request meets."""
    app.add_middleware(AdmissionMiddleware, keys=keys, limits=limits, tokens=tokens, origins=origins)
    if origins:
        app.add_middleware(CrossOriginMiddleware, origins=origins)
    app.add_middleware(HostMiddleware, hosts=hosts)


def _add_routes(app: FastAPI) -> None:
    of_apps = (chat, responses, models, edits, batch, traces)
    of_admins = (users, arms, stages, overview, usage, keys, audit)
    for part in (*of_apps, *of_admins, pages, client_script):
        app.include_router(part.router)
    _add_health_routes(app)
    app.add_exception_handler(Problem, _answer_problem)
    app.add_exception_handler(UpstreamRejectedError, _answer_rejected)
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
        state = get_state(request)
        return Response((state.workers or state.metrics).text(), media_type="text/plain; version=0.0.4")


async def _answer_problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return JSONResponse(error.body(), error.status, error.headers())


async def _answer_rejected(_: Request, error: Exception) -> Response:
    """Pass on what the model's server wrote."""
    assert isinstance(error, UpstreamRejectedError)
    body = error.body if isinstance(error.body, dict) else {"error": {"message": str(error.body)}}
    wait = {"Retry-After": error.retry_after} if error.retry_after else None
    return JSONResponse(body, error.status, wait)


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
    return JSONResponse(internal_error().body(), 500)
