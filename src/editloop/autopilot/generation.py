"""What came of a fit: its best policy, with the figures that the gates read, and where it comes from."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

from editloop.autopilot.fitter import held_out_figures
from editloop.autopilot.gates import FittedPolicy
from editloop.autopilot.stages import Lineage
from editloop.errors import AutopilotError

__all__ = ["Generation", "as_evidence", "read_generation"]


class Generation(NamedTuple):
    """A generation that was fitted.

    Attributes:
        policy: Its best policy, by the validation cost.
        row: That policy as a row of the table `policies`.
        lineage: Where it comes from, with what the fit read.
    """

    policy: FittedPolicy
    row: dict[str, Any]
    lineage: Lineage


def read_generation(
    run: Path, lineage: Lineage, champion: str | None, champion_run: Path | None, now: float
) -> Generation:
    """The generation of a run folder.

    Args:
        run: The run folder.
        lineage: What is known of the generation so far.
        champion: The champion, with whom its policy is compared.
        champion_run: The champion's run folder, if it is still there.
        now: The time, in seconds since 1970.

    Raises:
        RunError: The run folder cannot be used.
        AutopilotError: The base is not that of the champion any more.
    """
    from editloop.policy import RunFolder
    from editloop.policy.catalog import find_policies, validation

    served = find_policies(str(run), None)
    if champion_run is not None:
        _check_base(run, champion_run)
    measured = {each.arm: validation(each.run, each.name) for each in served}

    def cost(arm: str) -> float:
        found = measured[arm]["cost"]
        return math.inf if found is None else float(found["mean"])

    best = min(served, key=lambda each: cost(each.arm))
    read, other = RunFolder(run).manifest().read, None
    if champion_run is not None:
        other = held_out_figures(champion_run, str(champion).partition("@")[0], lineage.until)
    policy = FittedPolicy(
        arm=best.arm,
        name=best.name,
        run=str(best.run),
        validation=measured[best.arm],
        held_out=held_out_figures(run, best.name, lineage.until),
        champion=other,
    )
    row = {"arm": best.arm, "name": best.name, "run": str(best.run), "time": now}
    row |= {"metrics": json.dumps(measured[best.arm], allow_nan=False), "read_until": read.until}
    digest = read.sha256 or hashlib.sha256(str(run).encode()).hexdigest()
    return Generation(policy, row, lineage._replace(rows=read.rows or 0, fingerprint=digest))


def _check_base(run: Path, champion_run: Path) -> None:
    """Refuse a policy of a base that has the champion's name and other weights.

    The server has the base of the champion in memory, on which such a policy would write nonsense. Whoever
    names another base by `--base` serves it in another way, by a model server.

    Raises:
        AutopilotError: The base has changed.
    """
    from editloop.policy import RunFolder

    base, other = RunFolder(run).manifest().base, RunFolder(champion_run).manifest().base
    if (base.name, base.quantize) != (other.name, other.quantize) or base.fingerprint == other.fingerprint:
        return
    raise AutopilotError(
        "the base has changed since the champion was fitted on it",
        seen=base.name,
        do="put the old base back, or serve the new run from a store of its own",
    )


def as_evidence(value: Any) -> Any:
    """Figures as JSON types; one that is not finite becomes None.

    The examples of an evaluation are left out: they are users' texts, which in an event would outlive the
    removal of their users.
    """
    if isinstance(value, dict):
        return {key: as_evidence(each) for key, each in value.items() if key != "examples"}
    if isinstance(value, (list, tuple)):
        return [as_evidence(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
