"""`editloop serve`: the live loop; `promote` and `retire` change its arms; `keys` says who may ask."""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.console import console, show_table
from editloop.cli.flags import Config, CostName, Device, Dtype
from editloop.errors import ConfigError, ServeError

if TYPE_CHECKING:
    from editloop.serve import Backend, Store

StoreUrl = Annotated[
    str, typer.Option("--store", help="sqlite:///edits.db, a file's path, or postgresql://user@host/name")
]
Server = Annotated[str, typer.Option(help="Of the server.")]
KeyFlag = Annotated[str | None, typer.Option(help="An admin key [$EDITLOOP_KEY].")]

DAY = 86_400.0


def serve(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders: the first arms of a new store."),
    ] = None,
    store: StoreUrl = "edits.db",
    host: Annotated[str, typer.Option(help="Without keys a name of this machine only.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8040,
    upstream: Annotated[
        str | None,
        typer.Option(help="An OpenAI-compatible server that runs the policies, vLLM say; its URL with /v1."),
    ] = None,
    upstream_base: Annotated[str | None, typer.Option(help="What the base is called there.")] = None,
    upstream_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds without a sign of life.")] = 60.0,
    scope: Annotated[
        str, typer.Option(help="user: a bandit for each, who learn from each other; all: one.")
    ] = "user",
    algorithm: Annotated[str, typer.Option(help="ucb, kl-ucb, thompson, uniform.")] = "ucb",
    cost: CostName = None,
    alpha: Annotated[float | None, typer.Option(help="Of ucb [0.45 of the cost's scale].")] = None,
    scale: Annotated[float | None, typer.Option(help="A typical large cost [1 if normalised].")] = None,
    discount: Annotated[float, typer.Option(help="Weight an observation keeps per decision.")] = 1.0,
    expire_days: Annotated[float, typer.Option(min=0, help="An edit is waited for so long.")] = 7.0,
    keep_days: Annotated[float | None, typer.Option(min=0, help="Texts are removed after so long.")] = None,
    redact: Annotated[
        str | None, typer.Option(help="MODULE:FUNCTION from text to text, before anything is kept.")
    ] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Most requests per second of a key.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Most requests under way.")] = 512,
    max_body: Annotated[int, typer.Option(min=1, help="Most bytes of a request.")] = 2 * 2**20,
    max_text: Annotated[int, typer.Option(min=1, help="Most characters of a text.")] = 200_000,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Where a request names no limit.")] = 512,
    state: Annotated[Path | None, typer.Option(help="Folder of snapshot and spool [STORE.state].")] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb."""
    _need()
    import uvicorn

    from editloop.edits import get_cost
    from editloop.edits.cost import DEFAULT_COST
    from editloop.online import BanditConfig, resolve_scale
    from editloop.serve import Limits, Live, Store, create_app, list_keys

    if scope not in ("user", "all"):
        raise ConfigError("no such scope", seen=scope, do="choose user or all")
    cost = cost or DEFAULT_COST
    get_cost(cost)
    if scale is None:
        scale, why = (1.0, "alpha is given") if alpha is not None else resolve_scale(cost)
    else:
        why = "as asked"
    bandit = BanditConfig(algorithm=algorithm, cost=cost, scale=scale, alpha=alpha, discount=discount)
    kept = Store(store)
    live = Live(
        kept,
        state or _state_folder(kept),
        bandit,
        scope=scope,  # type: ignore[arg-type]
        expire_after=expire_days * DAY,
        keep_for=None if keep_days is None else keep_days * DAY,
    )
    backend = _backend(upstream, upstream_base, upstream_timeout, max_new_tokens, device, dtype)
    limits = Limits(body=max_body, text=max_text, rate=rate, concurrency=concurrency)
    app = create_app(live, backend, runs=runs or (), limits=limits, redact=_redaction(redact))
    listening = _listen(host, port)
    with listening:
        if host not in ("127.0.0.1", "::1", "localhost"):
            kept.open(claim=False)
            if not any(key.revoked is None for key in list_keys(kept)):
                raise ServeError(
                    "without keys only this machine may ask", seen=host, do="editloop keys create NAME first"
                )
        shown = f"http://{'[::1]' if host == '::1' else host}:{listening.getsockname()[1]}"
        console.print(f"store {kept}, state in {live.folder}")
        console.print(
            f"{algorithm}, {bandit.make_algorithm()}, cost {cost}; scale {scale:.3g}: {why}; scope {scope}"
        )
        console.print(f"policies by {upstream or 'this process'}")
        settings = uvicorn.Config(
            app, lifespan="off", log_level="warning", access_log=False, timeout_graceful_shutdown=20
        )

        async def run() -> None:
            async with app.router.lifespan_context(app):  # ours, so that what fails is told in a line
                arms = live.bandit.arms
                console.print(f"arms: {', '.join(arms) or 'none yet (editloop promote RUN)'}")
                console.print(f"dashboard {shown}/, API {shown}/v1, its documentation {shown}/docs")
                with _quiet_signals():
                    await uvicorn.Server(settings).serve([listening])

        with asyncio.Runner(loop_factory=settings.get_loop_factory()) as runner:
            runner.run(run())


@contextmanager
def _quiet_signals() -> Iterator[None]:
    """Within it the server that a signal has stopped may close the store before the process ends."""
    before = {each: signal.signal(each, lambda *_: None) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _need() -> None:
    """What the verbs of the live loop stand on.

    Raises:
        ConfigError: It is not installed.
    """
    for module in ("fastapi", "uvicorn", "sqlalchemy", "alembic", "httpx", "prometheus_client"):
        try:
            importlib.import_module(module)
        except ImportError:
            raise ConfigError(
                "a library of the server is missing", seen=module, do="pip install 'editloop[serve]'"
            ) from None


def _state_folder(store: Store) -> Path:
    if store.is_sqlite:
        assert store.url.database is not None
        return Path(f"{store.url.database}.state")
    return Path(f"editloop-{store.url.database}.state")


def _backend(
    upstream: str | None, base: str | None, timeout: float, max_new_tokens: int, device: str, dtype: str
) -> Backend:
    if upstream is not None:
        from editloop.serve.upstream import Upstream

        if not upstream.startswith(("http://", "https://")):
            raise ConfigError("not the URL of a server", seen=upstream, do="http://HOST:PORT/v1")
        return Upstream(upstream, key=os.environ.get("EDITLOOP_UPSTREAM_KEY"), base=base, timeout=timeout)
    from editloop.serve.local import Local

    return Local(max_new_tokens=max_new_tokens, device=device, dtype=dtype)


def _redaction(name: str | None) -> Any:
    """The function of that name, or one that leaves texts alone."""
    if name is None:
        return str
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found = getattr(importlib.import_module(module), function)
        if not isinstance(found("text"), str):
            raise TypeError("it does not return a text")
    except Exception as error:  # whatever the module does
        raise ConfigError(
            f"the redaction cannot be used: {error}", seen=name, do="MODULE:FUNCTION"
        ) from error
    return found


def _listen(host: str, port: int) -> socket.socket:
    """A socket on which to listen.

    Raises:
        ServeError: The port is in use, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(2048)
    except OSError as error:
        listening.close()
        raise ServeError(
            f"cannot listen, {error.strerror}", seen=f"{host}:{port}", do="choose another --port"
        ) from error
    return listening


def promote(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, which the server sees too.")],
    policies: Annotated[
        str | None, typer.Option(help="Which [all that were trained]: sft,dpo,mixture,base")
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Retire all other arms.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Even if offline evaluation is against it.")] = False,
    server: Server = "http://127.0.0.1:8040",
    key: KeyFlag = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    body: dict[str, Any] = {"run": str(run.resolve()), "replace": replace, "force": force}
    if policies:
        body["policies"] = [name.strip() for name in policies.split(",")]
    _show_epoch(_ask(server, key, "POST", "/v1/arms", body))


def retire(
    arm: Annotated[str, typer.Argument(metavar="ARM", help="Its whole name: sft@1a2b3c4d.")],
    server: Server = "http://127.0.0.1:8040",
    key: KeyFlag = None,
    config: Config = None,
) -> None:
    """Run the verb."""
    from urllib.parse import quote

    _show_epoch(_ask(server, key, "DELETE", f"/v1/arms/{quote(arm, safe='')}"))


def _ask(server: str, key: str | None, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """What the server answers.

    Raises:
        ServeError: It does not, or refuses.
    """
    _need()
    import httpx

    key = key or os.environ.get("EDITLOOP_KEY")
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        answer = httpx.request(method, server.rstrip("/") + path, json=body, headers=headers, timeout=600)
        found: dict[str, Any] = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServeError("the server does not answer", seen=str(error), do="check --server") from error
    if answer.is_error:
        raise ServeError(found.get("error", {}).get("message", str(found)))
    return found


def _show_epoch(epoch: dict[str, Any]) -> None:
    console.print(f"epoch {epoch['epoch']}: {', '.join(epoch['arms'])}")
    for arm, reason in epoch.get("against", {}).items():
        console.print(f"forced: {arm}: {reason}")


keys = typer.Typer(help="Who may ask a server.", no_args_is_help=True, rich_markup_mode=None)


def _opened(store: str) -> Store:
    _need()
    from editloop.serve import Store

    opened = Store(store)
    opened.open(claim=False)
    return opened


@keys.command("create", help="A new key, shown once.")
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="By which it is revoked.")],
    store: StoreUrl = "edits.db",
    role: Annotated[str, typer.Option(help="app: asks and sends edits; admin: everything.")] = "app",
    config: Config = None,
) -> None:
    """Run the verb."""
    opened = _opened(store)
    from editloop.serve import create_key

    print(create_key(opened, name, role))  # type: ignore[arg-type]


@keys.command("list", help="Names, roles and dates.")
def list_all(store: StoreUrl = "edits.db", config: Config = None) -> None:
    """Run the verb."""
    opened = _opened(store)
    from editloop.serve import list_keys

    rows = [["name", "role", "created", "revoked"]]
    for key in list_keys(opened):
        rows.append([key.name, key.role, _date(key.created), _date(key.revoked) if key.revoked else ""])
    show_table(rows)


@keys.command("revoke", help="End a key, also for a server that runs.")
def revoke(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the key.")],
    store: StoreUrl = "edits.db",
    config: Config = None,
) -> None:
    """Run the verb."""
    opened = _opened(store)
    from editloop.serve import revoke_key

    revoke_key(opened, name)
    console.print(f"{name} is revoked")


def _date(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))
