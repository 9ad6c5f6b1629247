"""The benchmark of the dashboard's queries, on a store of few rounds."""

from __future__ import annotations

import json
from pathlib import Path

from sqlalchemy import func, select

from benchmarks import dashboard
from editloop.progress import WarningCallback
from editloop.store.database import Store
from editloop.store.schema import drafts, edits, events
from editloop.store.users import UserFilter, user_page


def test_each_query_is_measured(tmp_path: Path) -> None:
    measured = dashboard.run(tmp_path, rounds=60, users=8)
    assert all(each["seconds"] > 0 for each in measured["queries"].values())
    kept = json.loads((tmp_path / "dashboard.json").read_text())
    assert kept["rounds"] == 60 and kept["queries"].keys() == measured["queries"].keys()
    assert "| users by cost |" in (tmp_path / "dashboard.md").read_text()


def test_the_store_has_the_rounds(tmp_path: Path) -> None:
    store = Store(str(tmp_path / "edits.db"))
    store.open()
    dashboard.fill(store, 200, 5, 0, WarningCallback())
    tables = (drafts, edits, events)
    count = {
        each.name: store.read(lambda c, table=each: c.scalar(select(func.count()).select_from(table)))
        for each in tables
    }
    assert count["drafts"] == 200 and count["events"] == 200 + count["edits"] > 350
    page = store.read(lambda c: user_page(c, UserFilter(), limit=10))
    assert page.total == 5 and sum(row.rounds for row in page.rows) == 200
    assert sum(row.edits for row in page.rows) < 200  # some rounds have no edit, and revisions count once
    store.close()
