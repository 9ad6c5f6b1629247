"""The parts of a log on the disk are those of `split`, record for record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from editloop.edits import Message, Record, SplitBy, read_log, split, split_log, splitting, write_log
from editloop.errors import ConfigError, LogError

pytest.importorskip("duckdb")


@pytest.fixture(autouse=True)
def _on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every log is larger than what is split in memory."""
    monkeypatch.setattr(splitting, "IN_MEMORY", 0)
    monkeypatch.setattr(splitting, "BATCH_ROWS", 7)


def records(count: int = 60) -> list[Record]:
    """Records of 23 contexts, of which every fifth is a chat, and of 11 users; times are not in order."""
    start = datetime(2026, 1, 1, tzinfo=UTC)
    made = []
    for i in range(count):
        text = f"context {i % 23} é"
        context = (Message(role="user", content=text),) if i % 5 == 0 else text
        time = start + timedelta(seconds=i * 7919 % 101)
        made.append(Record(context=context, response=f"r{i}", edit=f"e{i}", user=f"u{i % 11}", time=time))
    return made


def parts(folder: Path) -> dict[str, Path]:
    return {name: folder / f"{name}.jsonl" for name in ("train", "validation", "test")}


@pytest.mark.parametrize("by", ["context", "record", "user", "time"])
@pytest.mark.parametrize(("validation", "test"), [(0.1, 0.0), (0.25, 0.3), (0.0, 0.0)])
def test_the_parts_on_the_disk_are_those_in_memory(
    tmp_path: Path, by: SplitBy, validation: float, test: float
) -> None:
    log, files = records(), parts(tmp_path)
    expected = split(log, by=by, validation=validation, test=test, seed=3)
    counts = split_log(lambda: log, files, by=by, validation=validation, test=test, seed=3)
    assert counts == {name: len(getattr(expected, name)) for name in files}
    for name, file in files.items():
        if counts[name]:
            assert read_log(file, keep_duplicates=True).records == getattr(expected, name)


def test_in_memory_and_on_the_disk_write_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, limit in (("memory", 1000), ("disk", 0)):
        monkeypatch.setattr(splitting, "IN_MEMORY", limit)
        split_log(records, parts(tmp_path / folder), test=0.2)
    for name in ("train.jsonl", "validation.jsonl", "test.jsonl"):
        assert (tmp_path / "memory" / name).read_bytes() == (tmp_path / "disk" / name).read_bytes()


def test_a_part_that_cannot_be_written_leaves_no_file_and_no_thread(tmp_path: Path) -> None:
    files = parts(tmp_path) | {"validation": tmp_path / "file" / "validation.jsonl"}
    (tmp_path / "file").write_text("")
    threads = threading.active_count()
    with pytest.raises(LogError, match="file"):
        split_log(records, files, validation=0.4, test=0.2)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert threading.active_count() == threads


def test_a_log_that_breaks_off_leaves_no_file(tmp_path: Path) -> None:
    begun: list[int] = []

    def broken() -> Iterator[Record]:
        begun.append(1)
        yield from records(40)
        if len(begun) == 3:  # when the parts are written
            raise LogError("the log is damaged")

    with pytest.raises(LogError, match="damaged"):
        split_log(broken, parts(tmp_path), test=0.2)
    assert list(tmp_path.iterdir()) == []


def test_a_full_temporary_folder_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "nowhere"))
    with pytest.raises((LogError, OSError)) as caught:
        split_log(records, parts(tmp_path))
    assert "\n" not in str(caught.value)


def test_what_memory_refuses_the_disk_refuses(tmp_path: Path) -> None:
    few = [Record(context=f"c{i}", response="r", user="u") for i in range(5)]
    for by, words in (("user", "fewer users"), ("time", "without a time")):
        with pytest.raises(LogError, match=words):
            split_log(lambda: few, parts(tmp_path), by=by)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="unknown split"):
        split_log(lambda: few, parts(tmp_path), by="day")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_the_verb_writes_a_log_that_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from editloop.cli import app

    monkeypatch.chdir(tmp_path)
    write_log(records(), "log.jsonl")
    done = CliRunner().invoke(app, ["split", "log.jsonl", "--by", "user", "--to", "parquet", "--test", "0.2"])
    assert done.exit_code == 0, done.output
    assert "train.parquet" in done.output
    found = {name: read_log(f"log-split/{name}.parquet") for name in ("train", "validation", "test")}
    assert sum(map(len, found.values())) == 60
    users = [{record.user for record in log} for log in found.values()]
    assert not (users[0] & users[1] or users[0] & users[2] or users[1] & users[2])
