"""Running the fits of a sweep: in processes here, or as jobs of Slurm by submitit.

Each is a command line of its own that goes on where it was stopped, so a sweep is resumed by starting it
again: what is done is not begun, and a fit that was killed continues from its last checkpoint.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from editloop.errors import ConfigError, RunError
from editloop.extras import requires
from editloop.io import write_json
from editloop.offline.sweep.grid import SweepRun
from editloop.policy import RunFolder

__all__ = ["Fitter", "Pool", "Slurm", "is_done", "open_sweep"]

RECORD = "sweep.json"
"""The file of a sweep's folder with the command line of each run."""

POLL_SECONDS = 0.2
"""Seconds between two looks at the fits that run."""


@dataclass(frozen=True)
class Fitter:
    """A fit that can be sent to another machine: called, it runs there and returns its exit status.

    Attributes:
        command: How the command is called, up to its arguments. It ends when its standard input is closed.
        arguments: Its arguments.
        output: The file to whose end it writes what it prints.
    """

    command: tuple[str, ...]
    arguments: tuple[str, ...]
    output: Path

    def __call__(self) -> int:
        """Run the fit, and return its exit status."""
        with self.launch() as process:
            return process.wait()

    def launch(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Begin the fit, with more in its environment than this process has.

        Raises:
            RunError: It cannot begin.
        """
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
            with self.output.open("ab") as file:
                # Its standard input is a pipe whose other end closes with this process: a fit that outlived
                # its sweep would go on beside the one that the next sweep begins in the same folder.
                return subprocess.Popen(
                    [*self.command, *self.arguments],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **(environment or {})},
                )
        except OSError as error:
            raise RunError(f"a fit cannot begin, {error.strerror}", seen=str(self.output)) from error

    def checkpoint(self) -> Any:
        """What submitit sends anew after a time limit or a preemption: the same fit, which goes on."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


def is_done(folder: Path) -> bool:
    """Whether a run folder holds a finished fit."""
    run = RunFolder(folder)
    return run.exists() and run.manifest().status == "done"


def open_sweep(out: Path, runs: Sequence[SweepRun]) -> None:
    """Note the command lines of the runs in the sweep's folder, beside those that are there.

    Raises:
        RunError: A run of the same values was begun there with other arguments, or it cannot be written.
    """
    file, known = out / RECORD, dict[str, Any]()
    if file.is_file():
        with suppress(ValueError, TypeError, KeyError):
            known = dict(json.loads(file.read_text(encoding="utf-8"))["runs"])
    for run in runs:
        before = known.get(run.name)
        if before is not None and before["arguments"] != list(run.arguments):
            raise RunError(
                "the folder has this run of another sweep, with other arguments",
                seen=run.name,
                do="choose another --out",
            )
        known[run.name] = {"values": run.values, "arguments": list(run.arguments)}
    write_json(file, {"runs": known}, RunError)


@dataclass(frozen=True)
class Pool:
    """Fits in processes on this machine, so many at a time.

    Attributes:
        jobs: The most fits at a time.
        environment: What each fit finds in its environment, by the place in the pool that it has.
    """

    jobs: int
    environment: Callable[[int], Mapping[str, str]]

    def run(self, fits: Mapping[str, Fitter]) -> Iterator[tuple[str, int]]:
        """Yield each fit's name and exit status in the order of their ends; that of a signal is negative."""
        waiting, running = list(fits.items()), dict[int, tuple[str, subprocess.Popen[bytes]]]()
        try:
            while waiting or running:
                for place in range(self.jobs):
                    if place not in running and waiting:
                        name, fit = waiting.pop(0)
                        running[place] = name, fit.launch(self.environment(place))
                time.sleep(POLL_SECONDS)
                for place, (name, process) in list(running.items()):
                    if (status := process.poll()) is not None:
                        del running[place]
                        _end(process)
                        yield name, status
        finally:  # an interrupt, too, and a caller who takes no further result
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Wait for the end of a process, and close the pipe to it."""
    process.wait()
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


@dataclass(frozen=True)
class Slurm:
    """Fits as jobs of a cluster, by submitit.

    Attributes:
        folder: Where submitit keeps its files, which all machines of the cluster see.
        cluster: `slurm`, or submitit's `local`, which needs no cluster.
        jobs: The most jobs at a time.
        options: Parameters of submitit's executor: `timeout_min`, `gpus_per_node`, `slurm_partition` ...
    """

    folder: Path
    cluster: str
    jobs: int
    options: Mapping[str, Any] = field(default_factory=dict)

    def run(self, fits: Mapping[str, Fitter]) -> Iterator[tuple[str, int]]:
        """Yield each fit's name and exit status, in the order in which they end.

        A job that an earlier sweep submitted and that still waits or runs is waited for, not submitted anew.

        Raises:
            ConfigError: There is no such cluster here, or no such option.
        """
        import submitit

        executor = self._executor()
        known = self._known()
        jobs: dict[str, Any] = {}
        if self.cluster == "slurm":
            attached = {name: submitit.SlurmJob(self.folder, known[name]) for name in fits if name in known}
            jobs = {name: job for name, job in attached.items() if not job.done()}
        new = [name for name in fits if name not in jobs]
        if new:
            # As one array, of which Slurm runs so many jobs at a time.
            jobs |= zip(new, executor.submit_array([fits[name] for name in new]), strict=True)
        write_json(self._file, known | {name: job.job_id for name, job in jobs.items()}, RunError)
        while jobs:
            for name, job in list(jobs.items()):
                if job.done():
                    del jobs[name]
                    yield name, _status(job)
            time.sleep(POLL_SECONDS if jobs else 0.0)

    @property
    def _file(self) -> Path:
        return self.folder / "jobs.json"

    def _known(self) -> dict[str, str]:
        """The numbers of the jobs that were submitted before, by the names of their runs."""
        with suppress(OSError, ValueError):
            return dict(json.loads(self._file.read_text(encoding="utf-8")))
        return {}

    def _executor(self) -> Any:
        requires("slurm")
        import submitit

        try:
            executor = submitit.AutoExecutor(self.folder, cluster=self.cluster)
            parallel = {"slurm_array_parallelism": self.jobs} if self.cluster == "slurm" else {}
            executor.update_parameters(**{**parallel, **self.options})
        except (RuntimeError, ValueError, NameError, TypeError, AssertionError) as error:
            line = str(error).strip().partition("\n")[0]
            raise ConfigError(f"the jobs cannot be submitted, {line}", seen=self.cluster) from error
        return executor


def _status(job: Any) -> int:
    """Return the exit status of a job's fit; 1 where the job itself was ended, by the cluster for example."""
    import submitit

    try:
        return int(job.result())
    except (submitit.core.utils.UncompletedJobError, submitit.core.utils.FailedJobError):
        return 1
