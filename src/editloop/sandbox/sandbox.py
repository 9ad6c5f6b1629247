"""Bubblewrap around an interpreter, and a pool of them.

Each program has a process of its own in namespaces of its own: it sees no other process, no network, no
file but the read-only system with its Python, and an empty /tmp in memory. Process limits do not hold for
root, so root first becomes an unprivileged user. Nothing is ever run outside: without namespaces there is
no sandbox.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from editloop.errors import SandboxError
from editloop.parallel import cores
from editloop.sandbox.program import MIB, Execution, Limits, Program, Status
from editloop.sandbox.syscalls import syscall_filter

__all__ = ["Sandbox", "sandbox_command"]

NOBODY = 65534
"""The user and group that a program runs as where this process is root."""

SYSTEM = ("/bin", "/lib", "/lib64", "/lib32", "/sbin")
"""Folders of the system beside /usr; on most systems links into it."""

ADVICE = (
    "allow unprivileged user namespaces: sysctl kernel.unprivileged_userns_clone=1, on Ubuntu also "
    "kernel.apparmor_restrict_unprivileged_userns=0, or in a container --security-opt seccomp=unconfined "
    "--security-opt systempaths=unconfined"
)

GRACE = 1.0
"""Seconds that a program has to be gone after its answer has ended."""

STARTED_WITHIN = 20.0
"""Seconds that the trial of a sandbox may take, on a machine that is busy."""


def sandbox_command(limits: Limits) -> list[str]:
    """Return the command that starts the interpreter inside, which reads a request (`Program.request`).

    Raises:
        SandboxError: A program that this needs is not installed, or this is not Linux.
    """
    if not sys.platform.startswith("linux"):
        raise SandboxError("the sandbox needs Linux", seen=sys.platform, do="run this in a Linux machine")
    inside = (Path(__file__).parent / "inside.py").read_text(encoding="utf-8")
    executable, command = _interpreter(), list[str]()
    if os.geteuid() == 0:
        ids = (f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
        # The bounding set stays as it is: bubblewrap needs it to set up the namespaces, and then drops it.
        command += [_found("setpriv", "util-linux"), *ids, "--inh-caps=-all"]
    command += [_found("bwrap", "bubblewrap"), "--unshare-all", "--unshare-user", "--disable-userns"]
    command += [
        "--die-with-parent",
        "--new-session",
        "--cap-drop",
        "ALL",
        "--hostname",
        "sandbox",
        "--clearenv",
    ]
    for name, value in {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "LANG": "C.UTF-8"}.items():
        command += ["--setenv", name, value]
    command += ["--ro-bind", "/usr", "/usr"]
    for folder in map(Path, SYSTEM):
        if folder.is_symlink():
            command += ["--symlink", str(folder.readlink()), str(folder)]
        elif folder.is_dir():
            command += ["--ro-bind", str(folder), str(folder)]
    if not executable.is_relative_to("/usr"):
        command += ["--ro-bind", str(executable.parents[1]), str(executable.parents[1])]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache", "--proc", "/proc", "--dev", "/dev"]
    command += ["--size", str(limits.disk_mib * MIB), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    # What bubblewrap made in memory for / and /dev has no limit of size, so that neither may be written to.
    command += ["--remount-ro", "/dev", "--remount-ro", "/", "--"]
    return [*command, str(executable), "-I", "-S", "-B", "-X", "utf8", "-c", inside]


class Sandbox:
    """Runs programs, some at a time.

    Args:
        limits: What each program may use.
        workers: How many run at a time; by default one for each core.

    Raises:
        SandboxError: No sandbox can be made here. The message says what is missing and what to do.
    """

    def __init__(self, limits: Limits | None = None, *, workers: int | None = None) -> None:
        self.limits, self.workers = limits or Limits(), workers or cores()
        self._command, self._filter = sandbox_command(self.limits), syscall_filter()
        try:
            tried = self._run(Program("def f(x):\n    return x + 1", "f", ((1,),)), STARTED_WITHIN)
        except OSError as error:
            raise SandboxError("no sandbox can be made here", seen=str(error)) from error
        if not tried.gives(("2",)):
            reason = tried.detail or tried.status
            old = "unknown option" in reason.lower()
            raise SandboxError(
                f"no sandbox can be made here, {reason}",
                do="install bubblewrap 0.8 or later" if old else ADVICE,
            )

    def run(
        self, programs: Sequence[Program], *, progress: Callable[[int], None] | None = None
    ) -> list[Execution]:
        """Run programs and return what came of each, in their order.

        Args:
            programs: The programs. Whatever they do, each has an `Execution`.
            progress: Called with the number of programs so far.
        """
        found = []
        with ThreadPoolExecutor(self.workers) as pool:
            for execution in pool.map(self._run, programs):
                found.append(execution)
                if progress is not None:
                    progress(len(found))
        return found

    def _run(self, program: Program, seconds: float | None = None) -> Execution:
        limits, started = self.limits, time.monotonic()
        # A lone surrogate cannot be encoded, and is no Python either.
        size = len(program.code.encode("utf-8", "replace"))
        if size > limits.code_kib * 1024:
            return Execution(
                "refused", f"a program of {size // 1024} KiB, where {limits.code_kib} are allowed"
            )
        deadline = started + (seconds or limits.seconds)
        process = self._started(program.request(limits))
        try:
            answer, ending = _read(process, limits.output_kib * 1024, deadline)
            code = None if ending else process.wait(max(deadline - time.monotonic(), GRACE))
        except subprocess.TimeoutExpired:
            answer, ending, code = b"", ("timeout", "it did not end in time"), None
        finally:
            # The namespace dies with the process that made it. Before it is made, a child may be there
            # already that does not know yet that it is to die with its parent, so that the whole session is
            # ended.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        taken = time.monotonic() - started
        if ending is not None:
            return Execution(*ending, seconds=taken)
        return _understood(answer, code, taken)

    def _started(self, request: bytes) -> subprocess.Popen[bytes]:
        """Start the interpreter inside, with a request to read."""
        # The request is a file in memory and not a pipe: a process that does not read cannot make this one
        # wait. The filter is read to its end by each process, so that each gets one of its own.
        with (
            os.fdopen(os.memfd_create("request"), "w+b") as asked,
            os.fdopen(os.memfd_create("filter"), "w+b") as calls,
        ):
            for file, content in ((asked, request), (calls, self._filter)):
                file.write(content)
                file.seek(0)
            place = self._command.index("--")
            filtered = ["--seccomp", str(calls.fileno())] if self._filter else []
            return subprocess.Popen(
                [*self._command[:place], *filtered, *self._command[place:]],
                stdin=asked,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=[calls.fileno()],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            )


def _read(
    process: subprocess.Popen[bytes], most: int, deadline: float
) -> tuple[bytes, tuple[Status, str] | None]:
    """Return what a process writes until it ends, and why it was not read to the end, if it was not."""
    assert process.stdout is not None
    parts, length = list[bytes](), 0
    with process.stdout as pipe:
        waiting = select.poll()  # not `select.select`, which knows the first 1,024 descriptors only
        waiting.register(pipe, select.POLLIN)
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not waiting.poll(1000 * left):
                return b"", ("timeout", "it did not end in time")
            part = os.read(pipe.fileno(), 65536)
            if not part:
                return b"".join(parts), None
            parts.append(part)
            length += len(part)
            if length > most:
                return b"", ("output", f"it answered with more than {most // 1024} KiB")


def _understood(answer: bytes, code: int | None, seconds: float) -> Execution:
    """What an answer says. It may be anything, for the code can write to the same place."""
    # Before it, there may be warnings of the programs that start the interpreter.
    lines = answer.decode("utf-8", "replace").strip().split("\n")
    try:
        found = json.loads(lines[-1])
        status, detail, values = found["status"], found.get("detail", ""), found.get("values", [])
        strings = isinstance(values, list) and all(isinstance(each, str) for each in (detail, *values))
        if status not in ("done", "failed") or not strings:
            raise ValueError(status)
        return Execution(status, _in_a_line(detail), tuple(values), seconds)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        detail = f"{_in_a_line(lines[-1]) or 'no answer'} (exit status {code})"
        return Execution("crashed", detail, seconds=seconds)


def _in_a_line(text: str) -> str:
    """A text that somebody else wrote, so that it can be printed: one line, without control characters."""
    shown = "".join(each if each.isprintable() else " " for each in text[:1000])
    return " ".join(shown.split())[:200]


def _interpreter() -> Path:
    """This Python if it is part of the system, else the system's own, which nobody is kept from reading."""
    own = Path(sys.base_prefix) / "bin" / f"python{sys.version_info.major}.{sys.version_info.minor}"
    system = Path("/usr/bin/python3").resolve()  # it may be a link by way of /etc, which is not inside
    return own if own.is_relative_to("/usr") or not system.exists() else system


def _found(program: str, package: str) -> str:
    """The path of a program of the system."""
    path = shutil.which(program)
    if path is None:
        raise SandboxError(f"the sandbox needs {program}", do=f"install it: apt-get install {package}")
    return path
