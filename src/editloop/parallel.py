"""Jobs in processes of their own that share the cores, and the way of their progress back to the caller."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.queues import Queue
from queue import Empty
from typing import Any, TypeVar

from editloop.errors import RunError
from editloop.extras import requires
from editloop.progress import ProgressCallback

Job = TypeVar("Job")
Result = TypeVar("Result")
Event = tuple[str, tuple[Any, ...]]
"""A method of a callback, and its arguments."""

MOST = 8
"""The most processes at a time: all of them share the memory of one GPU, if there is one."""


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def in_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], task: str, callback: ProgressCallback
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with its result, in the order in which they end; after a failure no further one begins.

    Args:
        work: A function at the top level of a module, so that another process can import it.
        jobs: What it is called with, one at a time.
        task: The name of the task in the progress.
        callback: Receives it, and what the jobs report through a `RelayedCallback`.

    Raises:
        RunError: A process was killed.
    """
    # Spawned, not forked: a CUDA context and the threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(cores(), MOST, len(jobs)))
    events = context.Queue()
    initial = (max(1, cores() // workers), events)
    with (
        _passed_on(events, callback),  # around the pool, whose processes end when their events were read
        ProcessPoolExecutor(workers, context, initializer=_start, initargs=initial) as pool,
    ):
        futures = {pool.submit(work, job): job for job in jobs}
        callback.progress(task, 0, len(jobs))
        try:
            for done, future in enumerate(as_completed(futures), 1):
                yield futures[future], future.result()
                callback.progress(task, done, len(jobs))
        except BrokenProcessPool as error:
            raise RunError(
                "a process was killed, perhaps because there was not enough memory",
                do="run it again: finished jobs are kept",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


PROGRESS_INTERVAL = 0.2
"""Seconds between two reports of a job on the progress of one task: each crosses to another process."""


class RelayedCallback:
    """A progress callback for a job: it passes everything on to the callback of `in_parallel`.

    It is made where the jobs are, and used in the process of its job alone.

    Args:
        label: A prefix of every message and task, by which the jobs can be distinguished.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.sent: dict[str, float] = {}

    def message(self, line: str) -> None:
        """Relay the line."""
        _send("message", self.label + line)

    def warn(self, line: str) -> None:
        """Relay the warning."""
        _send("warn", self.label + line)

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Relay the progress, a few times a second and at the end."""
        now = time.monotonic()
        if done >= total or now - self.sent.get(task, 0.0) >= PROGRESS_INTERVAL:
            self.sent[task] = now
            _send("progress", self.label + task, done, total, note)


_events: Queue[Event] | None = None
"""Where the events of a job go, in its process: a queue can be given to a process only when it starts."""


def _send(name: str, *arguments: Any) -> None:
    assert _events is not None, "a RelayedCallback was used outside of a job of in_parallel"
    _events.put((name, arguments))


@contextmanager
def _passed_on(events: Queue[Event], callback: ProgressCallback) -> Iterator[None]:
    """Within it, a thread hands the events of the jobs to the callback."""
    ended = threading.Event()

    def pass_on() -> None:
        while True:
            over = ended.is_set()  # asked first: an event may come between an empty queue and the end
            try:
                name, arguments = events.get(timeout=PROGRESS_INTERVAL)
            except Empty:
                if over:
                    return
                continue
            getattr(callback, name)(*arguments)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _start(threads: int, events: Queue[Event]) -> None:
    requires("train", "torch")
    import torch

    global _events
    _events = events
    warnings.simplefilter("ignore")  # as in the command that started it
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that is killed cannot end its processes: they would go on beside its next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
