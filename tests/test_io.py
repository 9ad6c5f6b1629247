"""Files are written whole or not at all, JSON is strict, and an output never replaces an input."""

import errno
import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from editloop.errors import ConfigError, LogError, RunError
from editloop.io import (
    UnsafeJSONError,
    atomic_file,
    atomic_folder,
    guard_outputs,
    json_text,
    parse_json,
    write_bytes,
    write_json,
    write_text,
)


def test_a_file_is_replaced_and_its_folder_made(tmp_path):
    path = tmp_path / "new" / "a.json"
    write_json(path, {"b": 1})
    write_json(path, {"b": "ä"})
    assert path.read_text(encoding="utf-8") == '{\n  "b": "ä"\n}\n'
    write_bytes(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert list(path.parent.iterdir()) == [path]


def test_a_file_may_not_grow_and_the_old_one_is_there_still(tmp_path):
    """No simulation: the system refuses to write more than 4 kB, as a full disk would."""
    write_text(tmp_path / "run.json", "old")
    program = (
        "import resource, signal, sys\n"
        "from editloop.errors import RunError\n"
        "from editloop.io import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n    write_text(sys.argv[1], 'x' * 100_000, RunError)\n"
        "except RunError as error:\n    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run.json")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("cannot write run.json: File too large")
    assert done.stdout.count("\n") == 1
    assert (tmp_path / "run.json").read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_an_interrupt_in_a_write_leaves_the_old_content(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    with atomic_folder(tmp_path / "b") as unfinished:
        (unfinished / "a.txt").write_text("old")

    def interrupted(_: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_text(tmp_path / "a.txt", "new")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "b") as unfinished:
        (unfinished / "a.txt").write_text("new")
    assert {p.name: p.read_text() for p in tmp_path.rglob("*.txt")} == {"a.txt": "old"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.txt", "b"]
    assert (tmp_path / "b" / "a.txt").read_text() == "old"


def test_a_folder_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "folder"
    with atomic_folder(path, RunError) as unfinished:
        (unfinished / "one").write_text("1")
        assert not path.exists()
    assert [p.name for p in path.iterdir()] == ["one"]
    with atomic_folder(path, RunError) as unfinished:
        (unfinished / "two").mkdir()
        (unfinished / "two" / "three").write_text("3")
        assert [p.name for p in path.iterdir()] == ["one"]
    assert [p.name for p in path.rglob("*")] == ["two", "three"]
    assert list(path.parent.iterdir()) == [path]


def test_a_kill_while_the_old_folder_is_removed_leaves_the_whole_new_one(tmp_path, monkeypatch):
    path = tmp_path / "folder"
    with atomic_folder(path) as unfinished:
        (unfinished / "old").touch()

    def killed(folder: Path, **_: object) -> None:
        if folder.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), atomic_folder(path) as unfinished:
        (unfinished / "new").touch()
        monkeypatch.setattr(shutil, "rmtree", killed)
    assert [p.name for p in path.iterdir()] == ["new"]


def test_what_a_killed_process_of_the_same_number_left_is_no_obstacle(tmp_path):
    left = tmp_path / f".folder.{os.getpid()}.unfinished"
    left.mkdir()
    (left / "half").touch()
    with atomic_folder(tmp_path / "folder", RunError) as unfinished:
        (unfinished / "whole").touch()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "whole"]


@pytest.mark.parametrize("kind", ["file", "link"])
def test_a_folder_replaces_neither_a_file_nor_a_link(tmp_path, kind):
    (tmp_path / "there").mkdir()
    path = tmp_path / "folder"
    path.touch() if kind == "file" else path.symlink_to(tmp_path / "there")
    with pytest.raises(RunError, match="cannot write folder: Not a directory"), atomic_folder(path, RunError):
        pass
    assert path.is_file() if kind == "file" else path.is_symlink()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["folder", "there"]


@pytest.mark.parametrize("atomic", [atomic_file, atomic_folder])
def test_what_a_library_raises_where_it_cannot_write_is_one_line(tmp_path, atomic):
    class LibraryError(Exception):
        pass

    for failure in (LibraryError("no space"), OSError(errno.ENOSPC, "no space")):
        with (
            pytest.raises(RunError, match="cannot write model: no space"),
            atomic(tmp_path / "model", RunError, failures=(LibraryError,)) as unfinished,
        ):
            (unfinished if atomic is atomic_file else unfinished / "weights").write_text("half")
            raise failure
    assert list(tmp_path.iterdir()) == []


def test_the_mode_of_what_is_written_is_the_umasks(tmp_path):
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "file", "x")
        with atomic_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o750


def test_the_current_folder_cannot_be_replaced_by_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(LogError, match="cannot write"), atomic_file(Path(), LogError) as unfinished:
        unfinished.write_text("x")
    assert list(tmp_path.parent.glob(".*unfinished")) == []


def test_json_has_no_nan():
    content = {"loss": math.nan, "all": [(1.5, math.inf)], "at": Path("x")}
    assert json.loads(json_text(content)) == {"loss": None, "all": [[1.5, None]], "at": "x"}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, -2.5e3, null, true, "é"]}', {"a": [1, -2500.0, None, True, "é"]}),
        ('{"a": {"b": 1}, "c": {"b": 1}}', {"a": {"b": 1}, "c": {"b": 1}}),  # equal keys of two objects
        (b'"\xc3\xa9"', "é"),
        ("1e-400", 0.0),  # too small is zero for every reader
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_json_that_every_reader_reads_alike_is_read(text, value):
    assert parse_json(text) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"a": 1, "a": 2}', "the same key twice in one JSON object"),
        ('[{"x": {"a": 1, "a": 1}}]', "the same key twice in one JSON object"),
        ('{"a": 1e400}', "a number too large for JSON readers"),
        ("-1e999", "a number too large for JSON readers"),
        ("NaN", "NaN is no JSON number"),
        ('{"a": -Infinity}', "-Infinity is no JSON number"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        ("1" * 5000, "a number too large for JSON readers"),
    ],
)
def test_json_that_means_two_things_or_nothing_is_refused(text, reason):
    with pytest.raises(UnsafeJSONError, match=reason):
        parse_json(text)


@pytest.mark.parametrize("text", ["", "{", "{'a': 1}", b"\xff", '{"a": 1} x'])
def test_what_is_no_json_is_a_value_error(text):
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert not isinstance(caught.value, UnsafeJSONError)


def test_an_output_is_not_its_input_by_whatever_name(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("x")
    (tmp_path / "soft").symlink_to(log)
    os.link(log, tmp_path / "hard")
    (tmp_path / "sub").mkdir()
    for name in ("log.jsonl", "soft", "hard", "sub/../log.jsonl"):
        with pytest.raises(ConfigError, match="replace its own input"):
            guard_outputs([None, log], [None, tmp_path / name])
    guard_outputs([log], [tmp_path / "other", tmp_path / "sub" / "log.jsonl", None])


def test_an_output_that_is_not_there_yet_counts_by_its_path(tmp_path):
    with pytest.raises(ConfigError, match="replace its own input"):
        guard_outputs([tmp_path / "a"], [str(tmp_path / "." / "a")])


def test_a_loop_of_links_is_refused_in_one_line(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    with pytest.raises(ConfigError, match="cannot be resolved"):
        guard_outputs([tmp_path / "log"], [tmp_path / "a"])
