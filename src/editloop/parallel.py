"""Jobs in processes of their own, which share the cores, and how their progress reaches who waits."""

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
"""Processes at a time: a GPU's memory and a laptop's fan are shared by all."""


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def in_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], task: str, callback: ProgressCallback
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, as they end. After one that fails no further one is begun.

    Args:
        work: A function of a module, so that a process can find it.
        jobs: What it is called with, one at a time.
        task: The name under which the callback hears of progress.
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
                "a process of the benchmark was killed, for want of memory perhaps",
                do="run it again: what is done is kept",
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


PROGRESS_INTERVAL = 0.2
"""Seconds between two reports of a job on the progress of one task: each crosses to another process."""


class RelayedCallback:
    """A progress callback for a job in another process: what it hears reaches the callback given to `relay`.

    Args:
        queue: From `relay`.
        label: Stands before every line and every task, to tell the jobs apart.
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
    """Within it, a queue for `RelayedCallback`; what comes through it is passed on to the callback."""
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
