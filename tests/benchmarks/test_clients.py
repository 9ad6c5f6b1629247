"""Real clients of OpenAI's API on a real server: each script of `clients/` in an environment of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import ROOT
from benchmarks.clients import FEATURES, SCRIPTS, Script, page, server_for_clients, try_client
from editloop.errors import RunError

RESULTS = ROOT / "benchmarks/results/clients.json"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_for_clients(tmp_path_factory.mktemp("clients")) as address:
        yield address


@pytest.mark.parametrize("script", SCRIPTS, ids=[script.name for script in SCRIPTS])
def test_all_features_work_with(script: Script, server: str) -> None:
    if not (ROOT / script.needs).exists():
        pytest.skip(f"{script.needs} is missing: make clients")
    found = try_client(script, server)
    assert {name: one for name, one in found["features"].items() if one != "ok"} == {}
    assert len(found["features"]) >= 4 and set(found["features"]) <= set(FEATURES)


def test_a_script_that_reports_nothing_is_an_error(tmp_path: Path) -> None:
    silent = Script("silent", ("python3", "-c", "raise SystemExit('no such client')"), "")
    with pytest.raises(RunError, match="silent has failed: 'no such client'"):
        try_client(silent, "http://127.0.0.1:1")


def test_the_page_shows_what_failed_and_what_was_not_tried() -> None:
    features = {"chat": "ok", "tools": "HTTPError: 400"}
    clients = [{"client": "some", "version": "1.2", "id": "`answer.id`", "features": features}]
    shown = page({"features": {"chat": "a chat", "models": "models", "tools": "tools"}, "clients": clients})
    assert "| client | a chat | models | tools |" in shown
    assert "| some 1.2 | yes |  | HTTPError: 400 |" in shown and "| some 1.2 | `answer.id` |" in shown


def test_the_results_are_of_the_versions_that_are_pinned() -> None:
    """A new pin needs a new table: `make bench NAME=clients`."""
    pinned: set[tuple[str, str]] = set()
    for listed in ("current", "openai2"):
        text = (ROOT / f"clients/python/{listed}.txt").read_text(encoding="utf-8")
        pinned |= set(re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE))
    locked = json.loads((ROOT / "clients/node/package-lock.json").read_text(encoding="utf-8"))["packages"]
    pinned |= {
        (f"{name.removeprefix('node_modules/')} (JS)", each["version"])
        for name, each in locked.items()
        if name
    }
    rows = json.loads(RESULTS.read_text(encoding="utf-8"))["clients"]
    assert len(rows) == len(SCRIPTS)
    assert {(row["client"], row["version"]) for row in rows} <= pinned
    assert {one for row in rows for one in row["features"].values()} == {"ok"}
