"""A git repository as a sequence of commits with the files that they change, and the contents of these files.

The repository is foreign: its configuration may name programs, so no command here runs a hook, a filter, a
pager or a monitor, nor fetches what a partial clone lacks.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from editloop.errors import LogFormatError

__all__ = ["Blobs", "Change", "Commit", "Repository"]

SAFE = ("--no-pager", "--no-replace-objects", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null")
ENVIRONMENT = {
    "GIT_OPTIONAL_LOCKS": "0",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_NO_LAZY_FETCH": "1",
    "LC_ALL": "C",
}

NAMES = "%an <%ae>%x1f%(trailers:key=Co-authored-by,valueonly,separator=%x1f)"
"""Who wrote a commit: its author, and those whom its message names."""

REGULAR = ("100644", "100755", "000000")
"""The modes of files, and of what is not there; others are links and submodules."""


class Commit(NamedTuple):
    """A commit.

    Attributes:
        id: Its hash.
        is_merge: Whether it has several parents.
        names: Its author and its co-authors, between separators.
        time: When it was committed, in seconds since 1970.
        message: Its message.
    """

    id: str
    is_merge: bool
    names: str
    time: float
    message: str

    @property
    def author(self) -> str:
        """The author: `name <address>`."""
        return self.names.partition("\x1f")[0]


class Change(NamedTuple):
    """What a commit did to a file.

    Attributes:
        before: The hash of its content before; None if it was not there.
        after: The hash of its content; None if it is gone.
        old_path: Its path before.
        path: Its path.
        is_special: Whether it is a link or a submodule.
    """

    before: str | None
    after: str | None
    old_path: str
    path: str
    is_special: bool


class Repository:
    """A repository that is only read.

    Args:
        path: Its folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def authors(self) -> tuple[Counter[str], str, int]:
        """Return who wrote how many of the commits that HEAD leads to, the last commit, and their number.

        Raises:
            LogFormatError: There are none, or git refuses.
        """
        try:
            head = self._run("rev-parse", "--verify", "--quiet", "HEAD^{commit}").strip()
        except LogFormatError as error:
            if error.seen:
                raise
            raise LogFormatError("the repository has no commits", seen=str(self.path)) from None
        lines = self._run("log", f"--format={NAMES}", "HEAD").splitlines()
        names = [line.replace("\x1f", ", ").removesuffix(", ") for line in lines]
        return Counter(names), head, len(names)

    def history(self) -> Iterator[tuple[Commit, list[Change]]]:
        """Yield the commits that HEAD leads to with what they changed, parents before children.

        Raises:
            LogFormatError: git fails.
        """
        mark = secrets.token_hex(16)  # nobody can have written it into a message
        fields = mark.join(("", "%H", "%P", NAMES, "%ct", "%B", ""))
        options = ("--topo-order", "--reverse", "--raw", "-M", "-z", "--no-abbrev", "--no-ext-diff")
        with self._process("log", *options, f"--format=format:{fields}", "HEAD") as process:
            assert process.stdout is not None
            parts = _split(process.stdout, mark.encode())
            next(parts, b"")  # what is before the first mark: nothing
            for id in parts:
                *rest, raw = [next(parts, b"") for _ in range(5)]
                parents, names, time, message = (each.decode("utf-8", "replace") for each in rest)
                is_merge = len(parents.split()) > 1
                commit = Commit(id.decode(), is_merge, names, float(time), message.strip())
                yield commit, list(_changes(raw))
        if process.returncode:
            raise LogFormatError("git cannot read this repository to its end", seen=str(self.path))

    def blobs(self) -> Blobs:
        """Return what reads the contents of files."""
        return Blobs(self._process("cat-file", "--batch"))

    def _run(self, *arguments: str) -> str:
        with self._process(*arguments, errors=subprocess.PIPE) as process:
            out, err = process.communicate()
        if process.returncode:
            said = err.decode("utf-8", "replace").strip().splitlines()
            raise LogFormatError("git cannot read this repository", seen=said[0] if said else None)
        return out.decode("utf-8", "replace")

    def _process(self, *arguments: str, errors: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
        # Variables such as GIT_DIR, which a hook has, would lead to another repository.
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        command = ["git", "-C", str(self.path), *SAFE, *arguments]
        pipe = subprocess.PIPE
        try:
            return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=errors, env=kept | ENVIRONMENT)
        except OSError as error:
            raise LogFormatError("git cannot be run", seen=error.strerror, do="install git") from error


class Blobs:
    """Reads the contents of files, by one process for all of them."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def read(self, blob: str, limit: int) -> bytes:
        """Return the content of a blob, or its first `limit + 1` bytes if it is longer.

        Raises:
            LogFormatError: The repository does not have it.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{blob}\n".encode())
        self._process.stdin.flush()
        header = self._process.stdout.readline().split()
        if len(header) != 3:
            raise LogFormatError("a file's content is missing", seen=blob, do="fetch the whole repository")
        left = int(header[2])
        content = self._process.stdout.read(min(left, limit + 1))
        left -= len(content)
        while left and (piece := self._process.stdout.read(min(left, 2**20))):
            left -= len(piece)
        self._process.stdout.readline()
        return content

    def close(self) -> None:
        """End the process."""
        self._process.__exit__(None, None, None)


def _split(stream: IO[bytes], mark: bytes) -> Iterator[bytes]:
    """Yield the parts of a stream between marks."""
    kept = b""
    while piece := stream.read(2**16):
        *parts, kept = (kept + piece).split(mark)
        yield from parts
    yield kept


def _changes(raw: bytes) -> Iterator[Change]:
    """Yield the changes of a commit, in git's raw format with NUL between its parts."""
    parts = iter(raw.strip(b"\n").strip(b"\0").split(b"\0"))
    for about in parts:
        if not about.startswith(b":"):
            continue
        old_mode, new_mode, old, new, kind = about[1:].decode().split()
        first = os.fsdecode(next(parts, b""))
        second = os.fsdecode(next(parts, b"")) if kind[0] in "RC" else first
        is_special = not {old_mode, new_mode} <= set(REGULAR)
        yield Change(_blob(old), _blob(new), first, second, is_special)


def _blob(hash: str) -> str | None:
    return hash if hash.strip("0") else None
