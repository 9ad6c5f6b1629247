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
from typing import Any, TypeVar

from editloop.errors import RunError
from editloop.extras import requires
from editloop.progress import ProgressCallback

Job = TypeVar("Job")
Result = TypeVar("Result")

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
        callback: Receives it.

    Raises:
        RunError: A process was killed.
    """
    # Spawned, not forked: a CUDA context and the threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = max(1, min(cores(), MOST, len(jobs)))
    with ProcessPoolExecutor(
        workers, context, initializer=_start, initargs=(max(1, cores() // workers),)
    ) as pool:
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
    """A progress callback for a job in another process: it passes everything on to the callback of `relay`.

    Args:
        queue: From `relay`.
        label: A prefix of every message and task, by which the jobs can be distinguished.
    """

    def __init__(self, queue: Any, label: str) -> None:
        self.queue, self.label = queue, label
        self.sent: dict[str, float] = {}

    def message(self, line: str) -> None:
        """Relay the line."""
        self.queue.put(("message", (self.label + line,)))

    def warn(self, line: str) -> None:
        """Relay the warning."""
        self.queue.put(("warn", (self.label + line,)))

    def progress(self, task: str, done: int, total: int, note: str = "") -> None:
        """Relay the progress, a few times a second and at the end."""
        now = time.monotonic()
        if done >= total or now - self.sent.get(task, 0.0) >= PROGRESS_INTERVAL:
            self.sent[task] = now
            self.queue.put(("progress", (self.label + task, done, total, note)))


@contextmanager
def relay(callback: ProgressCallback) -> Iterator[Any]:
    """Return a context manager with a queue for `RelayedCallback`; its events reach the callback."""
    with multiprocessing.get_context("spawn").Manager() as manager:
        queue = manager.Queue()

        def pass_on() -> None:
            while (event := queue.get()) is not None:
                name, arguments = event
                getattr(callback, name)(*arguments)

        thread = threading.Thread(target=pass_on, daemon=True)
        thread.start()
        try:
            yield queue
        finally:
            queue.put(None)
            thread.join()


def _start(threads: int) -> None:
    requires("train", "torch")
    import torch

    warnings.simplefilter("ignore")  # as in the command that started it
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()


def _end_with_the_parent() -> None:
    """A parent that is killed cannot end its processes: they would go on beside its next run."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
