"""Fits of the autopilot: each is a process of its own, which steps back behind others and can be stopped."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from editloop.autopilot.children import Child
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.stages import Lineage

__all__ = ["CommandFitter", "FitResult", "Fitter", "held_out_figures"]

HELD_OUT_SAMPLES = 64
"""Held-out requests for which drafts of the policy and of the champion are compared with the edits."""

FULL_BYTES = 1_000_000
"""A disk with less room counts as full: a fit may not have been able to write its own error there."""


class FitResult(NamedTuple):
    """How a fit has ended.

    Attributes:
        run: The run folder.
        error: Why there are no policies that may go on; empty if there are.
        unevaluated: Why an evaluation on the held-out requests has failed; empty if none has.
    """

    run: Path
    error: str = ""
    unevaluated: str = ""


class Fitter(Protocol):
    """What fits a generation, beside the autopilot."""

    def start(
        self,
        lineage: Lineage,
        champion: Path | None = None,
        start: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Begin a fit, or continue the one that was interrupted in the same run folder.

        Args:
            lineage: Where the generation comes from, and its run folder.
            champion: The run folder of the champion, which is evaluated on the same held-out requests.
            start: The policy at whose adapter it begins, as `fit --start` takes it; None for the base.
            user: Whose rows are read; None for everybody's.

        Raises:
            AutopilotError: It cannot begin.
        """
        ...

    def poll(self) -> FitResult | None:
        """How the fit has ended; None while it goes on, or if there is none."""
        ...

    def stop(self) -> None:
        """Stop the fit, if there is one, and wait for its end."""
        ...


class CommandFitter:
    """Fits by the commands `editloop fit` and `evaluate`, whose output goes to a file beside the run folder.

    Args:
        command: How the command is called. It has to end with this process, even if that is killed.
        store: The address of the store.
        base: The base that the policies are of.
        config: The configuration.
        options: Further flags of `editloop fit`.
        environment: What the commands find in their environment beside that of this process, such as a
            password, which every user of the machine could see among the arguments.
    """

    def __init__(
        self,
        command: Sequence[str],
        store: str,
        base: str,
        config: AutopilotConfig,
        options: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._child = Child(command, config.niceness, environment)
        self._store, self._base = store, base
        self._config, self._options = config, tuple(options)
        self._run = Path()
        self._left: list[list[str]] = []  # the commands that have not ended, the running one first
        self._is_there = False
        self._unevaluated = ""
        self._lock = threading.RLock()  # a lease that is lost stops the fit from another thread

    def start(
        self,
        lineage: Lineage,
        champion: Path | None = None,
        start: Path | None = None,
        user: str | None = None,
    ) -> None:
        """Begin or continue a fit; see `Fitter`."""
        self._run, hold_out = Path(lineage.run), self._config.hold_out
        # Six digits and not `repr`, whose 1e-05 has a hyphen of its own.
        fit = ["fit", self._log(lineage, f"{hold_out:.6f}-1"), "--base", self._base, "--out", str(self._run)]
        fit += ["--methods", self._config.learn_from, "--reference", self._config.reference]
        fit += ["--start", str(start)] if start is not None else []
        whose = ["--user", user] if user is not None else []
        fit += whose
        fit += ["--memory", self._config.fit_memory] if self._config.fit_memory else []
        runs = [self._run, champion] if champion is not None else [self._run]
        held_out = self._log(lineage, f"0-{hold_out:.6f}")
        samples = ["--samples", str(HELD_OUT_SAMPLES), *whose]
        with self._lock:
            # A fit that was done before this process began is not begun again: what it read is not kept, and
            # the store would give other rows by now.
            self._left = [] if _is_done(self._run) else [[*fit, *self._options]]
            self._left += [["evaluate", str(run), held_out, *samples] for run in runs] if hold_out else []
            self._is_there, self._unevaluated = True, ""
            self._launch_next()

    def _log(self, lineage: Lineage, part: str) -> str:
        """The address of the rows that a generation may read: a part of the requests, up to its time."""
        return f"{self._store}{'&' if '?' in self._store else '?'}until={lineage.until!r}&part={part}"

    def _launch_next(self) -> None:
        """Launch the next command, if one is left."""
        if self._left:
            self._child.launch(self._left[0], self._run.with_suffix(".log"))

    def poll(self) -> FitResult | None:
        """How the fit has ended; see `Fitter`."""
        with self._lock:
            if self._child.is_there:
                if (status := self._child.poll()) is None:
                    return None
                verb = self._left.pop(0)[0]
                if status != 0 and not self._may_go_on(verb, status):
                    self._left, self._is_there = [], False
                    return FitResult(self._run, f"`{verb}` ended with {status}: {_why(self._run)}")
            if not self._child.is_there:  # also one that could not be launched at the last look
                self._launch_next()
            if self._child.is_there or not self._is_there:
                return None
            self._is_there = False
            return FitResult(self._run, unevaluated=self._unevaluated)

    def _may_go_on(self, verb: str, status: int) -> bool:
        """Whether a command that has failed is no reason to give the generation up.

        An evaluation leaves the gates on held-out requests open when it ends with an error of its own, for
        there may be no such request yet. One that was killed, perhaps for its memory, or that found the disk
        full could have closed them.
        """
        if verb == "fit" or status < 0 or _is_full(self._run.parent):
            return False
        self._unevaluated = _last_line(self._run.with_suffix(".log"))
        return True

    def stop(self) -> None:
        """Stop the fit; see `Fitter`."""
        with self._lock:
            self._left, self._is_there = [], False
            self._child.stop()


def _is_done(run: Path) -> bool:
    """Whether the fit in a run folder has ended."""
    with suppress(OSError, ValueError, AttributeError):
        return bool(json.loads((run / "run.json").read_text(encoding="utf-8")).get("status") == "done")
    return False


def held_out_figures(run: Path, name: str, until: float) -> dict[str, Any] | None:
    """What `evaluate` found of a policy on the held-out requests up to a time; None if there were none."""
    for file in run.glob("evaluation-*.json"):
        # A run folder may have other evaluations, too, also broken ones; the time is in the log's address.
        with suppress(OSError, ValueError, KeyError, TypeError):
            found = json.loads(file.read_text(encoding="utf-8"))
            if f"until={until!r}" in found["log"]["path"] and name in found["policies"]:
                return dict(found["policies"][name])
    return None


def _why(run: Path) -> str:
    """Why a fit has failed: the last line of its output, and whether the disk is full."""
    line = _last_line(run.with_suffix(".log"))
    return f"{line} (no space is left on the disk)" if _is_full(run.parent) else line


def _is_full(folder: Path) -> bool:
    with suppress(OSError):
        return shutil.disk_usage(folder).free < FULL_BYTES
    return False


def _last_line(path: Path) -> str:
    """The last line of a file that says something, shortened."""
    with suppress(OSError):
        lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "no output")
    return "no output"
