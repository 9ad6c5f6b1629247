"""No verb replaces what it reads, whatever path, suffix or link the file is named by."""

from __future__ import annotations

import inspect
import json
import os
from contextlib import closing
from pathlib import Path
from typing import Any, get_args

import pytest
import typer

from calling import fails, rows
from editloop.cli.app import app
from editloop.cli.places import Place, guarded, place_of, stem
from editloop.edits import locate


def commands(group: typer.Typer) -> list[Any]:
    found = [each.callback for each in group.registered_commands]
    return found + [verb for sub in group.registered_groups for verb in commands(sub.typer_instance)]


def is_path(annotation: Any) -> bool:
    return annotation is Path or any(is_path(each) for each in get_args(annotation))


@pytest.mark.parametrize("verb", commands(app), ids=lambda verb: f"{verb.__module__}.{verb.__name__}")
def test_every_path_of_every_verb_says_whether_it_is_read_or_written(verb):
    parameters = inspect.signature(verb, eval_str=True).parameters
    silent = [
        name
        for name, each in parameters.items()
        if (is_path(each.annotation) or name == "log") and place_of(each) is None
    ]
    assert silent == []
    if any(place_of(each) is Place.WRITTEN for each in parameters.values()):
        assert verb.__code__ is guarded(verb).__code__, "the frame compares its paths"


WAYS = {
    "itself": lambda log: log,
    "by another path": lambda log: log.parent / "sub" / ".." / log.name,
    "by a symbolic link": lambda log: log.parent / "soft.json",
    "by a hard link": lambda log: log.parent / "hard.json",
}


@pytest.fixture
def linked(tmp_path: Path) -> Path:
    log = rows(tmp_path / "log.jsonl", 8)
    (tmp_path / "sub").mkdir()
    (tmp_path / "soft.json").symlink_to(log)
    os.link(log, tmp_path / "hard.json")
    return log


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    "call",
    [
        ["diagnose"],
        ["inspect"],
        ["export", "--to", "costs"],
        ["fit", "--base", "lab:email"],
    ],
    ids=lambda call: call[0],
)
def test_out_is_not_the_log(editloop, linked, call, way):
    before = linked.read_bytes()
    verb, *flags = call
    fails(editloop(verb, linked, *flags, "--out", WAYS[way](linked)), "replace its own input", "--out")
    assert linked.read_bytes() == before


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("call", [["diagnose"], ["inspect"], ["export", "--to", "costs"]])
def test_the_quarantine_is_neither_the_log_nor_the_output(editloop, linked, call, way):
    before = linked.read_bytes()
    verb, *flags = call
    fails(editloop(verb, linked, *flags, "--quarantine", WAYS[way](linked)), "replace its own input")
    made = linked.parent / "made.json"
    made.write_text("{}")
    written = ["--out", made.parent / "sub" if verb == "inspect" else made]
    place = linked.parent / "sub" / "inspect.json" if verb == "inspect" else made
    fails(editloop(verb, linked, *flags, *written, "--quarantine", place), "replace its own input")
    assert linked.read_bytes() == before and made.read_text() == "{}"


def test_names_that_a_verb_makes_up_are_compared_too(editloop, tmp_path):
    log = rows(tmp_path / "x.json", 8)
    before = log.read_bytes()
    (tmp_path / "x-diagnosis.json").symlink_to(log)
    (tmp_path / "x.costs.jsonl").symlink_to(log)
    (tmp_path / "x-inspect").mkdir()
    os.link(log, tmp_path / "x-inspect" / "inspect.json")
    for call in (["diagnose"], ["export", "--to", "costs"], ["inspect"]):
        fails(editloop(call[0], log, *call[1:]), "replace its own input")
    (tmp_path / "run").mkdir()
    os.link(log, tmp_path / "run" / "run.json")
    fails(editloop("fit", log, "--base", "lab:email", "--out", "run"), "replace its own input")
    assert log.read_bytes() == before


def test_neither_configuration_contexts_nor_texts_are_replaced(editloop, tmp_path):
    rows(tmp_path / "log.jsonl", 8)
    (tmp_path / "c.yaml").write_text("map: status=\n")
    fails(editloop("diagnose", "log.jsonl", "--config", "c.yaml", "--out", "c.yaml"), "replace its own input")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "config.json").write_text("words " * 100)
    fails(editloop("lab", "pretrain", "--text", "base/config.json", "--out", "base"), "replace its own input")
    for name in ("mt", "pe"):
        (tmp_path / name).write_text("x\n" * 8)
    files = ["--parallel", "log.jsonl", "mt", "pe"]
    fails(editloop("diagnose", *files, "--out", "pe"), "replace its own input")
    assert (tmp_path / "pe").read_text() == "x\n" * 8


def test_a_store_is_not_replaced_by_what_is_read_of_it(editloop, tmp_path):
    import sqlite3

    with closing(sqlite3.connect(tmp_path / "edits.db")) as database, database:
        database.execute("CREATE TABLE log (context, response, edit)")
        database.execute("INSERT INTO log VALUES ('c', 'r', 'e')")
    before = (tmp_path / "edits.db").read_bytes()
    store = f"sqlite:///{tmp_path}/edits.db"
    for call in (["export", "--to", "costs"], ["diagnose"]):
        fails(editloop(call[0], store, *call[1:], "--out", "edits.db"), "replace its own input")
    assert (tmp_path / "edits.db").read_bytes() == before


def test_a_loop_of_links_is_one_line(editloop, tmp_path):
    rows(tmp_path / "log.jsonl", 8)
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    fails(editloop("diagnose", "log.jsonl", "--out", "a"), "cannot be resolved")
    fails(editloop("diagnose", "a"), "cannot be resolved")
    fails(editloop("fit", "log.jsonl", "--base", "lab:email", "--out", "a"), "cannot be resolved")


def test_a_library_call_does_not_write_over_what_it_streams(tmp_path):
    from editloop.edits import export, iter_records, write_log
    from editloop.errors import ConfigError

    log = rows(tmp_path / "log.jsonl", 8)
    before = log.read_bytes()
    for write in (write_log, lambda stream, path: export(stream, path, "costs")):
        with pytest.raises(ConfigError, match="replace its own input"):
            write(iter_records(log), log)
    assert log.read_bytes() == before


@pytest.mark.parametrize(
    ("log", "name"),
    [("a/b.jsonl", "b"), ("b.v2.csv", "b.v2"), ("b.csv.gz", "b"), ("b", "b"), ("-", "stdin")],
)
def test_what_files_made_from_a_log_are_named_after(log, name):
    assert stem(locate(log)) == name


def test_parallel_files_stand_for_the_log(editloop, tmp_path):
    for name, lines in {"src": "a\nb\n", "mt": "x\ny\n", "pe": "x\nz\n"}.items():
        (tmp_path / name).write_text(lines)
    status, out, err = editloop("inspect", "--parallel", "src", "mt", "pe")
    assert status == 0, err
    assert "read 2 rows of src (parallel lines, JSONL): 0 bad" in out
    (tmp_path / "c.yaml").write_text("parallel: [src, mt, pe]\n")
    assert editloop("inspect", "--config", "c.yaml")[1] == out
    fails(editloop("inspect", "src", "--parallel", "src", "mt", "pe"), "LOG", status=2)


def test_what_was_read_is_told_with_what_had_to_be_decided(editloop, tmp_path):
    lines = ["context;response;edit;time", "c;r1;;yesterday", 'c;"r;\n;2";e;2026-01-02', "c;r3;e;"]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    fails(editloop("inspect", "log.csv"), "1 of 3 edits are empty", "--empty deleted", "--empty pending")
    status, out, _ = editloop("inspect", "log.csv", "--empty", "deleted")
    assert status == 0
    assert "read 3 rows of log.csv (CSV, semicolon, quoted): 0 bad, 0 duplicates; 1 empty edits" in out
    assert "1 times cannot be read and are left out (--map time= leaves out all)" in out
    assert "1 suspicious, the first at line 3: a cell holds a line break and a delimiter after it" in out
    (tmp_path / "log.txt").write_text("c\tr\te\n")
    status, out, _ = editloop(
        "inspect", "log.txt", "--columns", "context,response,edit", "--delimiter", "\\t"
    )
    assert status == 0 and "log.txt (TSV, tab, not quoted, no header)" in out


def test_report_accounts_for_every_row(tmp_path):
    from editloop.edits import read_log

    log = rows(tmp_path / "log.jsonl", 3)
    row = log.read_text().splitlines()[0].replace('"id": "0"', '"id": "x"')
    log.write_text(log.read_text() + row + "\n{\n")
    report = read_log(log, max_bad_share=1.0).report
    assert (report.rows_read, report.records, report.bad_rows, report.dropped_duplicates) == (5, 3, 1, 1)
    kept = json.loads(json.dumps(report.to_json()))
    assert kept["read_as"] == ["JSONL"] and kept["records"] == 3
