"""How much of a fit's time is left: the plan, corrected by the pace at which its work is being done."""

from __future__ import annotations

import time
from collections.abc import Callable

from editloop.offline.plan import FitPlan
from editloop.progress import ProgressCallback, show_duration

__all__ = ["Countdown"]

ENOUGH = 0.02
"""The part of the planned work after which its pace is believed; before, the plan is."""


class Countdown:
    """A callback that passes everything on, and adds to the progress of trainings what is left of the fit.

    Args:
        callback: Gets what this one receives.
        plan: The plan of the fit.
        clock: Seconds, for tests.
    """

    def __init__(
        self, callback: ProgressCallback, plan: FitPlan, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.message, self.warn = callback.message, callback.warn
        self._callback, self._plan, self._clock = callback, plan, clock
        self._seconds = {each.name: each.seconds for each in plan.methods}
        self._trials = {each.name: each.trials for each in plan.methods}
        self._method: str | None = None
        self._started = 0.0
        self._over = 0.0  # planned seconds of the methods before this one
        self._finished: set[str] = set()  # this method's trials that are over
        self._parts: dict[str, float] = {}  # of each trial, the part at its first report
        self._skipped = 0.0  # planned seconds of work that an earlier process has done

    def begin(self, method: str) -> None:
        """Begin with a method; the one before is over."""
        if self._method is None:
            # What comes before the trainings may come from a cache, and says nothing about their pace.
            self._started = self._clock()
        else:
            self._over += self._seconds[self._method]
        self._method, self._finished, self._parts = method, set(), {}

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Pass progress on, in trainings with what is left of the fit."""
        # Parts of a trial are tasks of their own, named after it: `dpo, validation`.
        if self._method is not None and total and "," not in task:
            left = self._left(task, done, total)
            note = (
                f"{note}, {show_duration(left)} left in all" if note else f"{show_duration(left)} left in all"
            )
        self._callback.progress(task, done, total, note)

    def _left(self, task: str, done: int, total: int) -> float:
        """The seconds that are left after this report on a trial."""
        assert self._method is not None
        share = self._seconds[self._method] / self._trials[self._method]
        if task not in self._parts:
            # A training that goes on from a checkpoint begins in the middle.
            self._parts[task] = (done - 1) / total
            self._skipped += share * self._parts[task]
        part = done / total if done < total else 0.0
        if done >= total:
            self._finished.add(task)
        planned = self._over + share * min(len(self._finished) + part, self._trials[self._method])
        whole = sum(self._seconds.values())
        worked, elapsed = planned - self._skipped, self._clock() - self._started
        pace = elapsed / worked if worked > ENOUGH * whole else 1.0
        return max(0.0, (whole - planned) * pace)
