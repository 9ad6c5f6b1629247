"""A small log to train on: a user who wants one word more, or accepts. And a callback
that keeps what it hears.
"""

from __future__ import annotations

from typing import Any

from editloop.edits.record import Record


def small_log(rows: int = 40, *, accepted: int = 5) -> list[Record]:
    """Rows of which every n-th was accepted (n below 0: all but every n-th); the rest got a greeting."""
    names = ["Ann", "Bob", "Cy", "Di", "Ed"]
    made = []
    for i in range(rows):
        response = f"see {names[i % 5]} at {i % 7}"
        kept = i % accepted == 0 if accepted > 0 else i % -accepted != 0
        edit = response if kept else f"hi! {response}"
        made.append(Record(id=str(i), context=f"mail {i}", response=response, edit=edit))
    return made


class RecordingCallback:
    """A callback that keeps the messages and the progress it receives."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[tuple[str, int, int]] = []

    def message(self, line: str) -> None:
        self.lines.append(line)

    def warn(self, line: str) -> None:
        self.lines.append(line)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        self.steps.append((task, done, total))


def with_cost_model() -> Any:
    """The configuration of a short fit that ends with a policy and a cost model."""
    from editloop.offline import FitConfig  # here, for most tests of logs need no torch

    return FitConfig(
        methods=["sft", "rl"],
        epochs=0.5,
        validation_samples=0,
        num_samples=1,
        validation=0.25,
        max_new_tokens=4,
        lora={"rank": 2},
        hyperparameters={"sft": {"learning_rate": 1e-2}, "rl": {"learning_rate": 1e-2}},
    )
