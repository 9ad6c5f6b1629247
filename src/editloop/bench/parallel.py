"""Jobs of a benchmark in processes of their own, one torch thread each where there are several."""

from __future__ import annotations

import multiprocessing
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from typing import TypeVar

from editloop.listener import Listener

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


def processes(jobs: int) -> int:
    """Processes at a time for so many jobs."""
    return max(1, min(cores(), MOST, jobs))


def in_parallel(
    work: Callable[[Job], Result], jobs: Sequence[Job], task: str, listener: Listener
) -> Iterator[tuple[Job, Result]]:
    """Each job with its result, as they end. A job that fails ends the others, and its error is raised.

    Args:
        work: A function of a module, so that a process can find it.
        jobs: What it is called with, one at a time.
        task: The name under which the listener hears of progress.
        listener: Hears of it.
    """
    # Spawned, not forked: a CUDA context and the threads of torch do not survive a fork.
    context = multiprocessing.get_context("spawn")
    workers = processes(len(jobs))
    with ProcessPoolExecutor(
        workers, context, initializer=_start, initargs=(max(1, cores() // workers),)
    ) as pool:
        futures = {pool.submit(work, job): job for job in jobs}
        listener.progress(task, 0, len(jobs))
        try:
            for done, future in enumerate(as_completed(futures), 1):
                yield futures[future], future.result()
                listener.progress(task, done, len(jobs))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(threads: int) -> None:
    import torch

    warnings.simplefilter("ignore")  # as in the command that started it
    torch.set_num_threads(threads)
