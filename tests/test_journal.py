"""A journal keeps whole rows only, whatever a kill leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from editloop.errors import BanditError, UserError
from editloop.journal import append_rows, drop_rows, read_rows


def test_rows_are_added_and_read(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    assert list(read_rows(path, UserError)) == []
    append_rows(path, [{"a": "ä\n"}, 1])
    append_rows(path, [None])
    assert list(read_rows(path, UserError)) == [{"a": "ä\n"}, 1, None]


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_cut_leaves_the_rows_before_it(tmp_path: Path, rows: int) -> None:
    path = tmp_path / "journal.jsonl"
    append_rows(path, range(100, 100 + rows))
    whole = path.read_bytes()
    append_rows(path, [{"text": "x" * 100_000}])  # longer than what is read at a time to find its start
    for cut in (len(whole) + 1, len(whole) + 70_000, len(whole) + 100_011):
        path.write_bytes(path.read_bytes()[:cut])
        assert list(read_rows(path, UserError)) == list(range(100, 100 + rows))
        append_rows(path, [7])
        assert path.read_bytes() == whole + b"7\n"
        append_rows(path, [{"text": "x" * 100_000}])
        path.write_bytes(whole + path.read_bytes()[len(whole) + 2 :])


def test_a_damaged_line_is_told(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('1\n{"a"\n2\n')
    with pytest.raises(BanditError, match=r"line 2 of .*journal\.jsonl is damaged"):
        list(read_rows(path, BanditError))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_rows(tmp_path, UserError))


def test_a_last_row_that_lacks_its_line_break_only_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}')
    assert list(read_rows(path, UserError)) == [{"a": 1}, {"a": 2}]
    append_rows(path, [{"a": 3}])
    assert list(read_rows(path, UserError)) == [{"a": 1}, {"a": 2}, {"a": 3}]
    path.write_text("12")  # it may be the beginning of 123
    assert list(read_rows(path, UserError)) == []


def test_rows_are_dropped_from_the_front(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    append_rows(path, [{"a": 1}, {"a": 2}, {}])
    drop_rows(path, 1, instead=[{"a": 0}])
    assert list(read_rows(path, UserError)) == [{"a": 0}, {"a": 2}, {}]
    drop_rows(path, 2)
    assert list(read_rows(path, UserError)) == [{}]  # a row that is empty is still a row
    drop_rows(path, 1)
    assert list(tmp_path.iterdir()) == []
