"""Git: what people change in files that an agent has committed.

A draft is a file as a commit of an agent left it. Its edit is the same file after the next commit that
changes it, if that one is by a person and changes lines that the agent has written; if it removes the file,
the draft was thrown away. The context is the message of the agent's commit, the file's name, and the file
before. Commits are matched by the contents of files and not by their order, so branches need no linear
history; merges have no changes of their own here.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from typing import NamedTuple

from editloop.edits.formats.base import LogFile, LogFormat, RawRow, Source
from editloop.edits.formats.git_repository import Blobs, Change, Commit, Repository
from editloop.edits.formats.tool import LeftOut, Row
from editloop.errors import ConfigError, LogFormatError

__all__ = ["GIT", "LARGEST_FILE"]

LARGEST_FILE = 2**20
"""The most bytes of a file; what is longer is generated, as a rule."""

UNCHANGED = LeftOut("a file that nobody has changed since", is_bad=False)
OWN = LeftOut("a file that the agent itself changed next", is_bad=False)
ELSEWHERE = LeftOut("the next change touches no line of the agent's", is_bad=False)
MERGE = LeftOut("a merge", is_bad=False)
BINARY = LeftOut("a binary file", is_bad=False)
LARGE = LeftOut(f"a file of more than {LARGEST_FILE // 2**20} MiB", is_bad=False)
SPECIAL = LeftOut("a link or a submodule", is_bad=False)


class _Written(NamedTuple):
    """What an agent's commit made of a file."""

    commit: Commit
    change: Change


class _Git(LogFormat):
    name = "git"
    is_folder = True
    options = {"agent_author": "a part of the agent's name or address, as author or co-author"}  # noqa: RUF012

    def recognises(self, log: LogFile) -> bool:
        return log.path.is_dir() and ((log.path / ".git").exists() or (log.path / "HEAD").is_file())

    def open(self, log: LogFile) -> Source:
        """Open a repository.

        Raises:
            ConfigError: It is not said who the agent is, or no commit is by it.
            LogFormatError: It is no repository, or has no commit.
        """
        if not self.recognises(log):
            raise LogFormatError("this folder is no git repository", seen=str(log.name), do="check the path")
        agent = log.options.get("agent_author", "").casefold()
        if not agent:
            raise ConfigError(
                "whose commits are drafts?", do="give --agent-author, a part of the agent's name"
            )
        repository = Repository(log.path)
        authors, head, commits = repository.authors()
        if not any(agent in names.casefold() for names in authors):
            known = ", ".join(f"{names} ({n})" for names, n in authors.most_common(5))
            raise ConfigError("no commit is by this author", seen=agent, do=f"the most frequent: {known}")
        sha256 = hashlib.sha256(f"{head} {agent}".encode()).hexdigest()
        return Source(self, None, commits, _rows(repository, agent), sha256=sha256)


def _rows(repository: Repository, agent: str) -> Iterator[RawRow]:
    """Yield a row for each file of each of the agent's commits, and for each merge."""
    written: dict[tuple[str, str | None], _Written] = {}
    done = 0
    with closing(repository.blobs()) as blobs:

        def row(found: Row | LeftOut, about: _Written) -> RawRow:
            text = f"{about.commit.id} {about.change.path}"
            if isinstance(found, LeftOut):
                return RawRow(done, done, None, found.reason, text, is_draft=found.is_bad)
            return RawRow(done, done, found)

        for done, (commit, changes) in enumerate(repository.history(), start=1):
            if commit.is_merge:
                yield RawRow(done, done, None, MERGE.reason, commit.id, is_draft=False)
                continue
            is_agent = agent in commit.names.casefold()
            for change in changes:
                # The first change to what an agent has left; the same content may come back later.
                draft = written.pop((change.old_path, change.before), None)
                if change.before == change.after:  # only renamed
                    if draft is not None:
                        written[change.path, change.after] = draft
                    continue
                if draft is not None:
                    yield row(OWN if is_agent else _edited(blobs, draft, commit, change), draft)
                if is_agent and change.after is not None:
                    about = _Written(commit, change)
                    if change.is_special:
                        yield row(SPECIAL, about)
                    else:
                        written[change.path, change.after] = about
        for about in written.values():
            yield row(UNCHANGED, about)


def _edited(blobs: Blobs, draft: _Written, commit: Commit, change: Change) -> Row | LeftOut:
    """Return the columns of a record: what a person's commit made of an agent's file."""
    before, response, edit = (
        None if blob is None else blobs.read(blob, LARGEST_FILE)
        for blob in (draft.change.before, draft.change.after, change.after)
    )
    texts = []
    for content in (before, response, edit):
        if content is not None and len(content) > LARGEST_FILE:
            return LARGE
        texts.append(None if content is None else _text(content))
        if content is not None and texts[-1] is None:
            return BINARY
    if edit is not None and not _touched(texts[0], texts[1] or "", texts[2] or ""):
        return ELSEWHERE
    context = f"{draft.commit.message}\n\n{draft.change.path}"
    return {
        "id": hashlib.sha256(f"{draft.commit.id}:{draft.change.path}".encode()).hexdigest()[:32],
        "context": context if before is None else f"{context}\n\n{texts[0]}",
        "response": texts[1],
        "edit": texts[2],
        **({"status": "discarded"} if edit is None else {}),
        "user": commit.author,
        "policy": draft.commit.author,
        "time": commit.time,
        "metadata": {"commit": draft.commit.id, "edited_by": commit.id, "path": draft.change.path},
    }


def _text(content: bytes) -> str | None:
    """Return the text of a file; None for a binary one, as git says it (a NUL), or one that is not UTF-8."""
    try:
        return None if b"\0" in content else content.decode()
    except UnicodeDecodeError:
        return None


def _touched(before: str | None, response: str, edit: str) -> bool:
    """Whether an edit changes what the agent has written: any line of a new file, or one that it has added.

    Lines are compared as a bag, wherever they are: those that the file before did not have are the agent's.
    """
    if before is None:
        return True
    new = Counter(response.splitlines())
    added = new - Counter(before.splitlines())
    return bool(added & (new - Counter(edit.splitlines())))


GIT = _Git()
