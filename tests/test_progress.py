"""Progress without a terminal: a line now and then, with the time that is left."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from editloop import progress
from editloop.progress import ConsoleCallback, show_duration


def test_durations_in_words() -> None:
    seconds = (0.4, 89, 90, 700, 7170, 7500)
    assert [show_duration(each) for each in seconds] == [
        "0 s",
        "89 s",
        "2 min",
        "12 min",
        "2 h 00 min",
        "2 h 05 min",
    ]


def test_a_line_every_30_seconds_says_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = [1000.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    callback = ConsoleCallback(Console(file=out, soft_wrap=True))
    for second in range(101):
        now[0] = 1000.0 + second
        callback.progress("dpo", second + 1, 101, "loss 1")
    # One unit a second: what is left is as many seconds as units.
    assert out.getvalue().splitlines() == [
        "  dpo 32/101, 69 s left, loss 1",
        "  dpo 63/101, 38 s left, loss 1",
        "  dpo 94/101, 7 s left, loss 1",
    ]


def test_a_task_of_the_same_name_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    now, out = [0.0], io.StringIO()
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    callback = ConsoleCallback(Console(file=out, soft_wrap=True))
    for done in (1, 2):
        callback.progress("validation", done, 2)
    for now[0], done in ((1000.0, 1), (1040.0, 2)):
        callback.progress("validation", done, 5)
    assert out.getvalue().splitlines() == ["  validation 1/5", "  validation 2/5, 2 min left"]
