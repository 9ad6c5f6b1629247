"""Events are folded in the order of their numbers, each once, whatever happens between writers."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.errors import StoreError, StoreUnreachableError
from editloop.online import Decided
from editloop.serve.loop import follower as module
from editloop.serve.loop.events import read_events
from editloop.serve.loop.follower import EventOrder, Follower
from editloop.store import locks, reads, writes
from editloop.store.database import Connection, Store
from editloop.store.testing import Postgres


def event(name: object) -> Decided:
    return Decided(str(name), "", "a@1", 1.0, 1)


def row(name: object) -> dict[str, Any]:
    return {"time": 1.0, "kind": "decided", "revision": -1, **event(name)._asdict()}


def named(found: list[Any]) -> list[str]:
    return [each.response_id for _, each in found]


@pytest.fixture(autouse=True)
def _any_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine nothing is given up, so that what is found does not depend on its speed."""
    monkeypatch.setattr("editloop.store.database.TIMEOUT_SECONDS", 100)
    monkeypatch.setattr("editloop.store.database.IDLE_SECONDS", 90)


# The order alone


def test_what_comes_in_order_is_passed_on_at_once() -> None:
    order = EventOrder(4)
    assert order.add([(5, event("a")), (6, event("b"))]) == [(5, event("a")), (6, event("b"))]
    assert (order.seq, order.highest, order.known) == (6, 6, {})
    assert order.add([(5, event("a"))]) == []  # it is known


def test_an_event_waits_for_the_numbers_before_it() -> None:
    order = EventOrder(4)
    assert named(order.add([(8, event("8")), (5, event("5")), (6, event("6"))])) == ["5", "6"]
    assert (order.seq, set(order.known)) == (6, {8})
    assert named(order.add([(7, event("7"))])) == ["7", "8"]


def test_a_number_that_will_never_come_is_passed_over() -> None:
    order = EventOrder(4)
    order.add([(6, event("6")), (9, event("9"))])
    assert named(order.add([], settled=5)) == ["6"]
    assert order.add([], settled=7) == [] and order.seq == 7
    assert named(order.add([], settled=8)) == ["9"]


def test_what_is_not_folded_has_its_number_all_the_same() -> None:
    order = EventOrder(0)
    assert named(order.add([(1, event("1")), (2, None), (3, event("3"))])) == ["1", "3"]


@given(st.lists(st.booleans(), max_size=30), st.randoms(use_true_random=False))
def test_any_order_of_arrival_gives_the_same_order(comes: list[bool], chance: random.Random) -> None:
    """Some numbers never come, which is known up to the first one that may still come."""
    numbers = [n for n, each in enumerate(comes, 1) if each]
    order, found, come = EventOrder(0), [], set[int]()
    for n in chance.sample(numbers, len(numbers)):
        come.add(n)
        open_numbers = [m for m in numbers if m not in come]
        settled = min(open_numbers, default=len(comes) + 1) - 1 if chance.random() < 0.5 else 0
        found += [seq for seq, _ in order.add([(n, event(n))], settled=settled)]
        assert found == numbers[: len(found)]
        assert order.seq >= order.highest or order.seq + 1 > settled
        assert order.seq + 1 not in come
    found += [seq for seq, _ in order.add([], settled=len(comes))]
    assert found == numbers and not order.known


# On PostgreSQL, with transactions that are driven by hand


class Hand:
    """A transaction that writes, one step at a time."""

    def __init__(self, store: Store, *names: str, alone: bool = False) -> None:
        self.connection = store.writer.connect()
        self.transaction = self.connection.begin()
        locks.lock_writers(self.connection, None if alone else names)

    def insert(self, name: object) -> int:
        return writes.insert_event(self.connection, row(name))

    def commit(self) -> None:
        self.transaction.commit()
        self.connection.close()

    def abort(self) -> None:
        self.transaction.rollback()
        self.connection.close()


@pytest.fixture
def store(postgres: Postgres) -> Iterator[Store]:
    opened = Store(postgres.new())
    opened.open()
    yield opened
    opened.close()


def looks(follower: Follower, times: int = 4) -> list[str]:
    """What some looks find."""
    return [name for _ in range(times) for name in named(follower.follow())]


def test_a_number_that_is_missing_is_waited_for(store: Store) -> None:
    follower, late, early = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    assert (late.insert("a"), early.insert("b"), late.insert("c")) == (1, 2, 3)
    early.commit()
    assert looks(follower) == []
    late.commit()
    assert named(follower.follow()) == ["a", "b", "c"]


def test_a_number_of_a_transaction_that_was_undone_is_passed_over(store: Store) -> None:
    follower, undone, kept = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    assert (undone.insert("a"), kept.insert("b")) == (1, 2)
    kept.commit()
    assert looks(follower) == []
    undone.abort()
    assert looks(follower) == ["b"]
    assert follower.seq == 2


def test_whoever_has_begun_later_is_not_waited_for(store: Store) -> None:
    follower, undone, kept = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    undone.insert("a")
    kept.insert("b")
    kept.commit()
    assert looks(follower) == []  # and knows who may bring the missing number
    later = Hand(store, "c")
    assert later.insert("c") == 3
    undone.abort()
    assert looks(follower) == ["b"]
    later.commit()
    assert looks(follower, 1) == ["c"]


def test_a_lower_number_may_be_of_a_later_transaction(store: Store) -> None:
    """PostgreSQL's number of a transaction is no bound: here the open one has the higher of the two."""
    follower, first, second = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    for each in (first, second):
        each.connection.exec_driver_sql("SELECT pg_current_xact_id()")
    assert (second.insert("b"), first.insert("a")) == (1, 2)
    first.commit()
    with store.reader.connect() as connection:
        known = connection.exec_driver_sql("SELECT pg_snapshot_xmax(pg_current_snapshot())").scalar_one()
        mine = second.connection.exec_driver_sql("SELECT pg_current_xact_id()").scalar_one()
        assert int(mine) >= int(known)
    assert looks(follower) == []
    second.commit()
    assert looks(follower, 1) == ["b", "a"]


def test_a_transaction_of_another_database_is_not_waited_for(store: Store, postgres: Postgres) -> None:
    follower, undone, kept = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    with psycopg.connect(postgres.url) as elsewhere:
        elsewhere.execute("SELECT pg_current_xact_id()")
        undone.insert("a")
        kept.insert("b")
        undone.abort()
        kept.commit()
        assert looks(follower) == ["b"]


def test_a_row_that_is_refused_takes_its_number_along(store: Store) -> None:
    follower, hand = Follower(store, 0), Hand(store, "a")
    hand.insert("a")
    hand.commit()
    again = Hand(store, "a")
    with pytest.raises(Exception, match="events_once"):
        again.insert("a")
    again.abort()
    kept = Hand(store, "b")
    assert kept.insert("b") == 3
    kept.commit()
    assert looks(follower) == ["a", "b"]


def test_numbers_that_a_killed_database_skips_are_passed_over(store: Store, postgres: Postgres) -> None:
    follower, hand = Follower(store, 0), Hand(store, "a")
    hand.insert("a")
    hand.commit()
    postgres.stop(at_once=True)
    postgres.start()
    with store.transaction(["b"]) as connection:
        number = writes.insert_event(connection, row("b"))
    assert number > 2  # PostgreSQL logs 32 numbers at a time
    assert looks(follower) == ["a", "b"]
    assert follower.seq == number


def test_a_transaction_that_excludes_all_others_settles_all_numbers(store: Store) -> None:
    follower, undone, kept = Follower(store, 0), Hand(store, "a"), Hand(store, "b")
    undone.insert("a")
    kept.insert("b")
    undone.abort()
    kept.commit()
    with store.transaction() as connection:
        written = [(writes.insert_event(connection, row("c")), event("c"))]
        before = follower.read_before(connection, written)
    assert named(follower.wrote(written, before)) == ["b", "c"]
    with store.transaction() as connection:
        written = [(writes.insert_event(connection, row("d")), event("d"))]
        assert follower.read_before(connection, written) is None
        assert follower.read_before(connection, []) is not None
    assert named(follower.wrote(written, None)) == ["d"]
    with store.transaction() as connection:
        assert follower.read_before(connection, []) is None


def test_a_backlog_is_read_in_batches(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    follower, undone = Follower(store, 0), Hand(store, "a")
    undone.insert("undone")
    own = Hand(store, "own")
    for each in range(10):
        if each == 8:
            written = [(own.insert("own"), event("own"))]
            continue
        with store.transaction([str(each)]) as connection:
            writes.insert_event(connection, row(each))
    own.commit()
    assert follower.wrote(written) == []
    assert looks(follower, 2) == []
    undone.abort()
    assert looks(follower) == ["0", "1", "2", "3", "4", "5", "6", "7", "own", "9"]


def test_a_store_that_stops_answering_in_between_takes_no_event_away(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_ROWS", 3)
    for each in range(5):
        with store.transaction([str(each)]) as connection:
            writes.insert_event(connection, row(each))
    follower, follow, asked = Follower(store, 0), store.follow, []

    def once(query: Callable[[Connection], Any]) -> Any:
        asked.append(1)
        if len(asked) == 2:
            raise StoreUnreachableError("the store does not answer")
        return follow(query)

    monkeypatch.setattr(store, "follow", once)
    with pytest.raises(StoreUnreachableError):
        follower.follow()
    assert follower.seq == 3
    assert named(follower.follow()) == ["0", "1", "2", "3", "4"]


# Locks


def waits(work: Callable[[], None]) -> threading.Thread:
    """A thread that has begun some work, and is not done with it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    return thread


def writing(store: Store, names: tuple[str, ...] | None) -> Callable[[], None]:
    def work() -> None:
        with store.transaction(names):
            pass

    return work


def test_only_who_depends_on_the_same_waits(store: Store) -> None:
    held = Hand(store, "a", "b")
    writing(store, ("c", "d"))()
    waiting = [waits(writing(store, names)) for names in (("b", "c"), ("a",), None)]
    held.commit()
    for each in waiting:
        each.join(10)
        assert not each.is_alive()


def test_one_that_excludes_all_others_lets_nobody_pass(store: Store) -> None:
    held = Hand(store, alone=True)
    waiting = waits(writing(store, ()))
    held.abort()
    waiting.join(10)
    assert not waiting.is_alive()


def test_opposite_orders_of_names_do_not_block_each_other(store: Store) -> None:
    names = [f"response {n}" for n in range(20)]
    chance, failed = random.Random(0), []

    def work(order: list[list[str]]) -> None:
        try:
            for each in order:
                with store.transaction(each):
                    pass
        except Exception as error:
            failed.append(error)

    orders = [[chance.sample(names, 15) for _ in range(20)] for _ in range(4)]
    threads = [threading.Thread(target=work, args=(order,)) for order in orders]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert failed == []


def test_a_replica_that_is_paused_in_a_transaction_stops_the_others_only_for_a_time(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("editloop.store.database.IDLE_SECONDS", 1)
    with ExitStack() as opened:
        stores = [Store(postgres.new())]
        stores.append(Store(stores[0].url.render_as_string(hide_password=False)))
        for each in stores:
            each.open()
            opened.callback(each.close)
        paused, follower = Hand(stores[0], "a"), Follower(stores[1], 0)
        paused.insert("a")
        with stores[1].transaction(["b"]) as connection:  # others go on at once
            writes.insert_event(connection, row("b"))
        with stores[1].transaction(["a"]):  # and who needs the same, a little later
            pass
        assert looks(follower) == ["b"]
        with pytest.raises(Exception, match="idle-in-transaction"):
            paused.insert("c")
        paused.connection.close()
        with stores[0].transaction(["c"]) as connection:  # it goes on when it is awake
            writes.insert_event(connection, row("c"))
        with stores[0].transaction(patient=True) as connection:
            time.sleep(1.2)
            writes.insert_event(connection, row("d"))
        assert looks(follower) == ["c", "d"]


def test_a_connection_that_the_database_has_closed_is_replaced(store: Store, postgres: Postgres) -> None:
    def close_all() -> None:
        with psycopg.connect(postgres.url, autocommit=True) as connection:
            database = store.url.database
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (database,)
            )

    follower = Follower(store, 0)
    close_all()
    with store.transaction(["a"]) as connection:
        writes.insert_event(connection, row("a"))
    close_all()
    assert named(follower.follow()) == ["a"]
    with pytest.raises(StoreError, match="does not answer"), store.transaction(["b"]) as connection:
        close_all()
        writes.insert_event(connection, row("b"))
    assert looks(follower) == []


def test_what_is_read_after_a_lock_is_what_its_last_holder_left(postgres: Postgres) -> None:
    """Whatever isolation the database has by default."""
    url = postgres.new()
    with psycopg.connect(url, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    with replicas(url, 2) as (a, b):
        held, found = Hand(a, "a"), []

        def work() -> None:
            with b.transaction(["a"]) as connection:
                found.append(reads.last_seq(connection))

        waiting = waits(work)
        held.insert("a")
        held.commit()
        waiting.join(10)
        assert found == [1]


# Many writers at once


@contextmanager
def replicas(url: str, n: int) -> Iterator[list[Store]]:
    with ExitStack() as opened:
        made = [Store(url) for _ in range(n)]
        for each in made:
            each.open()
            opened.callback(each.close)
        yield made


@pytest.mark.parametrize("seed", range(3))
def test_all_followers_see_what_a_replay_sees(postgres: Postgres, seed: int) -> None:
    """Three replicas write at once, a quarter of the transactions is undone, some exclude all others."""

    def work(store: Store, follower: Follower, name: str, found: list[Any], failed: list[Exception]) -> None:
        chance = random.Random(f"{seed} {name}")

        def transaction(number: int) -> None:
            alone = chance.random() < 0.1
            written: list[Any] = []
            before = None
            with store.transaction(None if alone else [name]) as connection:
                for part in range(chance.randrange(1, 4)):
                    each = f"{name}{number}.{part}"
                    written.append((writes.insert_event(connection, row(each)), event(each)))
                    time.sleep(chance.random() * 0.004)
                if chance.random() < 0.25:
                    raise KeyError
                if alone:
                    before = follower.read_before(connection, written)
            found.extend(follower.wrote(written, before))

        try:
            for number in range(40):
                with suppress(KeyError):
                    transaction(number)
                if chance.random() < 0.4:
                    found.extend(follower.follow())
        except Exception as error:
            failed.append(error)

    with replicas(postgres.new(), 3) as stores:
        followers = [Follower(each, 0) for each in stores]
        found: list[list[Any]] = [[] for _ in stores]
        failed: list[Exception] = []
        threads = [
            threading.Thread(target=work, args=(store, follower, name, mine, failed))
            for store, follower, name, mine in zip(stores, followers, "abc", found, strict=True)
        ]
        for each in threads:
            each.start()
        for each in threads:
            each.join(120)
        assert failed == []
        for follower, mine in zip(followers, found, strict=True):
            for _ in range(4):
                mine.extend(follower.follow())
        replay = list(read_events(stores[0]))
        assert found[0] == found[1] == found[2] == replay
        assert len(replay) < replay[-1][0]  # there were gaps


def test_one_replica_reads_nothing(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("the store was read")

    with replicas(postgres.new(), 1) as (store,):
        follower = Follower(store, 0)
        monkeypatch.setattr(store, "follow", never)
        for number in range(1, 6):
            with store.transaction([str(number)]) as connection:
                written = [(writes.insert_event(connection, row(number)), event(number))]
            assert follower.wrote(written) == written
        assert follower.seconds_left > 0.4  # and it need not look soon
