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
        self._steps = {each.name: each.steps for each in plan.methods}
        self._method: str | None = None
        self._started = 0.0
        self._over = 0.0  # planned seconds of the methods before this one
        self._made: dict[str, int] = {}  # this method's trials, and the step that each has reached
        self._skipped = 0.0  # planned seconds of work that an earlier process has done

    def begin(self, method: str) -> None:
        """Begin with a method; those that the plan has before it are over, also by an earlier process."""
        if self._method is None:
            # What comes before the trainings may come from a cache, and says nothing about their pace.
            self._started = self._clock()
        else:
            self._over += self._seconds[self._method]
        names = [*self._seconds]
        before = sum(self._seconds[name] for name in names[: names.index(method)])
        self._skipped += before - self._over
        self._over, self._method, self._made = before, method, {}

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Pass progress on, in trainings with what is left of the fit."""
        # Parts of a trial are tasks of their own, named after it: `dpo, validation`.
        if self._method is not None and total and "," not in task:
            left = f"{show_duration(self._left(task, done))} left in all"
            note = f"{note}, {left}" if note else left
        self._callback.progress(task, done, total, note)

    def _left(self, task: str, done: int) -> float:
        """The seconds that are left after this report on a trial."""
        assert self._method is not None
        of_step = self._seconds[self._method] / self._steps[self._method]
        if task not in self._made:  # a training that goes on from a checkpoint begins in the middle
            self._skipped += of_step * (done - 1)
        # A trial is reported up to the step at which it is compared with others, and may go on later.
        self._made[task] = max(done, self._made.get(task, 0))
        steps = min(sum(self._made.values()), self._steps[self._method])
        planned, whole = self._over + of_step * steps, sum(self._seconds.values())
        worked, elapsed = planned - self._skipped, self._clock() - self._started
        pace = elapsed / worked if worked > ENOUGH * whole else 1.0
        return max(0.0, (whole - planned) * pace)
