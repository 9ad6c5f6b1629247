"""Git: histories that git itself makes here, and a repository that would run a program if it were let."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from tools import imported

from editloop.edits import read_log
from editloop.edits.formats.git import LARGEST_FILE
from editloop.errors import ConfigError, LogFormatError

AGENT, ANN = ("Agent Bot", "bot@x.org"), ("Ann", "ann@x.org")


class Repository:
    def __init__(self, path: Path) -> None:
        self.path, self.now = path, 1_700_000_000
        path.mkdir()
        self.git("init", "-q", "-b", "main")

    def git(self, *arguments: str, author: tuple[str, str] = ANN) -> str:
        self.now += 60
        name, email = author
        about = {"GIT_AUTHOR_NAME": name, "GIT_AUTHOR_EMAIL": email, "GIT_AUTHOR_DATE": f"{self.now} +0000"}
        about |= {key.replace("AUTHOR", "COMMITTER"): value for key, value in about.items()}
        about |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
        command = ["git", "-C", str(self.path), *arguments]
        done = subprocess.run(command, env={**os.environ, **about}, capture_output=True, check=True)
        return done.stdout.decode().strip()

    def commit(self, author: tuple[str, str], message: str, **files: str | bytes | None) -> str:
        for name, content in files.items():
            file = self.path / name.replace("_", ".")
            if content is None:
                file.unlink()
            else:
                file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.git("add", "-A")
        self.git("commit", "-q", "--allow-empty", "-m", message, author=author)
        return self.git("rev-parse", "HEAD")


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repo")


def test_a_person_who_changes_what_the_agent_wrote_edits_it(repository: Repository, tmp_path: Path) -> None:
    repository.commit(ANN, "start", a_py="one\ntwo\n")
    drafted = repository.commit(
        AGENT, "Add three\n\nAs asked.", a_py="one\ntwo\ntree\n", b_py="x\n", c_py="y\n"
    )
    fixed = repository.commit(ANN, "spelling", a_py="one\ntwo\nthree\n", b_py="x\nmore\n", c_py=None)
    log = imported(repository.path, None, "git", options={"agent_author": "bot@x"})
    changed, added_to, removed = log
    assert changed.context == "Add three\n\nAs asked.\n\na.py\n\none\ntwo\n"
    assert (changed.response, changed.edit) == ("one\ntwo\ntree\n", "one\ntwo\nthree\n")
    assert (changed.user, changed.policy) == ("Ann <ann@x.org>", "Agent Bot <bot@x.org>")
    assert changed.metadata == {"commit": drafted, "edited_by": fixed, "path": "a.py"}
    assert changed.time is not None and changed.time.year == 2023
    # Of a new file every line is the agent's, so an addition is an edit of it.
    assert (added_to.context, added_to.edit) == ("Add three\n\nAs asked.\n\nb.py", "x\nmore\n")
    assert (removed.status, removed.response, removed.edit) == ("discarded", "y\n", None)
    assert (log.report.rows_read, log.report.bad_rows, log.report.sha256 is not None) == (3, 0, True)


def test_what_is_no_edit_is_counted(repository: Repository) -> None:
    large = "x" * (LARGEST_FILE + 1)
    repository.commit(ANN, "start", a_py="one\ntwo\nthree\n")
    repository.commit(AGENT, "1", a_py="one\ntwo\n3\n", b_bin=b"\0\1", c_txt=large, d_txt="d\n", e_txt="e\n")
    (repository.path / "link").symlink_to("a.py")
    repository.commit(AGENT, "2", e_txt="ee\n")
    repository.commit(ANN, "3", a_py="1\ntwo\n3\n", b_bin=b"\0\2", c_txt=large + "y")
    repository.git("checkout", "-q", "-b", "side", "HEAD~1")
    repository.commit(ANN, "4", f_txt="f")
    repository.git("checkout", "-q", "main")
    repository.git("merge", "-q", "--no-edit", "side")
    log = imported(repository.path, None, "git", options={"agent_author": "Agent"})
    assert len(log) == 0
    assert log.report.left_out == {
        "a merge": 1,
        "a binary file": 1,
        "a file of more than 1 MiB": 1,
        "a link or a submodule": 1,
        "the next change touches no line of the agent's": 1,
        "a file that nobody has changed since": 2,
        "a file that the agent itself changed next": 1,
    }


def test_renamed_files_branches_and_coauthors(repository: Repository) -> None:
    repository.commit(ANN, "start", a_py="one\n")
    repository.git("checkout", "-q", "-b", "side")
    message = "two\n\nCo-authored-by: Agent Bot <bot@x.org>"
    repository.commit(ANN, message, a_py="one\ntoo\n")
    repository.git("checkout", "-q", "main")
    repository.commit(ANN, "elsewhere", b_py="b\n")
    repository.git("merge", "-q", "--no-edit", "side")
    repository.git("mv", "a.py", "dir name.py")
    repository.commit(ANN, "rename only")
    (repository.path / "dir name.py").write_text("one\ntwo\n")
    repository.commit(ANN, "fix")
    (record,) = imported(repository.path, None, "git", options={"agent_author": "agent bot"})
    assert (record.response, record.edit) == ("one\ntoo\n", "one\ntwo\n")


def test_no_author_an_author_that_matches_nothing_and_an_empty_repository(repository: Repository) -> None:
    with pytest.raises(ConfigError, match="give --agent-author"):
        read_log(repository.path, format="git")
    with pytest.raises(LogFormatError, match="has no commits"):
        read_log(repository.path, format="git", options={"agent_author": "bot"})
    repository.commit(ANN, "start", a_py="one\n")
    with pytest.raises(ConfigError, match=r"no commit is by this author: 'bot' .*Ann <ann@x.org> \(1\)"):
        read_log(repository.path, format="git", options={"agent_author": "bot"})
    with pytest.raises(ConfigError, match="no such option: 'author'"):
        read_log(repository.path, format="git", options={"author": "bot"})


def test_a_folder_and_a_file_that_are_no_repository(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match="no git repository"):
        read_log(tmp_path, format="git", options={"agent_author": "bot"})
    (tmp_path / "file").write_text("x")
    with pytest.raises(LogFormatError, match="a git is a folder"):
        read_log(tmp_path / "file", format="git", options={"agent_author": "bot"})
    (tmp_path / ".git").mkdir()
    with pytest.raises(LogFormatError, match="git cannot read this repository"):
        read_log(tmp_path, format="git", options={"agent_author": "bot"})


def test_a_repository_runs_no_program_of_its_own(repository: Repository, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    program = tmp_path / "program"
    program.write_text(f"#!/bin/sh\ntouch {ran}\ncat\n")
    program.chmod(0o755)
    repository.commit(AGENT, "1", a_py="one\n")
    repository.commit(ANN, "2", a_py="two\n")
    for name in ("core.fsmonitor", "core.pager", "diff.external", "diff.x.textconv", "filter.x.smudge"):
        repository.git("config", name, str(program))
    (repository.path / ".gitattributes").write_text("*.py diff=x filter=x\n")
    assert len(imported(repository.path, None, "git", options={"agent_author": "bot"})) == 1
    assert not ran.exists()


def test_marks_in_messages_and_names_confuse_nothing(repository: Repository) -> None:
    odd = ("Agent\x01 Bot", "bot@x.org")
    repository.commit(odd, "mark \x1e\x1f :100644 100644 a b M\n\nbody", a_py="one\n")
    repository.commit(ANN, "2", a_py="two\n")
    (record,) = imported(repository.path, None, "git", options={"agent_author": "bot"})
    assert record.context.startswith("mark \x1e\x1f :100644")  # type: ignore[union-attr]
