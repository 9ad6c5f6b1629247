"""What is run in a sandbox, within which limits, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import PositiveFloat, PositiveInt

from editloop.configuration import Configuration, setting

__all__ = ["Execution", "Limits", "Program", "Status"]

MIB = 2**20

LONGEST = 2000
"""The most characters of a value that are answered and compared."""

Status = Literal["done", "failed", "timeout", "output", "crashed", "refused"]
"""What became of a program: `done`, it ran to its end; `failed`, it raised an exception or left; `timeout`,
it used up its time; `output`, it answered with more than it may; `crashed`, it died without an answer, of a
signal for example; `refused`, it was too large to be run."""


class Limits(Configuration):
    """What a program may use. All hold for one program; a pool runs as many at a time as it has workers."""

    seconds: PositiveFloat = setting(5.0, "The most seconds by the clock.", section="Limits")
    cpu_seconds: PositiveInt = setting(
        4, "The most seconds of processor time of a process.", section="Limits"
    )
    memory_mib: PositiveInt = setting(256, "The address space of each process, in MiB.", section="Limits")
    processes: PositiveInt = setting(8, "The most processes and threads at a time.", section="Limits")
    disk_mib: PositiveInt = setting(
        8, "What may be written to /tmp, the only place there is, in MiB.", section="Limits"
    )
    output_kib: PositiveInt = setting(64, "The longest answer, in KiB.", section="Limits")
    code_kib: PositiveInt = setting(256, "The longest program, in KiB.", section="Limits")


@dataclass(frozen=True)
class Program:
    """A program: a script, or calls of a function that it defines.

    A script passes if it runs to its end, so it has its own tests. It runs in the same interpreter as what it
    tests, and a program that wants to can pretend to have passed. Calls cannot be cheated in this way: what
    they should give is compared outside and never enters the sandbox.

    Attributes:
        code: Python.
        function: The name of the function that is called; empty for a script.
        calls: The arguments of each call, of Python's plain types: None, numbers, texts, lists, tuples,
            dicts.
    """

    code: str
    function: str = ""
    calls: tuple[tuple[Any, ...], ...] = ()

    def request(self, limits: Limits) -> bytes:
        """Return what the process inside reads from its standard input."""
        asked: Mapping[str, Any] = {
            "code": self.code,
            "function": self.function,
            "calls": [repr(arguments) for arguments in self.calls],
            "longest": LONGEST,
            "limits": {
                "RLIMIT_CPU": limits.cpu_seconds,
                "RLIMIT_AS": limits.memory_mib * MIB,
                "RLIMIT_NPROC": limits.processes,
                "RLIMIT_FSIZE": limits.disk_mib * MIB,
                "RLIMIT_NOFILE": 64,
                "RLIMIT_CORE": 0,
                "RLIMIT_MEMLOCK": 0,
                "RLIMIT_MSGQUEUE": 0,
            },
        }
        return json.dumps(asked).encode()


@dataclass(frozen=True)
class Execution:
    """What came of a program.

    Attributes:
        status: See `Status`.
        detail: Why it is not `done`, in one line; empty if it is.
        values: The `repr` of what each call returned, or `raised NAME` for an exception; empty for a script,
            and for a program that was not `done`.
        seconds: How long it took by the clock.
    """

    status: Status
    detail: str = ""
    values: tuple[str, ...] = field(default=())
    seconds: float = 0.0

    @property
    def done(self) -> bool:
        """Whether the program ran to its end."""
        return self.status == "done"

    def gives(self, expected: tuple[str, ...]) -> bool:
        """Return whether the calls gave just these values, each as its `repr`, to its first characters."""
        return self.done and self.values == tuple(value[:LONGEST] for value in expected)
