"""Writing logs: what is read back is equal, and what was there survives a failure."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editloop.edits import Message, Record, iter_records, read_log, write_log
from editloop.errors import LogError, LogFormatError

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
awkward = st.sampled_from(
    ['"', "a\r\nb", "\r", "\n", "\t", ",", "null", "[]", '{"a": 1}', "\x00", "\u2028", "é\ufeff"]
)
text = st.one_of(texts, awkward)
responses = text.filter(lambda each: bool(each) and not each.isspace())
messages = st.lists(st.builds(Message, role=responses, content=text), min_size=1, max_size=3).map(tuple)
json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(text, inner, max_size=2)),
    max_leaves=4,
)
times = st.datetimes(timezones=st.just(UTC))


@st.composite
def records(draw: st.DrawFn) -> Record:
    response = draw(responses)
    given: dict[str, Any] = {
        "context": draw(st.one_of(text, messages)),
        "response": response,
        "edit": draw(st.one_of(st.none(), st.just(response), text)),
        "user": draw(st.one_of(st.none(), text)),
        "policy": draw(st.one_of(st.none(), text)),
        "propensity": draw(st.one_of(st.none(), st.floats(0, 1, exclude_min=True))),
        "logprob": draw(st.one_of(st.none(), st.floats(max_value=0, allow_infinity=False))),
        "time": draw(st.one_of(st.none(), times)),
        "metadata": draw(st.dictionaries(text, json_values, max_size=2)),
    }
    if given["edit"] is None:
        given["status"] = draw(st.sampled_from(["pending", "expired", "accepted"]))
    return Record(**given)


logs = st.lists(records(), min_size=1, max_size=6, unique_by=lambda record: record.id)


@pytest.mark.parametrize("name", ["log.jsonl", "log.csv", "log.tsv", "log.parquet"])
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(log=logs)
def test_what_is_read_back_is_equal(tmp_path: Path, name: str, log: list[Record]) -> None:
    path = tmp_path / name
    assert write_log(log, path) == len(log)
    assert list(read_log(path)) == log


@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(log=logs)
def test_dataset_folders_too(tmp_path_factory: pytest.TempPathFactory, log: list[Record]) -> None:
    path = tmp_path_factory.mktemp("datasets") / "log"
    write_log(iter(log), path)
    back = read_log(path)
    assert list(back) == log
    assert back.report.format == "dataset"
    with pytest.raises(LogError, match="there already"):
        write_log(log, path)


def test_columns_are_the_fields_whatever_the_format(tmp_path: Path) -> None:
    record = Record(id="1", context="c", response="r", time=datetime(2026, 1, 1, tzinfo=UTC))
    write_log([record], tmp_path / "log.csv")
    assert (tmp_path / "log.csv").read_bytes().decode().split("\r\n") == [
        "id,context,messages,response,edit,status,user,policy,propensity,logprob,time,metadata",
        "1,c,,r,,pending,,,,,2026-01-01T00:00:00+00:00,",
        "",
    ]


def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    write_log([Record(context="c", response="r")], path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    for name in ("log.jsonl", "log.parquet", "folder"):
        with pytest.raises(LogError, match=f"cannot write {name}: No space left on device"):
            write_log([Record(context="c", response="s")], tmp_path / name)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_log_that_fails_while_it_is_read_is_told_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.jsonl"
    write_log([Record(context="c", response="r")], path)

    def failing(_: object) -> Iterator[object]:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
        yield

    monkeypatch.setattr("editloop.edits.formats.jsonl.split_lines", failing)
    with pytest.raises(LogError, match="the log cannot be read, Input/output error"):
        write_log(iter_records(path), tmp_path / "copy.jsonl")
    assert [each.name for each in tmp_path.iterdir()] == ["log.jsonl"]


def test_unknown_suffix(tmp_path: Path) -> None:
    with pytest.raises(LogFormatError, match=r"no format has this suffix: '\.xlsx'"):
        write_log([], tmp_path / "log.xlsx")
