"""A server as a user starts it, in a process of its own, for the benchmarks that measure and break it.

The benchmarks use it only over HTTP. Its policies are those of `editloop.serve.testing.make_run`, which the
stub model server does not read.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.store.testing import free_port

__all__ = ["Process", "editloop_server", "processor_seconds"]

PATIENCE = 120.0
"""Seconds in which a server must be ready."""


class Process:
    """A server in a process of its own, which can be killed and started again.

    Args:
        command: The command that starts it.
        port: The port on which it listens.
        ready: The path that is answered with 200 when the server can be used.
        log: The file for its output.
        environment: Its environment; None for that of this process.
    """

    def __init__(
        self,
        command: Sequence[str],
        port: int,
        ready: str,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.command, self.port, self.log = list(command), port, log
        self._ready, self._environment = ready, environment
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it without waiting until it is ready."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
            )

    def wait(self) -> float:
        """Wait until it is ready, and return the seconds that this took.

        Raises:
            RunError: It has ended, or it is not ready in time.
        """
        assert self._process is not None
        started = time.monotonic()
        while time.monotonic() < started + PATIENCE and self._process.poll() is None:
            if self._is_ready():
                return time.monotonic() - started
            time.sleep(0.02)
        lines = self.log.read_text(errors="replace").strip().splitlines()
        raise RunError("the server is not ready", seen=lines[-1] if lines else "", do=f"see {self.log}")

    def start(self) -> float:
        """Start it, wait until it is ready, and return the seconds that this took."""
        self.begin()
        return self.wait()

    def _is_ready(self) -> bool:
        with suppress(OSError, http.client.HTTPException), self._connection() as connection:
            connection.request("GET", self._ready)
            return connection.getresponse().status == 200
        return False

    def _connection(self) -> closing[http.client.HTTPConnection]:
        return closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=30))

    def kill(self) -> None:
        """Kill it, so that it cannot finish anything."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._end(signal.SIGTERM)

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Pause the server within the block, so that it uses no processor time."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def processor_seconds(self) -> float | None:
        """The processor seconds that it has used since its start; None if the system does not count them."""
        return None if self._process is None else processor_seconds(self._process.pid)

    def get(self, path: str) -> Any:
        """The answer to a GET request: a JSON value or a text.

        Raises:
            RunError: There is no answer, or its status is not 200.
        """
        try:
            with self._connection() as connection:
                connection.request("GET", path)
                answer = connection.getresponse()
                text = answer.read().decode()
        except (OSError, http.client.HTTPException) as error:
            raise RunError("the server does not answer", seen=str(error), do=f"see {self.log}") from error
        if answer.status != 200:
            raise RunError("the server refuses", seen=text, do=f"see {self.log}")
        return json.loads(text) if "json" in (answer.getheader("Content-Type") or "") else text


def processor_seconds(pid: int, *, ended: bool = False) -> float | None:
    """The processor seconds that a process has used; None if the system does not count them.

    Args:
        pid: The process.
        ended: Whether those of its children that have ended count as well.
    """
    with suppress(OSError):
        # The name of the program, in parentheses, may hold blanks. Behind it, fields 11 and 12 are the ticks
        # in user mode and in the kernel (14 and 15 in the manual's count); the next two are the children's.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11 : 15 if ended else 13])) / os.sysconf("SC_CLK_TCK")
    return None


def editloop_server(
    run: Path, store: str, upstream: int, log: Path, options: Sequence[str] = (), port: int | None = None
) -> Process:
    """A process of `editloop serve` that can be started.

    Args:
        run: Its run folder.
        store: The value of `--store`.
        upstream: The port of the model server.
        log: The file for its output.
        options: Further flags.
        port: The port on which it listens; None for a free one.
    """
    port = port or free_port()
    flags = ["--store", store, "--upstream", f"http://127.0.0.1:{upstream}/v1", "--port", str(port)]
    command = [sys.executable, "-m", "editloop", "serve", str(run), *flags, *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("EDITLOOP_")}
    return Process(command, port, "/readyz", log, environment)
