"""The store: its tables, its lock, its keys and its errors, on SQLite and on PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, event, insert, inspect, text
from sqlalchemy.exc import IntegrityError

from editloop.errors import ConfigError, StoreError, StoreUnreachableError
from editloop.store import migrate, reads, writes
from editloop.store.database import Store
from editloop.store.keys import create_key, digest, list_keys, revoke_key
from editloop.store.schema import drafts, log_view, metadata


def test_tables_are_those_of_the_migrations(url: str) -> None:
    store = Store(url)
    store.open()
    found = inspect(store.reader)
    for table in metadata.sorted_tables:
        columns = {each["name"]: each for each in found.get_columns(table.name)}
        assert set(columns) == set(table.columns.keys())
        for column in table.columns:
            assert columns[column.name]["nullable"] == column.nullable, column
        indexes = {each["name"]: each["column_names"] for each in found.get_indexes(table.name)}
        for index in table.indexes:
            assert indexes[index.name] == list(index.columns.keys())
    assert found.get_view_names() == ["log"]
    assert [each["name"] for each in found.get_columns("log")] == list(log_view.columns.keys())
    store.close()


def test_a_connection_that_is_in_use_is_closed_when_it_is_done(url: str) -> None:
    store = Store(url)
    store.open()
    used: list[object] = []

    def close_meanwhile(connection: Connection) -> None:
        event.listen(store.reader, "close", lambda closed, _: used.append(closed))
        store.close()
        assert connection.scalar(text("SELECT 1")) == 1

    store.read(close_meanwhile)
    assert len(used) == 1
    store.open()  # and it can be opened again
    assert store.fact("salt")
    store.close()


def test_an_error_of_the_database_tells_no_text(url: str) -> None:
    """It goes to the log, where nobody removes it."""
    store = Store(url)
    store.open()
    row = {"response_id": "1", "time": 1.0, "response": "Secret"}
    with pytest.raises(IntegrityError) as shown, store.writer.begin() as connection:
        for _ in range(2):
            connection.execute(insert(drafts).values(row))
    assert "Secret" not in str(shown.value)
    store.close()


def test_keys_are_kept_as_digests_and_revoked(url: str) -> None:
    store = Store(url)
    store.open()
    key = create_key(store, "app")
    create_key(store, "boss", "admin")
    assert [(each.name, each.role, each.revoked) for each in list_keys(store)] == [
        ("app", "app", None),
        ("boss", "admin", None),
    ]
    assert list_keys(store)[0].digest == digest(key) and key not in str(list_keys(store))
    with pytest.raises(Exception, match="there is a key of this name"):
        create_key(store, "app")
    revoke_key(store, "app")
    assert list_keys(store)[0].revoked is not None
    with pytest.raises(Exception, match="no such key"):
        revoke_key(store, "app")
    store.close()


def test_a_name_that_is_taken_in_the_meantime_is_reported(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes make a key of the same name at the same time: both see that it is free."""
    store = Store(url)
    store.open()
    create_key(store, "app")
    monkeypatch.setattr("editloop.store.keys.list_keys", lambda _: [])
    with pytest.raises(ConfigError, match="there is a key of this name"):
        create_key(store, "app")
    store.close()


def test_a_second_process_on_sqlite_is_refused(tmp_path: Path) -> None:
    first = Store(str(tmp_path / "edits.db"))
    first.open()
    with pytest.raises(StoreError, match="another process serves from this store"):
        Store(str(tmp_path / "edits.db")).open()
    first.close()
    again = Store(str(tmp_path / "edits.db"))
    again.open()
    again.close()


def test_a_store_of_a_newer_version_is_refused(url: str) -> None:
    store = Store(url)
    store.open()
    with store.writer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '99'"))
    store.close()
    with pytest.raises(StoreError, match=r"newer version: '99' \(update editloop\)"):
        store.open()
    store.close()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("oracle://x/y", "no such kind of database"),
        ("nonsense://", "no such kind of database"),
        ("sqlite://", "a store in memory would lose edits"),
        ("://x", "not the address of a database"),
    ],
)
def test_an_address_that_is_none_is_reported(url: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        Store(url)


def test_a_folder_that_cannot_be_written_is_reported() -> None:
    with pytest.raises(StoreError, match="the store cannot be written"):
        Store("/proc/nowhere/edits.db").open()


def test_a_database_that_does_not_answer_is_reported() -> None:
    with pytest.raises(StoreError, match="does not answer"):
        Store("postgresql://nobody@127.0.0.1:1/none").open()


def test_a_transaction_that_fails_writes_nothing(url: str) -> None:
    store = Store(url)
    store.open()
    with pytest.raises(ZeroDivisionError), store.transaction() as connection:
        writes.set_fact(connection, "a", "1")
        raise ZeroDivisionError
    assert store.read(lambda c: reads.fact(c, "a")) is None
    with (
        pytest.raises(StoreUnreachableError, match="does not answer: gone"),
        store.transaction() as connection,
    ):
        writes.set_fact(connection, "a", "1")
        raise OSError("gone")
    with store.transaction() as connection:
        writes.set_fact(connection, "a", "2")
        writes.set_fact(connection, "a", "3")
    assert store.read(lambda c: reads.facts_named(c, ("a", "b"))) == {"a": "3"}
    store.close()


def test_only_what_is_not_removed_yet_is_found_for_removal(url: str) -> None:
    store = Store(url)
    store.open()
    with store.transaction() as connection:
        for number, user in enumerate(("ada", "bob", "ada", None)):
            writes.insert_draft(connection, {"response_id": str(number), "time": float(number), "user": user})
        writes.remove_texts(connection, ["0"])

    def found(**which: object) -> list[str]:
        return sorted(store.read(lambda c: reads.removable_drafts(c, 9, **which)))  # type: ignore[arg-type]

    assert found(user="ada") == ["2"]
    assert found(after=0.0, until=2.0) == ["1", "2"]
    assert found(after=2.0, until=2.0) == []
    assert len(store.read(lambda c: reads.removable_drafts(c, 1, after=-1.0, until=9.0))) == 1
    store.close()


def test_responses_without_feedback_are_overdue_in_their_window(url: str) -> None:
    store = Store(url)
    store.open()
    with store.transaction() as connection:
        for seq, (response_id, revision, time) in enumerate(
            [("a", -1, 1.0), ("b", -1, 2.0), ("b", 1, 2.5), ("c", -1, 3.0), ("c", -2, 3.5), ("d", -1, 4.0)], 1
        ):
            row = {
                "seq": seq,
                "response_id": response_id,
                "revision": revision,
                "time": time,
                "kind": "decided",
            }
            writes.insert_event(connection, row)
    rows = store.read(lambda c: reads.overdue_decisions(c, 0.0, 3.0, 9))
    assert [(row.response_id, row.time) for row in rows] == [("a", 1.0), ("c", 3.0)]
    assert store.read(lambda c: reads.overdue_decisions(c, 1.0, 2.0, 9)) == []
    assert len(store.read(lambda c: reads.overdue_decisions(c, 0.0, 9.0, 2))) == 2
    store.close()


@pytest.mark.parametrize("revision", ["1", "2", "3", "6"])
def test_a_store_of_an_earlier_version_gets_what_it_lacks(url: str, revision: str) -> None:
    store = Store(url)
    with store.writer.begin() as connection:
        config = Config()
        config.set_main_option("script_location", "editloop.store:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        assert ScriptDirectory.from_config(config).get_current_head() == migrate.REVISION
    store.open()
    for table in metadata.sorted_tables:
        found = inspect(store.reader).get_columns(table.name)
        assert {each["name"] for each in found} == set(table.columns.keys())
    assert store.read(lambda c: reads.draft(c, "none")) is None
    store.close()
