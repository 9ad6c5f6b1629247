"""A PostgreSQL server of its own for the tests, started for real."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from uuid import uuid4

import psycopg


def find_binaries() -> Path | None:
    """Where `initdb` and `postgres` lie: Debian keeps them out of the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = shutil.which("initdb")
    folders += [Path(found).parent] if found else []
    return next((each for each in folders if (each / "initdb").exists()), None)


class Postgres:
    """A server on loopback with a folder of its own."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.user = "postgres" if os.getuid() == 0 else None  # it does not run as root
        self.folder = Path(tempfile.mkdtemp(prefix="editloop-pg-", dir="/tmp"))
        if self.user:
            entry = pwd.getpwnam(self.user)
            os.chown(self.folder, entry.pw_uid, entry.pw_gid)
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._run("initdb", "-D", "data", "-U", "tester", "--auth=trust", "--no-sync")
        self.server: subprocess.Popen[bytes] | None = None
        self.start()

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / name, *arguments],
            cwd=self.folder,
            user=self.user,
            check=True,
            capture_output=True,
        )

    def start(self) -> None:
        command = ["-D", "data", "-p", str(self.port), "-k", str(self.folder), "-h", "127.0.0.1"]
        with (self.folder / "log").open("ab") as log:
            self.server = subprocess.Popen(
                [self.binaries / "postgres", *command],
                cwd=self.folder,
                user=self.user,
                stdout=log,
                stderr=log,
            )
        for _ in range(100):
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
                return
            except psycopg.OperationalError:
                time.sleep(0.1)
        raise RuntimeError((self.folder / "log").read_text())

    def stop(self, *, kill: bool = False) -> None:
        assert self.server is not None
        if kill:
            self._run("pg_ctl", "-D", "data", "-m", "immediate", "-w", "stop")
        else:
            self._run("pg_ctl", "-D", "data", "-m", "fast", "-w", "stop")
        self.server.wait(20)

    def url(self, name: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/{name}"

    def new(self) -> str:
        """The address of a new database."""
        name = f"t{uuid4().hex}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return self.url(name)

    def close(self) -> None:
        self.stop(kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)
