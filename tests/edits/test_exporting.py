"""Exports: the exact rows of TRL's dataset formats, and that TRL's loader takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from editloop.edits import Record, export
from editloop.edits.exports import EXPORTS
from editloop.errors import ConfigError, EmptyViewError
from plug_in import install_plug_in

CHAT = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]


def log(context: Any) -> list[Record]:
    given: list[dict[str, Any]] = [
        {"id": "1", "edit": "a x"},
        {"id": "2", "edit": "a b"},
        {"id": "3"},
        {"id": "4", "status": "expired"},
    ]
    return [Record(context=context, response="a b", **each) for each in given]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize(
    ("to", "context", "rows", "dropped"),
    [
        (
            "trl-sft",
            "q",
            [{"prompt": "q", "completion": "a x"}, {"prompt": "q", "completion": "a b"}],
            {"pending": 1, "expired": 1},
        ),
        (
            "trl-sft",
            CHAT,
            [{"prompt": CHAT, "completion": said("a x")}, {"prompt": CHAT, "completion": said("a b")}],
            {"pending": 1, "expired": 1},
        ),
        (
            "trl-dpo",
            "q",
            [{"prompt": "q", "chosen": "a x", "rejected": "a b"}],
            {"unedited": 1, "pending": 1, "expired": 1},
        ),
        (
            "trl-dpo",
            CHAT,
            [{"prompt": CHAT, "chosen": said("a x"), "rejected": said("a b")}],
            {"unedited": 1, "pending": 1, "expired": 1},
        ),
        (
            "trl-kto",
            "q",
            [
                {"prompt": "q", "completion": "a x", "label": True},
                {"prompt": "q", "completion": "a b", "label": True},
                {"prompt": "q", "completion": "a b", "label": False},
            ],
            {"pending": 1, "expired": 1},
        ),
        (
            "costs",
            CHAT,
            [
                {"id": "1", "context": CHAT, "response": "a b", "cost": 0.5},
                {"id": "2", "context": CHAT, "response": "a b", "cost": 0.0},
            ],
            {"pending": 1, "expired": 1},
        ),
    ],
)
def test_rows(tmp_path: Path, to: str, context: Any, rows: list[Any], dropped: dict[str, int]) -> None:
    path = tmp_path / "out.jsonl"
    done = export(iter(log(context)), path, to)
    assert [json.loads(line) for line in path.read_text().splitlines()] == rows
    assert (done.rows, done.dropped) == (len(rows), dropped)


def test_an_empty_view_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    with pytest.raises(EmptyViewError, match="no record is left for trl-dpo: '1 unedited'"):
        export(log("q")[1:2], path, "trl-dpo")
    assert list(tmp_path.iterdir()) == []


def test_unknown_format_names_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"use one of {', '.join(EXPORTS)}"):
        export(log("q"), tmp_path / "out", "openai")


def test_an_export_from_another_package_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from collections import Counter\n"
    source += "def ids(records, cost):\n    return ({'id': each.id} for each in records), Counter()\n"
    install_plug_in(tmp_path, monkeypatch, "editloop.exports", source, ids="ids")
    assert export(log("q"), tmp_path / "ids.jsonl", "ids").rows == 4
    assert (tmp_path / "ids.jsonl").read_text().splitlines()[0] == '{"id": "1"}'
