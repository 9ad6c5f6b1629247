"""`editloop serve`: the live loop; `editloop serve-demo`: the live loop with simulated people."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.configured import configured, short_help
from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config, Device, Dtype, StoreUrl
from editloop.cli.places import Place
from editloop.cli.user_flags import Texts, get_world, writing_base
from editloop.edits import get_cost
from editloop.edits.cost import DEFAULT_COST
from editloop.errors import ConfigError, ServeError, StoreError
from editloop.extras import requires
from editloop.online import BanditConfig, resolve_scale
from editloop.serve.config import BROWSER, DAY, ServeConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from editloop.serve.backends.base import Backend
    from editloop.store import Store


@short_help("store", "state", "device", "config")
@configured(ServeConfig, skip=("prior", "prior_strength", "seed", "memory"))
def serve(
    given: dict[str, Any],
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run folders: the first arms of a new store."),
        Place.READ,
    ] = None,
    store: StoreUrl = "edits.db",
    host_name: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Another name of the server, such as a proxy's; may be repeated."),
    ] = None,
    allow_origin: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ORIGIN",
            rich_help_panel=BROWSER,
            help="A site whose pages may ask, such as https://app.example; may be repeated.",
        ),
    ] = None,
    backend_option: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="An option for an installed backend; may be repeated."),
    ] = None,
    state: Annotated[
        Path | None, typer.Option(help="Folder for the snapshot and the spool [STORE.state]."), Place.WRITTEN
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb. It is long because half of it is its flags."""
    requires("serve")
    from editloop.cli.workers import Worker
    from editloop.serve import FeedbackLoop, create_app
    from editloop.serve.api.server import listen, run_server
    from editloop.serve.loop.state_folder import adopt_spools
    from editloop.serve.telemetry.spans import make_spans
    from editloop.store import Store

    kept = Store(store)
    folder = state or _state_folder(kept)
    worker = Worker.of_environment()
    if worker is not None:
        folder = worker.folder(folder)
    settings, why = _settings(given, kept, folder)
    if settings.workers > 1 and worker is None:
        _serve_by_workers(kept, folder, settings, device, dtype)
        return
    bandit, host = settings.bandit, settings.host
    loop = FeedbackLoop(
        kept,
        folder,
        bandit,
        scope=settings.scope,
        expire_after=settings.expire_days * DAY,
        keep_for=None if settings.keep_days is None else settings.keep_days * DAY,
        reprice=settings.reprice,
    )
    backend = _backend(settings, device, dtype, _options(backend_option))
    limits = settings.limits(backend.answer_seconds)
    # The names under which requests may come; the addresses that stand for all are not the name of any.
    names = [*(host_name or ()), *([] if host in ("0.0.0.0", "::") else [host])]
    redact = _redaction(settings.redact)
    past_edits = settings.past_edits()
    origins = allow_origin or ()
    app = create_app(
        loop,
        backend,
        runs=runs or (),
        limits=limits,
        redact=redact,
        hosts=names,
        past_edits=past_edits,
        origins=origins,
        edit_tokens=60 * settings.edit_token_minutes if settings.edit_tokens or origins else None,
        spans=make_spans(settings.otel_endpoint),
        is_worker=worker is not None,
    )
    with worker.listening() if worker else listen(host, settings.port) as listening:
        if host not in ("127.0.0.1", "::1", "localhost") and not _has_keys(kept, loop.folder):
            raise ServeError(
                "without keys only this machine may ask", seen=host, do="editloop keys create NAME first"
            )
        if worker is None:
            adopt_spools(folder)

        def show(line: str) -> None:
            if worker is None or worker.is_first:
                console.print(line)

        address = f"http://{'[::1]' if host == '::1' else host}:{listening.getsockname()[1]}"
        show(f"store {kept}, state in {loop.folder}")
        show(
            f"{bandit.algorithm}, {bandit.make_algorithm()}, cost {bandit.cost}; scale {bandit.scale:.3g}: "
            f"{why}; scope {settings.scope}"
        )
        show(f"policies by {backend}")
        if origins:
            show(f"pages of {', '.join(origins)} may ask, and send edits with edit tokens")

        def started() -> None:
            show(f"arms: {', '.join(loop.bandit.arms) or 'none yet (editloop promote RUN)'}")
            show(f"dashboard {address}/, API {address}/v1, its documentation {address}/docs")
            if worker is not None:
                worker.say_ready()

        beside = None if worker else _autopilot(kept, folder, settings, device, dtype)
        run_server(app, listening, started, limits=limits, beside=beside)


def _serve_by_workers(store: Store, folder: Path, settings: ServeConfig, device: str, dtype: str) -> None:
    """Run the workers, and one autopilot beside them."""
    from editloop.cli.workers import run_workers
    from editloop.serve.api.server import listen
    from editloop.serve.loop.state_folder import adopt_spools

    if store.is_sqlite:
        raise ConfigError(
            "one process alone can serve from a SQLite file",
            seen=f"--workers {settings.workers}",
            do="use --store postgresql://..., or leave out --workers",
        )
    with listen(settings.host, settings.port) as listening:
        adopt_spools(folder, settings.workers)
        console.print(f"{settings.workers} workers")
        beside = _autopilot(store, folder, settings, device, dtype)
        run_workers(settings.workers, listening, beside)


def _autopilot(
    store: Store, folder: Path, settings: ServeConfig, device: str, dtype: str
) -> Callable[[], Coroutine[Any, Any, None]] | None:
    """Return what keeps an autopilot running beside the server, if one is asked for."""
    from editloop.cli.learning import autopilot_command, keep_running

    if not settings.learn:
        return None
    pilot = autopilot_command(store, folder, settings.autopilot, device=device, dtype=dtype)
    console.print(f"an autopilot fits {settings.autopilot.learn_from}; see editloop autopilot status")
    return partial(keep_running, pilot)


def _backend(settings: ServeConfig, device: str, dtype: str, extra: dict[str, str]) -> Backend:
    """Return the backend that runs the policies."""
    from editloop.serve.backends import make_backend
    from editloop.serve.backends.base import BackendOptions

    usual = "local" if settings.upstream is None else "upstream"
    options = BackendOptions(
        url=settings.upstream,
        key=os.environ.get("EDITLOOP_UPSTREAM_KEY"),  # not a flag, which `ps` would show to every user
        base=settings.upstream_base,
        timeout=settings.upstream_timeout,
        logprobs=settings.upstream_logprobs,
        max_new_tokens=settings.max_new_tokens,
        best_of=settings.best_of,
        device=device,
        dtype=dtype,
        extra=extra,
    )
    return make_backend(settings.backend or usual, options)


def _settings(given: dict[str, Any], store: Store, folder: Path) -> tuple[ServeConfig, str]:
    """Return the configuration from the values that were given, and where the scale of costs comes from.

    A store that is there keeps its cost, unless another one is asked for.
    """
    from editloop.serve.loop.costs import usual_cost

    bandit = dict(given.pop("bandit", {}))
    if "cost" not in bandit:
        bandit["cost"] = DEFAULT_COST if given.get("reprice") else usual_cost(store, folder)
    cost, why = bandit["cost"], "as asked"
    get_cost(cost)  # an unknown cost is reported before anything is opened
    if "scale" not in bandit:
        bandit["scale"], why = (1.0, "alpha is given") if "alpha" in bandit else resolve_scale(cost)
    return ServeConfig(bandit=bandit, **given), why


def serve_demo(
    out: Annotated[
        Path, typer.Option(help="Folder for everything; run again, the demo goes on."), Place.WRITTEN
    ] = Path("serve-demo"),
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8040,
    rows: Annotated[
        int | None,
        typer.Option(min=20, help="Rows of the log from which the first policies learn [100]."),
    ] = None,
    texts: Texts = "lab",
    base: Annotated[str | None, typer.Option(help="The base that the policies are of [lab:email].")] = None,
    pause: Annotated[float, typer.Option(min=0, help="Mean seconds between two requests.")] = 0.5,
    learn: Annotated[
        bool, typer.Option("--learn/--no-learn", help="Whether an autopilot fits further generations.")
    ] = True,
    config: Config = None,
) -> None:
    """Run the verb. It is in one piece because the server serves what was made before it starts."""
    requires("serve")
    from editloop.cli import learning
    from editloop.edits import read_log, write_log
    from editloop.lab import fit_settings, stream_log
    from editloop.lab.drafts import KeptDrafts
    from editloop.lab.settings import REAL_TRAINING
    from editloop.lab.traffic import write_and_edit
    from editloop.offline import fit
    from editloop.policy import load_base
    from editloop.serve import AsyncClient, FeedbackLoop, Limits, create_app
    from editloop.serve.api.server import listen, run_server
    from editloop.serve.backends.local import LocalBackend
    from editloop.serve.loop.costs import usual_cost
    from editloop.store import Store
    from editloop.users import get_user

    name, world, log = writing_base("email", texts, base), get_world("email", texts), out / "log.jsonl"
    editor = get_user("strong", world, seed=0)  # refuses texts that it cannot read before anything is loaded
    rows = rows or 100
    with listen("127.0.0.1", port) as listening:
        with shown_progress() as callback:
            callback.message(
                f"First policies, from {rows} emails that a strong user edits (a minute or two in the lab):"
            )
            loaded = load_base(name)
            if not log.is_file():
                writer = KeptDrafts(loaded, out / "drafts.jsonl", loaded.fingerprint)
                write_log(stream_log(world, editor, rows, 0, policy=writer), log)
            settings = (fit_settings("email") if texts == "lab" else REAL_TRAINING).changed(
                {"methods": ("sft", "early")}
            )
            run = fit(read_log(log), loaded, out / "run", settings, report=False, callback=callback)
        store = Store(str(out / "edits.db"))
        bandit = BanditConfig(cost=usual_cost(store, out / "state"))
        loop = FeedbackLoop(store, out / "state", bandit)
        limits = Limits(answer_seconds=LocalBackend.answer_seconds)
        app = create_app(
            loop, LocalBackend(max_new_tokens=world.max_new_tokens), runs=[run.path], limits=limits
        )
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"

        def started() -> None:
            console.print(f"\narms: {', '.join(loop.bandit.arms)}")
            console.print("Five simulated people write and edit, until you press Ctrl-C.")
            if learn:
                console.print("An autopilot fits further generations from their edits, and tries them.")
            console.print(f"dashboard {url}/")

        async def traffic() -> None:
            async with AsyncClient(url) as client:
                # Another seed for each start, so that a demo that goes on does not repeat its requests.
                await write_and_edit(client, world, pause=pause, seed=loop.writer.last)

        async def beside() -> None:
            pilot = learning.demo_command(store, out, settings) if learn else None
            await asyncio.gather(traffic(), *([learning.keep_running(pilot)] if pilot else []))

        run_server(app, listening, started, beside=beside)


def _has_keys(store: Store, folder: Path) -> bool:
    """Whether there is a valid key. While the database is down, the keys that were known last decide."""
    from editloop.store import list_keys

    try:
        store.open(claim=False)
        return any(key.revoked is None for key in list_keys(store))
    except StoreError:
        known = folder / "keys.json"
        if not known.is_file():
            raise
        return bool(json.loads(known.read_text(encoding="utf-8")))


def _state_folder(store: Store) -> Path:
    """Return the default folder for the snapshot and the spool of a store."""
    if store.is_sqlite:
        assert store.url.database is not None
        return Path(f"{store.url.database}.state")
    return Path(f"editloop-{store.url.database}.state")


def _options(given: list[str] | None) -> dict[str, str]:
    """Return options `NAME=VALUE` by name.

    Raises:
        ConfigError: An option is not of that form.
    """
    pairs = [each.partition("=") for each in given or ()]
    if wrong := [name for name, equals, _ in pairs if not (name and equals)]:
        raise ConfigError("not an option of a backend", seen=wrong[0], do="--backend-option NAME=VALUE")
    return {name: value for name, _, value in pairs}


def _redaction(name: str | None) -> Any:
    """Return the function of that name, or one that leaves texts as they are.

    It is tried on a text, so that a wrong one is found before the first user's text is stored without it.
    """
    if name is None:
        return str
    module, _, function = name.partition(":")
    sys.path.insert(0, str(Path.cwd()))  # as with `python -m`; the command itself would not look there
    try:
        found = getattr(importlib.import_module(module), function)
        if not isinstance(found("text"), str):
            raise TypeError("it returns something other than a text")
    except Exception as error:  # the module may raise anything
        raise ConfigError(
            f"the redaction cannot be used: {error}", seen=name, do="MODULE:FUNCTION"
        ) from error
    return found
