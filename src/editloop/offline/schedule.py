"""How long a training is, if the user does not say: the size of its steps, their number, and its rungs.

What a training needs is a number of optimiser steps rather than a number of passes over the rows. A fixed
number of passes gives seven steps on 70 rows, which is too few to learn anything, and hours on 70,000. A
small log therefore has smaller steps and several passes; a large one is passed over once.
"""

from __future__ import annotations

import math

__all__ = ["default_batch_size", "rung_steps", "training_steps"]

STEPS = 60
"""Optimiser steps that a training has at least, unless that were more than `MOST_PASSES`."""

MOST_PASSES = 4.0
"""The most passes over the rows; more of them teach the rows by heart (benchmarks/results/defaults.md)."""

LEAST_BATCH, LARGEST_BATCH = 4, 32
"""The fewest and the most contexts in a step. Between them, their number is a multiple of the fewest, which
divides into equal forwards, and a pass over the rows has about `STEPS` steps."""


def default_batch_size(rows: int, world: int = 1) -> int:
    """The number of contexts in an optimiser step, over all processes.

    Args:
        rows: The rows that the method learns from.
        world: The number of processes; the size is a multiple of it.
    """
    size = LEAST_BATCH * round(rows / STEPS / LEAST_BATCH)
    size = min(max(size, LEAST_BATCH), LARGEST_BATCH)
    return math.ceil(size / world) * world


def training_steps(rows: int, batch: int, passes: float | None) -> int:
    """The number of optimiser steps of a training, at least 1.

    Args:
        rows: The rows that the method learns from.
        batch: Contexts in an optimiser step, over all processes.
        passes: Passes over the rows; None takes as many as `STEPS` steps need, but at least 1 and at most
            `MOST_PASSES`.
    """
    if passes is None:
        passes = min(max(1.0, STEPS * batch / rows), MOST_PASSES)
    # In floats, 10 rows · 1.1 passes are 11.000000000000002 rows. Without the rounding, the ceiling would
    # make that 12 steps of one row.
    return max(1, math.ceil(round(rows * passes, 6) / batch))


def rung_steps(steps: int, trials: int, every: int) -> list[int]:
    """The steps at which the worse half of a grid's trials is dropped (successive halving).

    With n trials there are r = ⌈log₂ n⌉ rungs, at steps S/2^(r+1), ..., S/8, S/4 of S. Two trials then cost
    1.25 trainings, four 1.5 and eight 1.75.

    Args:
        steps: The steps S of a whole training.
        trials: The number of trials.
        every: Steps between two evaluations; a rung is at an evaluation, the nearest one to its place.

    Returns:
        The rungs in ascending order; none for one trial, or where no evaluation comes before the end.
    """
    places = [steps / 2 ** (left + 1) for left in range(math.ceil(math.log2(max(1, trials))), 0, -1)]
    rungs = [max(1, round(place / every)) * every for place in places]
    return [rung for rung in rungs if rung < steps]
