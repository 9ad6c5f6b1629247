"""The hostile corpus: no traceback, no silent loss, and every row is accounted for."""

from __future__ import annotations

import gzip
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hostile import COLUMNS, GOOD, Hostile, corpus, good
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from editloop.edits import Log, read_log, write_log
from editloop.edits.reading import ReadReport
from editloop.errors import ConfigError, EditLoopError, LogError

CORPUS = corpus()


def accounted(log: Log, quarantine: Path) -> ReadReport:
    """Check that the figures of the report add up, and that they are those of the log and the quarantine."""
    report = log.report
    assert report.rows_read == report.records + report.bad_rows + report.dropped_duplicates
    assert report.records == len(log)
    kept = quarantine.read_text().splitlines() if quarantine.exists() else []
    assert len(kept) == report.bad_rows == report.reasons.total()
    assert all(json.loads(line)["reason"] for line in kept)
    return report


def read(path: Path, quarantine: Path, **options: Any) -> Log | EditLoopError:
    """The log, or the error that a user would see in one line."""
    try:
        return read_log(path, quarantine=quarantine, **options)
    except (LogError, ConfigError) as error:
        assert "\n" not in str(error) and len(str(error)) < 2000
        return error


def test_the_corpus_is_large_and_no_case_hides_another() -> None:
    assert len(CORPUS) >= 150
    assert len({each.name for each in CORPUS}) == len(CORPUS)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_nothing_is_lost_in_silence(case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = case.make(tmp_path)
    quarantine = tmp_path / "quarantine.jsonl"
    found = read(path, quarantine, max_bad_share=1.0, **case.options)
    strict = read(path, tmp_path / "q", **case.options)
    if case.rows is None:
        assert isinstance(strict, EditLoopError), "what cannot be read must not look as if it had been"
        if isinstance(found, Log):
            accounted(found, quarantine)
        return
    assert isinstance(found, Log), found
    report = accounted(found, quarantine)
    assert report.rows_read == case.rows
    responses = {record.response for record in found}
    wanted = {f"good {i}" for i in range(min(case.good, GOOD))}
    wanted |= {"good 99"} if case.good > GOOD else set()
    assert wanted <= responses
    # Beyond 5% the default refuses; below it the same rows are there.
    assert isinstance(strict, Log) == (report.bad_rows <= 0.05 * report.rows_read)


@pytest.mark.parametrize("case", CORPUS, ids=lambda case: case.name)
def test_the_command_tells_it_in_a_line(
    case: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    from editloop.cli import main

    monkeypatch.chdir(tmp_path)
    path = case.make(tmp_path)
    options = dict(case.options)
    parallel = options.pop("parallel", None)
    arguments = ["--parallel", str(path), *parallel] if parallel else [str(path)]
    for name, value in options.items():
        arguments += [f"--{name}", value if isinstance(value, str) else ",".join(value)]
    call = ["editloop", "export", *arguments, "--to", "costs", "--max-bad-share", "1", "--out", "out.jsonl"]
    monkeypatch.setattr(sys, "argv", call)
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    if end.value.code:
        assert end.value.code == 1 and err.startswith("editloop: error: ") and err.count("\n") == 1
        assert not (tmp_path / "out.jsonl").exists()
    else:
        assert out.startswith(f"read {case.rows} rows of ") if case.rows is not None else out


LINES = "".join(json.dumps(good(i)) + "\n" for i in range(GOOD)).encode()
TABLE = "\n".join([",".join(COLUMNS), *(",".join(good(i).values()) for i in range(GOOD))]).encode()
ARRAY = json.dumps([good(i) for i in range(GOOD)]).encode()
SEEDS = {
    "log.jsonl": LINES,
    "log.csv": TABLE,
    "log.tsv": TABLE.replace(b",", b"\t"),
    "log.json": ARRAY,
    "log.jsonl.gz": gzip.compress(LINES, mtime=0),
    "log": LINES.decode().encode("utf-16"),
}
PIECES = [
    b"\n",
    b"\r",
    b'"',
    b"'",
    b",",
    b"\t",
    b";",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\\",
    b"\x00",
    b"\xff",
    b"\xfe",
]
PIECES += [b"NaN", b"1e999", b"null", b"\\ud800", b"\xef\xbb\xbf", b"\x1f\x8b", b"PAR1", b'"edit": ""', b"{}"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(SEEDS)),
    st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 30), st.sampled_from(PIECES) | st.binary(max_size=4)),
        min_size=1,
        max_size=6,
    ),
)
def test_whatever_happens_to_the_bytes_of_a_log_the_rows_add_up(
    name: str, changes: list[tuple[float, int, bytes]]
) -> None:
    data = SEEDS[name]
    for place, cut, piece in changes:
        at = int(place * len(data))
        data = data[:at] + piece + data[at + cut :]
    with tempfile.TemporaryDirectory() as folder:
        path, quarantine = Path(folder) / name, Path(folder) / "quarantine.jsonl"
        path.write_bytes(data)
        found = read(path, quarantine, max_bad_share=1.0, empty="deleted")
        if isinstance(found, Log):
            accounted(found, quarantine)


text = st.text(st.characters(blacklist_categories=["Cs"]), max_size=20)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(
        st.tuples(text, text.filter(lambda each: each.strip() != ""), st.none() | text),
        min_size=1,
        max_size=6,
    ),
    st.sampled_from(["a.jsonl", "a.csv", "a.tsv", "a.parquet"]),
)
def test_what_was_written_is_read_back_row_by_row(rows: list[tuple[str, str, str | None]], name: str) -> None:
    from editloop.edits import Record

    records = [
        Record(id=str(i), context=context, response=response, edit=edit)
        for i, (context, response, edit) in enumerate(rows)
    ]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write_log(records, path)
        log = read_log(path, keep_duplicates=True)
        assert list(log) == records and log.report.rows_read == len(records)
