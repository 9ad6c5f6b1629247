"""The registry of formats: what there is, how a log's format is found, and a format from another package."""

from __future__ import annotations

from pathlib import Path

import pytest

from editloop.edits import FORMATS, Record, iter_records, read_log, write_log
from editloop.edits.formats import LogFormat, format_of_suffix
from editloop.errors import ConfigError, LogError, LogFormatError
from plug_in import install_plug_in

ROW = Record(context="c", response="a b", edit="a x")

BLOCKS = """
from editloop.edits import Record
from editloop.edits.formats import LogFormat, RawRow, Source

FIELDS = ("context", "response", "edit")


class Blocks(LogFormat):
    name = "blocks"
    suffixes = (".blocks",)
    magic = b"== blocks"

    def open(self, log):
        def rows():
            blocks = log.path.read_text(encoding="utf-8").split("\\n\\n")[1:]
            for number, block in enumerate(blocks, start=1):
                yield RawRow(number, number, dict(zip(FIELDS, block.splitlines(), strict=True)))
        return Source(self, list(FIELDS), 0, rows())

    def write(self, records, path):
        blocks = ["\\n".join(getattr(record, name) for name in FIELDS) for record in records]
        path.write_text("\\n\\n".join(["== blocks", *blocks]), encoding="utf-8")


BLOCKS = Blocks()
"""


@pytest.mark.parametrize("name", FORMATS.built_in)
def test_a_built_in_format_has_its_name_and_its_own_suffixes(name: str) -> None:
    format = FORMATS.get(name)
    assert isinstance(format, LogFormat)
    assert format.name == name
    assert all(format_of_suffix(suffix) is format for suffix in format.suffixes)


def test_a_format_from_another_package_is_read_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plug_in(tmp_path, monkeypatch, "editloop.formats", BLOCKS, blocks="BLOCKS")
    assert write_log([ROW, ROW], tmp_path / "log.blocks") == 2
    log = read_log(tmp_path / "log.blocks")
    assert [record.edit for record in log] == ["a x"] and log.report.duplicates == 1
    assert (log.report.format, log.report.read_as) == ("blocks", ("BLOCKS",))
    (tmp_path / "log").write_bytes((tmp_path / "log.blocks").read_bytes())
    assert read_log(tmp_path / "log").report.format == "blocks"  # by its first bytes
    (tmp_path / "log.csv").write_bytes((tmp_path / "log.blocks").read_bytes())
    with pytest.raises(LogFormatError, match="the log is not CSV"):
        read_log(tmp_path / "log.csv")
    assert read_log(tmp_path / "log.csv", format="blocks").records == log.records
    with pytest.raises(
        LogFormatError, match=r"no format has this suffix: '.xlsx' \(give one of .*, blocks\)"
    ):
        write_log([ROW], tmp_path / "log.xlsx")


def test_a_broken_format_of_another_package_breaks_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_plug_in(tmp_path, monkeypatch, "editloop.formats", "", blocks="nothing")
    write_log([ROW], tmp_path / "log.jsonl")
    with pytest.warns(match="the format blocks of outside_package:nothing cannot be loaded"):
        assert len(read_log(tmp_path / "log.jsonl")) == 1
    with pytest.raises(LogFormatError, match="cannot be loaded"):
        read_log(tmp_path / "log.jsonl", format="blocks")


def test_what_is_no_log_of_a_file_format_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "store").write_bytes(b"SQLite format 3\0")
    with pytest.raises(LogFormatError, match=r"a database is named by its address.*sqlite:///PATH"):
        iter_records(tmp_path / "store")
    with pytest.raises(LogFormatError, match=r"unknown format: 'xml' \(use one of jsonl, csv, tsv, parquet"):
        iter_records(tmp_path / "store", format="xml")
    with pytest.raises(LogFormatError, match="a dataset is a folder"):
        iter_records(tmp_path / "store", format="dataset")
    with pytest.raises(LogFormatError, match="this folder is no dataset"):
        iter_records(tmp_path)
    with pytest.raises(LogFormatError, match="a database is not written to"):
        write_log([ROW], tmp_path / "out.db", format="database")
    with pytest.raises(ConfigError, match=r"no such kind of address: 'ftp' \(use one of .*sqlite"):
        iter_records("ftp://host/log.jsonl")
    with pytest.raises(LogError, match="no such log"):
        iter_records(tmp_path / "missing.jsonl")


def test_the_format_in_the_guide_is_read(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs/logs.md").read_text(encoding="utf-8")
    exec(guide.split("```python\n")[1].split("```")[0], {})
    (tmp_path / "log.pairs").write_text("c\na b\na x\nd\na b\na b\n", encoding="utf-8")
    assert [record.status for record in read_log(tmp_path / "log.pairs")] == ["edited", "accepted"]
