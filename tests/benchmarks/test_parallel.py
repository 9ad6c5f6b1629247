"""Jobs in processes: every job has its result, and neither a failure nor a kill leaves a process behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from editloop.errors import ConfigError, RunError
from editloop.parallel import RelayedCallback, in_parallel
from editloop.progress import WarningCallback


def square(number: int) -> int:
    if number < 0:
        raise ConfigError("a negative number", seen=number)
    if number == 99:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_every_job_has_its_result() -> None:
    assert dict(in_parallel(square, [3, 1, 2], "squares", WarningCallback())) == {1: 1, 2: 4, 3: 9}


def test_an_error_and_a_kill_are_one_line() -> None:
    with pytest.raises(ConfigError, match="a negative number: -1"):
        dict(in_parallel(square, [1, -1], "squares", WarningCallback()))
    with pytest.raises(RunError, match="a process was killed"):
        dict(in_parallel(square, [99], "squares", WarningCallback()))


SLEEPER = """
import os, sys, time
from editloop.parallel import in_parallel
from editloop.progress import WarningCallback

def sleep(note):
    open(note, "w").write(str(os.getpid()))
    time.sleep(60)

if __name__ == "__main__":
    list(in_parallel(sleep, [sys.argv[1]], "sleep", WarningCallback()))
"""


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_parent_that_is_killed_takes_its_processes_along(tmp_path: Path) -> None:
    script, note = tmp_path / "sleeper.py", tmp_path / "pid"
    script.write_text(SLEEPER)
    parent = subprocess.Popen([sys.executable, script, note])
    deadline = time.monotonic() + 60
    while not (note.is_file() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.1)
    child = int(note.read_text())
    parent.kill()
    parent.wait()
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_alive(child)


class RecordingCallback:
    """Keeps the events that it receives."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def message(self, line: str) -> None:
        self.events.append(("message", line))

    def warn(self, line: str) -> None:
        self.events.append(("warn", line))

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        self.events.append(("progress", task, done, total, note))


class FailingCallback(RecordingCallback):
    """Cannot receive a warning."""

    def warn(self, line: str) -> None:
        raise ConfigError("cannot print", seen=line)


def report(callback: RelayedCallback) -> int:
    callback.message("begins")
    for done in range(1, 1001):
        callback.progress("rows", done, 1000, "fine")
    callback.warn("ends")
    return 1


def test_a_jobs_progress_reaches_the_process_that_waits() -> None:
    callback = RecordingCallback()
    jobs = [RelayedCallback("first: ")]
    (done,) = [result for _, result in in_parallel(report, jobs, "jobs", callback)]
    assert done == 1
    relayed = [event for event in callback.events if str(event[1]).startswith("first: ")]
    assert relayed[0] == ("message", "first: begins")
    assert relayed[-2:] == [("progress", "first: rows", 1000, 1000, "fine"), ("warn", "first: ends")]
    assert len(relayed) < 100  # only a few of a thousand steps are relayed


def test_an_error_of_the_callback_is_raised() -> None:
    with pytest.raises(ConfigError, match="cannot print: 'ends'"):
        list(in_parallel(report, [RelayedCallback("")], "jobs", FailingCallback()))
