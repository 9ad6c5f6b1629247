"""The default length of a training, and where its rungs are, by numbers worked out by hand."""

from __future__ import annotations

import pytest

from editloop.offline.schedule import default_batch_size, rung_steps, training_steps


@pytest.mark.parametrize(
    ("rows", "size"), [(1, 4), (359, 4), (361, 8), (475, 8), (720, 12), (1920, 32), (10**6, 32)]
)
def test_a_step_grows_with_the_rows(rows: int, size: int) -> None:
    assert default_batch_size(rows) == size


def test_a_step_can_be_divided_among_the_processes() -> None:
    assert [default_batch_size(100, world) for world in (1, 2, 3, 8)] == [4, 4, 6, 8]


@pytest.mark.parametrize(
    ("rows", "batch", "steps"),
    [
        (72, 4, 60),  # 60 · 4 / 72 = 3.33 passes
        (20, 4, 20),  # 12 passes would be needed for 60 steps; 4 passes are allowed
        (213, 4, 60),  # 1.13 passes
        (475, 8, 60),  # 60 · 8 / 475 = 1.01 passes
        (350, 4, 88),  # one pass, ⌈87.5⌉ steps
        (7000, 32, 219),  # one pass, ⌈218.75⌉ steps
        (1, 1, 4),
    ],
)
def test_a_training_has_sixty_steps_within_one_to_four_passes(rows: int, batch: int, steps: int) -> None:
    assert training_steps(rows, batch, None) == steps


def test_passes_that_are_given_are_kept() -> None:
    assert training_steps(10, 1, 1.1) == 11
    assert training_steps(100, 32, 3.0) == 10
    assert training_steps(100, 32, 0.001) == 1


def test_the_rungs_are_evaluations_before_the_end() -> None:
    assert rung_steps(64, 1, 4) == []
    assert rung_steps(64, 2, 4) == [16]
    assert rung_steps(64, 3, 4) == [8, 16]  # ⌈log₂ 3⌉ = 2 rungs
    assert rung_steps(64, 8, 4) == [4, 8, 16]
    assert rung_steps(60, 2, 12) == [12]  # 15 is nearest to 12
    assert rung_steps(2, 2, 2) == []  # the only evaluation is the last
