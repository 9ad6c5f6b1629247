"""Jobs in processes of their own that share the cores, and whose progress is passed on to the caller."""

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
"""The name of a method of a callback, and its arguments."""

MOST = 8
"""The most processes at a time. They all share the memory of one GPU, if there is one."""


def cores() -> int:
    """Return the number of cores that this process may use, which `taskset` and containers can limit."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS and Windows have no such function
        return os.cpu_count() or 1


def in_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], task: str, callback: ProgressCallback
) -> Iterator[tuple[Job, Result]]:
    """Yield each job with its result, in the order in which they end; after a failure no further one begins.

    Args:
        work: A function at the top level of a module, so that another process can import it.
        jobs: What it is called with, one at a time.
        task: The name of the task whose progress is reported: the number of jobs that are done.
        callback: Receives that progress, and what the jobs report through a `RelayedCallback`. It is called
            from two threads.

    Raises:
        RunError: A process was killed. An exception of a job is raised as it is.
    """
    # Spawned, not forked: a CUDA context and the threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(cores(), MOST, len(jobs)))
    events = context.Queue()
    initial = (max(1, cores() // workers), events)
    with (
        # Around the pool: a process does not end before its events have been read from the queue, so the pool
        # would wait for ever if reading ended first.
        _passed_on(events, callback),
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
        except BaseException:  # an interrupt, too, and a caller who takes no further result
            pool.shutdown(wait=False, cancel_futures=True)
            raise


PROGRESS_INTERVAL = 0.2
"""Seconds between two reports of a job about one task, because each report is sent to another process."""


class RelayedCallback:
    """A progress callback for a job. It passes everything on to the callback of `in_parallel`.

    It may be made in the calling process and sent along with the job, but only the job's process can use it.

    Args:
        label: A prefix of every message and task, which tells the jobs apart.
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
"""In the process of a job, the queue for its events.

A global variable, because a queue can be given to a process only when it starts, not with a job.
"""


def _send(name: str, *arguments: Any) -> None:
    assert _events is not None, "a RelayedCallback was used outside of a job of in_parallel"
    _events.put((name, arguments))


@contextmanager
def _passed_on(events: Queue[Event], callback: ProgressCallback) -> Iterator[None]:
    """Give the events of the jobs to the callback, in a thread, for as long as the block runs.

    An error of the callback is raised at the end of the block.
    """
    ended = threading.Event()
    failures: list[Exception] = []

    def pass_on() -> None:
        while True:
            # Asked before the queue: otherwise an event that comes after the queue was found empty, and
            # before the end, would be lost.
            over = ended.is_set()
            try:
                name, arguments = events.get(timeout=PROGRESS_INTERVAL)
            except Empty:
                if over:
                    return
                continue
            # After an error the queue is still emptied: a process whose events nobody reads never ends.
            if not failures:
                try:
                    getattr(callback, name)(*arguments)
                except Exception as error:  # the callback is the caller's own
                    failures.append(error)

    thread = threading.Thread(target=pass_on, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
    if failures:
        raise failures[0]


def _start(threads: int, events: Queue[Event]) -> None:
    """Prepare a process for its jobs."""
    requires("train", "torch")
    import torch

    global _events
    _events = events
    warnings.simplefilter("ignore")  # as in the command that started it
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """Wait for the end of the parent process, and end this one.

    A parent that is killed cannot end its processes, and they would go on beside its next run.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # `sys.exit` would end this thread only
