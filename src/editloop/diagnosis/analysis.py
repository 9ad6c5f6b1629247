"""What a log says about its users, in the quantities that the theory turns on, and which method to train.

Every figure is an estimate with an interval, or a reason why this log cannot tell and what to log so that it
can.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from editloop.diagnosis import findings, predictions
from editloop.diagnosis.advice import advise
from editloop.diagnosis.model import Diagnosis
from editloop.diagnosis.rows import AnsweredRows
from editloop.edits import Cost, Log, Record, get_cost
from editloop.errors import EmptyViewError
from editloop.progress import ProgressCallback, WarningCallback

if TYPE_CHECKING:
    from editloop.policy import Policy

__all__ = ["diagnose"]


def diagnose(
    records: Log | Sequence[Record],
    *,
    base: Policy | None = None,
    cost: Cost | str | None = None,
    seed: int = 0,
    callback: ProgressCallback | None = None,
) -> Diagnosis:
    """Diagnose a log.

    Args:
        records: A log, or its rows, in the order of time.
        base: The policy that wrote the responses, or the base to be trained; without one, the findings that
            need it are left out.
        cost: Δ, or its name; by default the default cost.
        seed: The seed of resampling.
        callback: Receives progress.

    Raises:
        EmptyViewError: No row was edited or accepted.
    """
    callback = callback or WarningCallback()
    cost = get_cost(cost) if isinstance(cost, str) else cost or get_cost()
    answered = [each for each in records if each.status in ("edited", "accepted")]
    if not answered:
        raise EmptyViewError("no row was edited or accepted", seen=f"{len(records)} rows")
    log = AnsweredRows.of(answered, cost, seed)
    changed = np.array([each.status == "edited" for each in answered])
    costs = cost(log.responses, log.texts)
    found = [
        findings.edited_share(log, changed),
        findings.edit_size(log, costs, changed),
        findings.kept_after_edit(log),
        findings.kept_in_revisions(log),
        findings.contraction(log),
        findings.agreement(log),
    ]
    if base is None:
        found += predictions.by_length(log, costs)
    else:
        found += predictions.by_base(log, costs, base, callback)
    edited = int(changed.sum())
    advice = advise(edited, {each.name: each.estimate for each in found})
    return Diagnosis(len(records), len(answered), edited, cost.name, tuple(found), advice)
