"""The live loop: decides which policy answers, takes edits in, and knows at all times what was learned.

What it knows is the fold of the store's events, in their order, and nothing else: a decision counts as in
flight from the moment it is made, and enters the fold when it is on the disk. A snapshot in the state folder
is a cache of the fold; with it the loop starts even while the database is down.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sqlalchemy import ColumnElement, Connection, select

from editloop.edits import get_cost
from editloop.errors import BanditError, EditLoopError, StoreError, StoreUnreachableError
from editloop.io import atomic_file
from editloop.online import Arms, Bandit, BanditConfig, Decided, Event
from editloop.serve.loop.commands import Ask, Edit, Edited, Expire, Finish, Forget, ForgetUser, Route
from editloop.serve.loop.costs import CostVersion, settle_cost
from editloop.serve.loop.events import read_events
from editloop.serve.loop.writer import Entry, Writer
from editloop.serve.problem import Problem, unavailable
from editloop.store.database import PATIENCE, Store
from editloop.store.schema import DECIDED, EXPIRED, drafts, events, policies

__all__ = ["Live", "Scope"]

Scope = Literal["user", "all"]

SNAPSHOT_EVERY = 30.0
"""Least seconds between snapshots, while there is something new."""

SNAPSHOT_SHARE = 1000.0
"""And so many times the seconds for which the last one has kept requests waiting."""

TEND_EVERY = 2.0
"""Seconds between looks for responses that have expired or are too old to be kept."""

LOOK_BACK_EVERY = 3600.0
"""Seconds between looks at all texts that are too old, not only at those that have become it."""

SCRUB_EVERY = 0.1
"""Seconds between two tries to do what something else stands in the way of."""

STANDS_STILL = "the store does not answer: it takes too long"

AT_ONCE = 500

log = logging.getLogger("editloop.serve")


class _Snapshot(NamedTuple):
    """The fold of a store's first events, `seq` of them, after its costs were counted again so many times."""

    bandit: Bandit
    seq: int
    salt: str
    repriced: int
    policies: dict[str, tuple[str, str]]


class Live:
    """Decisions and feedback over a store.

    Args:
        store: The store.
        folder: For the snapshot and the spool; made if it is not there.
        config: How arms are chosen, and the cost of an edit.
        scope: Whether each user has a bandit of their own, which learns from the others', or all one.
        expire_after: Seconds after which no edit of a response is waited for; a later one is kept, but
            counts for nothing.
        keep_for: Seconds after which texts are removed; None keeps them.
        reprice: Whether the costs of all edits are counted again when it starts, by the cost of `config`.

    Attributes:
        bandit: The fold.
        heard: Called with each event that enters it.
        policies: Run folder and name of the policy that an arm is.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        config: BanditConfig | None = None,
        *,
        scope: Scope = "user",
        expire_after: float = 7 * 86_400.0,
        keep_for: float | None = None,
        reprice: bool = False,
    ) -> None:
        self.store, self.folder, self.scope = store, folder, scope
        self.config = config or BanditConfig()
        self.expire_after, self.keep_for, self._reprice = expire_after, keep_for, reprice
        self.bandit = Bandit((), self.config)
        self.heard: list[Callable[[Event], None]] = []
        self.policies: dict[str, tuple[str, str]] = {}
        self._cost = get_cost(self.config.cost)
        self._version = CostVersion(self.config.cost, 0)
        self._flying: dict[str, tuple[str, str]] = {}
        self._by_scope: dict[str, Counter[str]] = {}
        self._salt = ""
        self._seq, self._written = 0, 0
        self._expired_until = self._kept_until = self._looked_back = 0.0
        self._scrubbed = False
        self._tasks: list[asyncio.Task[None]] = []
        self._writer: Writer | None = None

    @property
    def writer(self) -> Writer:
        """What writes to the store; there from `start` on."""
        assert self._writer is not None
        return self._writer

    @property
    def down(self) -> str | None:
        """Why the store cannot be written; None if it can."""
        return self.writer.down

    # Beginning and end

    async def start(self) -> None:
        """Learn what the store knows and begin to write to it.

        Raises:
            StoreError: The store cannot be used, or counts edits by another cost; if it only does not
                answer, and there is a snapshot, the loop goes on from that.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"the state folder cannot be written, {error.strerror}"
            raise StoreError(what, seen=str(self.folder), do="choose another --store or --state") from error
        try:
            seq = self._seq = await asyncio.to_thread(self._restore)
        except BaseException:
            await asyncio.to_thread(self.store.close)
            raise
        spool = self.folder / "spool.jsonl"
        self._writer = Writer(self.store, spool, self.price, self._learn, seq, self._version)
        for entry in self._writer.spooled():
            if isinstance(entry, Ask) and entry.decision.response_id not in self.bandit.state:
                self._take_off(entry.decision)
        self._writer.start()
        chores = (self._keep_snapshots, self._tend, self._watch)
        self._tasks = [asyncio.create_task(chore()) for chore in chores]

    async def stop(self) -> None:
        """Write what is under way, and a last snapshot."""
        for task in self._tasks[:2]:  # the writer is watched until it has ended
            task.cancel()
        await asyncio.gather(*self._tasks[:2], return_exceptions=True)
        try:
            if self._writer is not None:
                await self._writer.stop()
                await asyncio.sleep(0)  # what the writer told last
                await self._snapshot()
        except (OSError, ValueError, EditLoopError) as error:
            log.warning("no snapshot: %s", error)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.to_thread(self.store.close)

    def _restore(self) -> int:
        """The fold of the store's events, from the snapshot on if there is one; number of the last."""
        known = self._read_snapshot()
        try:
            self.store.open()
            self._salt = self.store.fact("salt")
            self._version, told = settle_cost(self.store, self.config.cost, reprice=self._reprice)
            last = self.store.last()
        except StoreUnreachableError as error:
            if known is None:
                raise
            log.warning("%s; going on from the snapshot", error)
            self.bandit, self._salt, self.policies = known.bandit, known.salt, known.policies
            self._version = self._version._replace(repriced=known.repriced)
            return known.seq
        if told is not None:
            log.warning("%s", told)
        self.policies = self.store.read(_policies)
        seq = 0
        mine = self._salt, self._version.repriced
        if known is not None and known.seq <= last and (known.salt, known.repriced) == mine:
            self.bandit, seq = known.bandit, known.seq
        self._written = seq
        for number, event in read_events(self.store, seq):
            self._fold(event)
            last = max(last, number)
        return last

    @property
    def _snapshot_file(self) -> Path:
        return self.folder / "snapshot.json"

    def _read_snapshot(self) -> _Snapshot | None:
        try:
            row = json.loads(self._snapshot_file.read_text(encoding="utf-8"))
            bandit = Bandit.from_json(row["bandit"])
            if json.dumps(row["bandit"]["config"]) != json.dumps(
                self.config.model_dump(mode="json"), allow_nan=False
            ):
                return None  # it counted otherwise
            found = {str(arm): (str(run), str(name)) for arm, (run, name) in row["policies"].items()}
            return _Snapshot(bandit, int(row["seq"]), str(row["salt"]), int(row.get("repriced", 0)), found)
        except (OSError, ValueError, KeyError, TypeError, EditLoopError):
            return None

    async def _snapshot(self) -> float:
        """Write a snapshot; returns for how many seconds nothing else was done."""
        started = time.perf_counter()
        row = {"seq": self._seq, "salt": self._salt, "policies": self.policies}
        row |= {"repriced": self._version.repriced}
        row |= {"bandit": self.bandit.to_json()}
        took = time.perf_counter() - started
        self._written = self._seq
        await asyncio.to_thread(self._keep, row)
        return took

    def _keep(self, row: dict[str, Any]) -> None:
        with atomic_file(self._snapshot_file) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            # In parts: the event loop has its turns.
            for part in json.JSONEncoder(allow_nan=False).iterencode(row):
                file.write(part)

    async def _keep_snapshots(self) -> None:
        pause = SNAPSHOT_EVERY
        while True:
            await asyncio.sleep(pause)
            if self._seq > self._written:
                try:
                    pause = max(SNAPSHOT_EVERY, SNAPSHOT_SHARE * await self._snapshot())
                except (OSError, ValueError, EditLoopError) as error:
                    log.warning("no snapshot: %s", error)

    # Learning

    def _learn(self, new: Sequence[tuple[int, Event]]) -> None:
        for self._seq, event in new:  # behind `writer.last`, which the writer's thread moves
            self._fold(event)
            if isinstance(event, Decided):
                self._land(event.response_id)
            for hear in self.heard:
                hear(event)

    def _fold(self, event: Event) -> None:
        try:
            self.bandit.state.apply(event)
        except BanditError as error:  # of a replica that knew less
            log.warning("an event was passed over: %s", error)

    def _take_off(self, decision: Decided) -> None:
        self._flying[decision.response_id] = (decision.scope, decision.arm)
        self._by_scope.setdefault(decision.scope, Counter())[decision.arm] += 1

    def _land(self, response_id: str) -> None:
        found = self._flying.pop(response_id, None)
        if found is None:
            return
        scope, arm = found
        counts = self._by_scope[scope]
        counts[arm] -= 1
        if not any(counts.values()):
            del self._by_scope[scope]

    # What requests ask for

    def scope_of(self, user: str | None) -> str:
        """The scope of a user: not their name, which goes when they are forgotten."""
        if user is None or self.scope == "all":
            return ""
        return hashlib.blake2b(f"{self._salt}:{user}".encode(), digest_size=12).hexdigest()

    def digest(self, content: Any) -> str:
        """By which a content is known again, and nobody else can tell what it was."""
        text = json.dumps([self._salt, content], sort_keys=True, default=str, allow_nan=False)
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()

    def price(self, response: str, edit: str) -> float:
        """What an edit costs."""
        return float(self._cost([response], [edit])[0])

    def choose(self, response_id: str, user: str | None, arm: str | None = None) -> Decided:
        """The decision for a response, in flight from here on; `arm` is one that the client asked for.

        Raises:
            Problem: There is nothing to choose from, or the id was used.
        """
        state, scope = self.bandit.state, self.scope_of(user)
        if not state.arms:
            raise Problem(503, "no policy is served yet", code="no_policies", retry_after=5)
        if response_id in self._flying or response_id in state:
            raise Problem(409, "another response has this id", code="id_reused", seen=response_id)
        if arm is None:
            decision = self.bandit.choose(response_id, scope=scope, in_flight=self._by_scope.get(scope))
        else:
            decision = Decided(response_id, scope, arm, 1.0, state.epoch)
        self._take_off(decision)
        return decision

    def others(self, scope: str, tried: Sequence[str]) -> list[str]:
        """The arms that were not tried, the cheapest in this scope first."""
        _, observed, means = self.bandit.beliefs(scope)
        ranked = sorted(
            zip(self.bandit.arms, observed, means, strict=True), key=lambda each: (each[1] == 0, each[2])
        )
        return [arm for arm, _, _ in ranked if arm not in tried]

    async def write(self, entry: Entry[Any], *, hurry: bool = True) -> Any:
        """What an entry returns when it is on the disk; see `Writer.write`.

        Raises:
            Problem: It was refused; 503 while the store is down.
        """
        try:
            return await self.writer.write(entry, hurry=hurry)
        except Exception as error:
            if isinstance(entry, Ask):
                self._land(entry.decision.response_id)
            if isinstance(error, StoreError):
                raise unavailable(error) from error
            raise

    async def route(self, response_id: str, arm: str, attempt: int) -> None:
        """Another arm answers in place of the one that was chosen."""
        await self.write(Route(response_id, arm, attempt, time.time()))

    async def finish(self, response_id: str, response: str | None, reason: str) -> str | None:
        """A response has come to its end; without a text it failed, and no edit of it is waited for.

        Returns:
            The text that is there already, if another try was quicker.
        """
        there: str | None = await self.write(Finish(response_id, response, reason, time.time()))
        return there

    async def edit(
        self, response_id: str, edit: str | None, *, revision: int | None = None, key: str | None = None
    ) -> Edited:
        """Take a user's edit in, None for accepted as it was.

        Raises:
            Problem: As of `Edit`; 503 while the store is down.
        """
        cost = None
        if edit is not None:
            response = await self.read(
                lambda c: c.scalar(select(drafts.c.response).where(drafts.c.response_id == response_id))
            )
            if response is not None:  # off the thread that writes
                cost = await asyncio.to_thread(self.price, response, edit)
        done: Edited = await self.write(Edit(response_id, edit, revision, key, time.time(), cost))
        return done

    async def read(self, query: Callable[[Any], Any]) -> Any:
        """What a query finds.

        Raises:
            Problem: 503 while the store is down.
        """
        down = None if self.store.is_sqlite else self.down  # a full disk can be read
        try:
            if down is None:
                async with asyncio.timeout(2 * PATIENCE):
                    return await asyncio.to_thread(self.store.read, query)
        except (StoreError, TimeoutError) as error:
            raise unavailable(error if isinstance(error, StoreError) else STANDS_STILL) from error
        raise unavailable(down)

    async def set_arms(self, entry: Entry[Arms]) -> Arms:
        """Begin an epoch."""
        epoch: Arms = await self.write(entry)
        await self.look_up_policies()
        return epoch

    async def look_up_policies(self) -> None:
        """Learn where the policies of all arms lie."""
        self.policies = await self.read(_policies)

    async def forget(self, user: str) -> int:
        """Remove the texts of a user from the database and its files; returns of how many responses.

        What waits in the spool is written first, and goes with the rest; what waits in those of other
        replicas goes when it comes.

        Raises:
            Problem: 503 while the store is down, or while somebody reads what was there before.
        """
        await self._patiently(lambda: self.write(ForgetUser(user, time.time())))
        removed = await self._forget(drafts.c.user == user)
        self._scrubbed = False
        await self._patiently(self._scrub)
        return removed

    async def _patiently(self, work: Callable[[], Awaitable[Any]]) -> None:
        """Do it again, for a while, if something else is in its way that will end."""
        deadline = time.monotonic() + 2 * PATIENCE
        while True:
            try:
                await work()
                return
            except Problem:
                if self.down is not None or time.monotonic() > deadline:
                    raise
            await asyncio.sleep(SCRUB_EVERY)

    async def _scrub(self) -> None:
        """Leave nothing of removed texts in the database's files."""
        try:
            self._scrubbed = self._scrubbed or await asyncio.to_thread(self.store.scrub)
        except StoreError as error:
            raise unavailable(error) from error
        if not self._scrubbed:
            what = "the texts are removed, but not from the files yet: somebody reads what was there before"
            raise Problem(503, what, code="store_busy", retry_after=2, do="ask again")

    async def _forget(self, which: ColumnElement[bool]) -> int:
        """Remove texts, some at a time: others have their turns."""
        there = select(drafts.c.response_id).where(which, drafts.c.finish.is_distinct_from("removed"))
        done = 0
        while ids := await self.read(lambda c: list(c.scalars(there.limit(AT_ONCE)))):
            await self.write(Forget(ids, time.time()))
            done += len(ids)
        return done

    # What time does

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY)
            self.writer.cut_if_stuck()

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(TEND_EVERY)
            try:
                await self.expire()
                if self.keep_for is not None:
                    await self._remove_old(self.keep_for)
                await self._scrub()
            except Problem as error:
                if error.code != "store_busy":  # it is tried again, as long as it takes
                    log.warning("%s", error)

    async def _remove_old(self, keep_for: float) -> None:
        """Remove texts that are too old; every while also those that came late, out of a spool."""
        now = time.time()
        if now - self._looked_back > LOOK_BACK_EVERY:
            self._kept_until, self._looked_back = 0.0, now
        until = now - keep_for
        if await self._forget((drafts.c.time > self._kept_until) & (drafts.c.time <= until)):
            self._scrubbed = False
        self._kept_until = until

    async def expire(self) -> int:
        """Give up waiting for what has waited too long; returns for how many responses."""
        until, done = time.time() - self.expire_after, 0
        answer = events.alias()
        answered = select(answer.c.seq).where(
            answer.c.response_id == events.c.response_id, answer.c.revision >= EXPIRED
        )
        old = select(events.c.response_id, events.c.time).where(
            events.c.revision == DECIDED,
            events.c.time > self._expired_until,
            events.c.time <= until,
            ~answered.exists(),
        )
        while rows := await self.read(lambda c: c.execute(old.order_by(events.c.time).limit(AT_ONCE)).all()):
            done += await self.write(Expire([row.response_id for row in rows], time.time()))
        self._expired_until = until  # no decision will come that is older than one window
        return done


def _policies(connection: Connection) -> dict[str, tuple[str, str]]:
    """Run folder and name of each policy that ever was an arm."""
    rows = connection.execute(select(policies.c.arm, policies.c.run, policies.c.name))
    return {row.arm: (row.run, row.name) for row in rows}
