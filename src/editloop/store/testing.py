"""A PostgreSQL server on loopback for tests, which can be started, stopped, killed and paused.

With it an application can be tested against a store on PostgreSQL, and against a store that fails. It needs
PostgreSQL's programs, and runs on Unix only.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from uuid import uuid4

from editloop.errors import RunError

__all__ = ["Postgres", "find_binaries", "free_port"]

START_SECONDS = 120.0
"""Time in which a server must accept connections; recovery after it was killed can take a while."""


def free_port() -> int:
    """Return a loopback port at which nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def find_binaries() -> Path | None:
    """Return the folder of `initdb` and `postgres`, which Debian keeps out of the PATH, or None."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).resolve().parent] if found else []
    return next((each for each in folders if (each / "postgres").exists()), None)


class Postgres:
    """A server with an empty database. If this process is root, the server runs as the user `postgres`.

    Args:
        binaries: The folder that `find_binaries` returned.
    """

    def __init__(self, binaries: Path) -> None:
        self._binaries = binaries
        self._user = "postgres" if os.getuid() == 0 else None  # PostgreSQL refuses to run as root
        self._folder = Path(tempfile.mkdtemp(prefix="editloop-postgres-"))
        if self._user:
            entry = pwd.getpwnam(self._user)
            os.chown(self._folder, entry.pw_uid, entry.pw_gid)
        self.port = free_port()
        self.url = f"postgresql://tester@127.0.0.1:{self.port}/postgres"
        self._run("initdb", "-D", "data", "-U", "tester", "--auth=trust", "--no-sync")
        self._server: subprocess.Popen[bytes] | None = None

    def _run(self, name: str, *arguments: str) -> None:
        command = [str(self._binaries / name), *arguments]
        done = subprocess.run(command, cwd=self._folder, user=self._user, capture_output=True, check=False)
        if done.returncode:
            raise RunError(f"{name} of PostgreSQL fails", seen=done.stderr.decode(errors="replace").strip())

    def start(self) -> None:
        """Start the server, and wait until it accepts connections.

        Raises:
            RunError: It does not accept connections in time.
        """
        import psycopg

        command = ["-D", "data", "-p", str(self.port), "-k", str(self._folder), "-h", "127.0.0.1"]
        with (self._folder / "log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(self._binaries / "postgres"), *command],
                cwd=self._folder,
                user=self._user,
                stdout=log,
                stderr=log,
            )
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            try:
                psycopg.connect(self.url, connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise RunError("PostgreSQL does not start", seen=(self._folder / "log").read_text()[-300:])

    def stop(self, *, at_once: bool = False) -> None:
        """Stop the server; `at_once` makes it recover from its log when it starts again, as after a kill."""
        if self._server is not None:
            self._run("pg_ctl", "-D", "data", "-m", "immediate" if at_once else "fast", "-w", "stop")
            self._server.wait(20)
            self._server = None

    def pause(self) -> None:
        """Pause the server's processes: the kernel still acknowledges what is sent, and nobody answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let the paused processes go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        for each in self.processes():
            os.kill(each, number)

    def processes(self) -> list[int]:
        """Return the ids of the server's processes; the first one is the parent of all others."""
        assert self._server is not None
        pid = self._server.pid
        own = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=False).stdout
        return [pid, *map(int, own.split())]

    def new(self) -> str:
        """Make a database, and return its address."""
        import psycopg

        name = f"t{uuid4().hex}"
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url.removesuffix("postgres") + name

    @property
    def is_running(self) -> bool:
        """Whether the server was started and not stopped since."""
        return self._server is not None

    def close(self) -> None:
        """Stop the server and remove its files."""
        self.stop(at_once=True)
        shutil.rmtree(self._folder, ignore_errors=True)
