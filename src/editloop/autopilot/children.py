"""Commands that the autopilot runs beside itself, one at a time.

They step back behind other processes, can be stopped, and end with the autopilot, however that ends.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from editloop.errors import AutopilotError

__all__ = ["NICENESS", "Child"]

NICENESS = "EDITLOOP_NICENESS"
"""The variable of the environment that says how far a command steps back behind other processes."""

STOP_SECONDS = 10.0
"""Seconds in which a command has to end when it is stopped, before it is killed."""


class Child:
    """A command that runs beside this process.

    Args:
        command: How it is called, up to its arguments. It has to end when its standard input is closed.
        niceness: How far it steps back.
        environment: What it finds in its environment beside that of this process, such as a password, which
            every user of the machine could see among the arguments.
    """

    def __init__(
        self, command: Sequence[str], niceness: int, environment: Mapping[str, str] | None = None
    ) -> None:
        self._command = tuple(command)
        self._environment = {**(environment or {}), NICENESS: str(niceness)}
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def is_there(self) -> bool:
        """Whether a command was launched whose end `poll` has not returned yet."""
        return self._process is not None

    def launch(self, arguments: Sequence[str], output: Path) -> None:
        """Launch the command.

        Args:
            arguments: Its arguments, the verb first.
            output: The file to whose end it writes what it prints.

        Raises:
            AutopilotError: It cannot begin.
        """
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            with output.open("ab") as file:
                # Its standard input is a pipe whose other end closes with this process, however that ends.
                self._process = subprocess.Popen(
                    [*self._command, *arguments],
                    stdin=subprocess.PIPE,
                    stdout=file,
                    stderr=file,
                    env={**os.environ, **self._environment},
                )
        except OSError as error:
            raise AutopilotError(
                f"`{arguments[0]}` cannot begin, {error.strerror}", seen=str(output)
            ) from error

    def poll(self) -> int | None:
        """The exit status of a command that has ended, once; None while it runs, or if there is none."""
        if self._process is None or (status := self._process.poll()) is None:
            return None
        self._close()
        return status

    def stop(self) -> None:
        """Stop the command, if there is one, and wait for its end."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        assert self._process is not None and self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        self._process = None
