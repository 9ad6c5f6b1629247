"""Where a fit of the autopilot begins: at the base, or at the adapter of the champion; and where runs lie."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from editloop.errors import AutopilotError, EditLoopError
from editloop.policy import RunFolder, arm_name
from editloop.store import reads
from editloop.store.database import Connection
from editloop.store.schema import FORGOTTEN

__all__ = ["BASE", "first_weights", "run_of", "start_path"]

BASE = "base"
"""What a lineage says of a fit that began at the base."""


def first_weights(connection: Connection, champion: str) -> str:
    """The arm at whose adapter the next fit begins: the champion, where that can be; else `base`.

    It cannot be if the champion has no adapter, or its run folder no longer has it. It may not be if somebody
    was forgotten since the champion's rows were read: what they taught would stay in the weights of all later
    fits.
    """
    row = next((each for each in reads.policy_rows(connection) if each.arm == champion), None)
    if row is None or not _has_adapter(RunFolder(row.run), row.name, champion):
        return BASE
    forgotten = reads.fact(connection, FORGOTTEN)
    if forgotten is not None and row.read_until is not None and float(forgotten) >= row.read_until:
        return BASE
    return champion


def _has_adapter(run: RunFolder, name: str, arm: str) -> bool:
    """Whether a run folder has the adapter of an arm, with the weights that the arm's name stands for."""
    with suppress(EditLoopError, OSError):
        return (run.policy_path(name) / "adapter_config.json").is_file() and arm_name(run, name) == arm
    return False


def start_path(connection: Connection, arm: str) -> Path | None:
    """The policy at whose adapter a fit begins, as `editloop fit --start` takes it; None for the base.

    Raises:
        AutopilotError: The store does not know the arm.
    """
    if arm in ("", BASE):
        return None
    places = reads.policy_locations(connection)
    if arm not in places:
        raise AutopilotError("the policy at which the fit begins is not known", seen=arm)
    run, name = places[arm]
    return Path(run) / name


def run_of(connection: Connection, arm: str | None) -> Path | None:
    """The run folder of an arm, if it is still there."""
    places = reads.policy_locations(connection)
    run = Path(places[arm][0]) if arm in places else None
    return run if run is not None and run.is_dir() else None
