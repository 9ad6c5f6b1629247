"""`editloop autopilot`: fit again when it pays, and move policies through their stages."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.stages import Stage, Stages
from editloop.cli.configured import SectionedCommand, configured, short_help
from editloop.cli.console import console, show_table
from editloop.cli.flags import Config, Device, Dtype, StoreUrl
from editloop.cli.places import Place, guarded
from editloop.cli.stores import opened_store
from editloop.errors import AutopilotError
from editloop.extras import requires
from editloop.io import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from editloop.store import Store

autopilot = typer.Typer(
    help="Fit again when it pays, and move policies through their stages.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Arm = Annotated[str, typer.Argument(metavar="ARM", help="The policy's full name: early@1a2b3c4d.")]
Reason = Annotated[str, typer.Option(help="Why, for the record.")]


def child_command() -> list[str]:
    """How this command is called as a child that ends with its parent."""
    return [sys.executable, "-m", "editloop.cli.child"]


@short_help("store", "base", "runs", "config")
@configured(AutopilotConfig, lambda values: AutopilotConfig(**values))
def run(
    given: AutopilotConfig,
    store: StoreUrl = "edits.db",
    base: Annotated[
        str | None, typer.Option(help="The base of the fits [that of the run of the first arm].")
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="Folder for the run folders, which the server must see, too [STORE.runs]."),
        Place.WRITTEN,
    ] = None,
    fit_config: Annotated[
        Path | None, typer.Option(help="YAML file with further flags of `editloop fit`."), Place.READ
    ] = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb, until a signal ends it."""
    requires("serve")
    requires("train")
    from editloop.autopilot.children import Child
    from editloop.autopilot.fitter import CommandFitter
    from editloop.autopilot.pilot import Autopilot
    from editloop.autopilot.shadow import CommandScorer
    from editloop.store import Store

    _show_log()
    kept = Store(store)
    kept.open(claim=False)
    machine = ["--device", device, "--dtype", dtype]
    options = [*machine, *(["--config", str(fit_config)] if fit_config else [])]
    address, secret = public_address(kept)
    fitter = CommandFitter(child_command(), address, base or _base_of(kept), given, options, secret)
    scorer = CommandScorer(Child(child_command(), given.niceness, secret), address, machine)
    pilot = Autopilot(kept, given, fitter, runs or runs_folder(kept), scorer=scorer)
    ending = threading.Event()
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, lambda *_: ending.set())
    console.print(f"store {kept}, run folders in {pilot.runs}")
    console.print(f"fits of {given.learn_from} after {given.min_edits} new edits; Ctrl-C ends it")
    pilot.run(ending.wait)


def public_address(store: Store) -> tuple[str, dict[str, str]]:
    """The address of a store without its password, and the environment in which it is found all the same.

    Arguments of a process can be seen by every user of the machine; its environment by its owner alone.
    """
    from sqlalchemy import URL

    url = store.url
    plain = URL.create(
        url.get_backend_name(), url.username, None, url.host, url.port, url.database, url.query
    )
    secret = {} if url.password is None else {"PGPASSWORD": str(url.password)}  # libpq looks there
    return plain.render_as_string(), secret


def runs_folder(store: Store) -> Path:
    """The default folder for the run folders of a store's generations."""
    name = store.url.database or "editloop"
    return Path(f"{name}.runs" if store.is_sqlite else f"editloop-{name}.runs")


def _base_of(store: Store) -> str:
    """The base of the run of the arm that came first.

    Raises:
        AutopilotError: There is none, so that nobody knows which base is meant.
    """
    from editloop.policy import RunFolder
    from editloop.store import reads

    for row in store.read(reads.policy_rows):
        if Path(row.run).is_dir():
            return RunFolder(row.run).manifest().base.name
    raise AutopilotError("the store has no arm whose run is still there", seen=str(store), do="give --base")


def _show_log() -> None:
    """Print what the autopilot logs, one line each with the time."""
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("editloop.autopilot")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False


def status(store: StoreUrl = "edits.db", config: Config = None) -> None:
    """Run the verb."""
    requires("serve")
    from editloop.autopilot.ledger import PAUSED, WAITS
    from editloop.autopilot.triggers import under_way
    from editloop.store import reads

    with closing(opened_store(store)) as opened:
        stages = _stages(opened)
        facts = opened.read(lambda c: reads.facts_named(c, [PAUSED, WAITS]))
        costs = _costs(opened)
    if facts.get(PAUSED):
        console.print("The autopilot is paused.\n")
    rows = [["policy", "stage", "since", "cost", "edits"]]
    for subject in stages.subjects:
        last = stages.last(subject)
        assert last is not None
        n, mean = costs.get(subject, (0, None))
        cells = [subject, str(last.stage), _date(last.time), "–" if mean is None else f"{mean:.3f}"]
        rows.append([*cells, str(n) if n else "–"])
    if len(rows) == 1:
        console.print("No policy has a stage yet: the autopilot has not looked at this store.")
        return
    show_table(rows)
    since, _, waits = facts.get(WAITS, "").partition(" ")
    if tried := under_way(stages):
        console.print(f"\nThe next fit waits: {tried}.", soft_wrap=True)
    elif waits:
        console.print(f"\nThe next fit waits: {waits} (as of {_date(float(since))}).", soft_wrap=True)
    console.print()
    for each in stages.history[-10:]:
        console.print(f"{_date(each.time)}  {each.sentence}  (by {each.by})", soft_wrap=True)


def _costs(store: Store) -> dict[str, tuple[int, float | None]]:
    """The number of costs of each arm, and their mean."""
    from editloop.store.rounds import rounds

    found: dict[str, list[float]] = {}
    for row in store.read(lambda c: rounds(c, 0.0)):
        if row.cost is not None:
            found.setdefault(row.arm or row.chosen, []).append(row.cost)
    return {arm: (len(each), sum(each) / len(each)) for arm, each in found.items()}


def pause(store: StoreUrl = "edits.db", config: Config = None) -> None:
    """Run the verb."""
    _note(store, f"{time.time():.0f} by the command")
    console.print("The autopilot is paused; a fit that is under way goes on.")


def resume(store: StoreUrl = "edits.db", config: Config = None) -> None:
    """Run the verb."""
    _note(store, "")
    console.print("The autopilot goes on.")


def predict(
    arm: Arm,
    out: Annotated[Path, typer.Option(help="The JSON file to write."), Place.WRITTEN],
    store: StoreUrl = "edits.db",
    since: Annotated[float, typer.Option(help="Drafts since this time, in seconds since 1970.")] = 0.0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb."""
    requires("serve")
    requires("train")
    from editloop.autopilot.shadow import predict_shadow

    with closing(opened_store(store)) as opened:
        found = predict_shadow(opened, arm, since, device=device, dtype=dtype)
    write_json(out, found)
    why = f": {found['objection']}" if found["objection"] else ""
    console.print(f"costs of the drafts for {len(found['costs'])} requests, written to {out}{why}")


def promote(
    arm: Arm,
    store: StoreUrl = "edits.db",
    stage: Annotated[
        str, typer.Option(help="The stage that it gets: shadow, canary, arm or champion.")
    ] = "arm",
    reason: Reason = "",
    config: Config = None,
) -> None:
    """Run the verb."""
    wanted = [Stage.SHADOW, Stage.CANARY, Stage.ARM, Stage.CHAMPION]
    if stage not in wanted:
        raise AutopilotError("no such stage", seen=stage, do=f"use one of {', '.join(wanted)}")
    _move(store, arm, Stage(stage), reason)


def rollback(arm: Arm, store: StoreUrl = "edits.db", reason: Reason = "", config: Config = None) -> None:
    """Run the verb."""
    _move(store, arm, Stage.ROLLED_BACK, reason)


def _move(store: str, arm: str, stage: Stage, reason: str) -> None:
    requires("serve")
    from editloop.autopilot.ledger import SOMEBODY, read_stages, write_transitions

    with closing(opened_store(store)) as opened, opened.transaction() as connection:
        steps = read_stages(connection).moved_by_hand(arm, stage, time.time(), SOMEBODY, reason)
        write_transitions(connection, steps)
    for each in steps:
        console.print(each.sentence)


def _note(store: str, note: str) -> None:
    requires("serve")
    from editloop.autopilot.ledger import PAUSED
    from editloop.store import writes

    with closing(opened_store(store)) as opened, opened.transaction() as connection:
        writes.set_fact(connection, PAUSED, note)


def _stages(store: Store) -> Stages:
    from editloop.autopilot.ledger import read_stages

    return store.read(read_stages)


def _date(seconds: float) -> str:
    return time.strftime("%m-%d %H:%M", time.localtime(seconds))


HELP: dict[Callable[..., None], str] = {
    run: "Watch a store: fit, try in the shadow and in the canary, promote, roll back.",
    status: "Where each policy stands, and the last transitions.",
    pause: "Take no step until `resume`.",
    resume: "Go on after `pause`.",
    predict: "Predict what drafts in the shadow cost, by the cost model of a policy's run.",
    promote: "Move a policy to a stage by hand, also one that was rolled back.",
    rollback: "Take a policy away from users at once.",
}
for _verb, _line in HELP.items():
    autopilot.command(_verb.__name__, help=_line, cls=SectionedCommand)(guarded(_verb))
