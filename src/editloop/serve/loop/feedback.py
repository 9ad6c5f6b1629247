"""The feedback loop: decides which policy answers, takes edits in, and learns from them.

    decide   choose an arm for a response, by the fold and the decisions in flight    (`state`)
    record   write commands in one thread, where many share a commit                  (`commands`, `writer`)
    learn    fold each new event of the store, this process's or another replica's    (`follower`, `state`)

A snapshot caches the fold (`snapshots`), and maintenance does what becomes due with time (`maintenance`).
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from editloop.autopilot.stages import Transition
from editloop.edits import Context, get_cost
from editloop.errors import EditLoopError, StoreError
from editloop.online import Arms, Bandit, BanditConfig, Decided, Event
from editloop.serve.loop.access import StoreAccess
from editloop.serve.loop.appender import Prices
from editloop.serve.loop.commands import Command, RecordDecision, RecordReroute, RecordResponse
from editloop.serve.loop.costs import CostVersion
from editloop.serve.loop.edit_commands import EditResult, RecordEdit
from editloop.serve.loop.edit_costs import Known, look_up, priced
from editloop.serve.loop.ending import Ending
from editloop.serve.loop.maintenance import Maintenance
from editloop.serve.loop.non_answers import NonAnswers
from editloop.serve.loop.recovery import recover
from editloop.serve.loop.scopes import Scope, Scopes
from editloop.serve.loop.snapshots import Snapshot, Snapshots
from editloop.serve.loop.spool import SPOOL
from editloop.serve.loop.state import LoopState
from editloop.serve.loop.state_folder import claim_folder
from editloop.serve.loop.writer import Writer
from editloop.serve.problem import Problem
from editloop.store import reads
from editloop.store.audit import AuditEntry
from editloop.store.database import TIMEOUT_SECONDS, Connection, Store

__all__ = ["FeedbackLoop"]

T = TypeVar("T")

log = logging.getLogger("editloop.serve")


class FeedbackLoop:
    """Decisions and feedback over a store.

    Args:
        store: The store; `start` opens it.
        folder: For the snapshot and the spool; made if it is not there.
        config: How arms are chosen, and the cost of an edit.
        scope: Whether one bandit decides for all, with the user as a feature of the request, or each user has
            one that also learns from the others' edits.
        expire_after: Seconds after which no edit of a response is expected any more. A later one is kept, but
            the bandit does not learn from it.
        keep_for: Seconds after which texts are removed; None keeps them.
        reprice: Whether all edits are measured again at the start, by the cost of `config`.

    Attributes:
        cost: The cost of an edit.
        state: What is known: the fold of the store's events, and the decisions in flight.
        non_answers: How often each arm writes drafts that are no answers.
        scopes: Makes the scopes and digests by which users and requests are recognised.
        token_secret: The store's key for edit tokens, from `start` on; empty if it is not known yet.
        subscribers: Called with each event that enters the fold.
    """

    def __init__(
        self,
        store: Store,
        folder: Path,
        config: BanditConfig | None = None,
        *,
        scope: Scope = "all",
        expire_after: float = 7 * 86_400.0,
        keep_for: float | None = None,
        reprice: bool = False,
    ) -> None:
        self.store, self.folder = store, folder
        self.config = config or BanditConfig()
        self.subscribers: list[Callable[[Event | Transition], None]] = []
        self.state, self.scopes = LoopState(Bandit((), self.config)), Scopes(scope)
        self.token_secret = ""
        self.non_answers = NonAnswers()
        self.snapshots = Snapshots(folder / "snapshot.json", self.config)
        self._expire_after, self._keep_for, self._reprice = expire_after, keep_for, reprice
        self.cost = get_cost(self.config.cost)
        self._cost_version = CostVersion(self.config.cost, 0)
        self._claim: int | None = None  # descriptor of the state folder's lock
        self._access: StoreAccess | None = None
        self._maintenance: Maintenance | None = None
        self._snapshotting: asyncio.Task[None] | None = None
        self._maintaining: asyncio.Task[None] | None = None
        self._watch: asyncio.Task[None] | None = None

    @property
    def bandit(self) -> Bandit:
        """The fold of the store's events."""
        return self.state.bandit

    @property
    def access(self) -> StoreAccess:
        """How the store is read and written; available from `start` on."""
        assert self._access is not None, "the loop has not been started"
        return self._access

    @property
    def writer(self) -> Writer:
        """What writes to the store; available from `start` on."""
        return self.access.writer

    @property
    def maintenance(self) -> Maintenance:
        """Expiry, retention and removal; available from `start` on."""
        assert self._maintenance is not None, "the loop has not been started"
        return self._maintenance

    @property
    def down(self) -> str | None:
        """Why the store cannot be written; None if it can."""
        return self.access.down

    # Start and end

    async def start(self) -> None:
        """Fold the store's events, and begin to write to it.

        Raises:
            StoreError: The store cannot be used, or its edits are measured by another cost. A store that does
                not answer is no error if there is a snapshot: the loop then starts from the snapshot.
        """
        try:
            self.state, self.scopes.salt, self.token_secret, self._cost_version = await asyncio.to_thread(
                recover, self.store, self.snapshots, self.config, reprice=self._reprice
            )
            self._claim = claim_folder(self.folder)
        except BaseException:
            await asyncio.to_thread(self.store.close)
            raise
        with suppress(StoreError):  # it is down: counting begins now
            rows = await asyncio.to_thread(self.store.read, reads.non_answers)
            self.non_answers = NonAnswers((row.policy, row.non_answer, row.n) for row in rows)
        writer = Writer(
            self.store,
            self.folder / SPOOL,
            self.edit_cost,
            self._learn,
            self.state.seq,
            self._cost_version,
            Prices.of(self.config),
        )
        # What a process that was killed has left in the spool is decided, but in no event yet. It counts as
        # in flight until the writer has written it. A kill after its commit can leave it in both places.
        for command in writer.spooled():
            if isinstance(command, RecordDecision) and command.decision.response_id not in self.bandit.state:
                self.state.add_in_flight(command.decision)
        writer.start()
        self._access = StoreAccess(self.store, writer)
        self._maintenance = Maintenance(
            self._access, expire_after=self._expire_after, keep_for=self._keep_for
        )
        self._snapshotting = asyncio.create_task(self.snapshots.keep_writing(self.take_snapshot))
        self._maintaining = asyncio.create_task(self._maintenance.run())
        self._watch = asyncio.create_task(self._maintenance.watch_writer())

    async def stop(self) -> None:
        """Write what is under way, and a last snapshot, and close the store.

        The order matters: the writer delivers its last events before the snapshot is taken, and the store is
        closed when nothing uses it any more.
        """
        if self._snapshotting is not None:
            self._snapshotting.cancel()
        if self._maintaining is not None:
            self.maintenance.end()
            await asyncio.wait([self._maintaining], timeout=TIMEOUT_SECONDS)
            self._maintaining.cancel()  # a database that hangs is not waited for any longer
        try:
            if self._access is not None:
                await self.writer.stop()
                await asyncio.sleep(0)  # the writer's last events are delivered by the event loop
                await self.snapshots.write(self.take_snapshot())
        except (OSError, ValueError, EditLoopError) as error:
            log.warning("the snapshot could not be written: %s", error)
        finally:
            if self._watch is not None:  # only now: without it, a writer that is stuck would never stop
                self._watch.cancel()
            await asyncio.to_thread(self.store.close)
            if self._claim is not None:
                os.close(self._claim)
                self._claim = None

    def take_snapshot(self) -> Snapshot:
        """The fold as it is at this moment."""
        state = self.state
        return Snapshot(
            state.bandit,
            state.seq,
            self.scopes.salt,
            self.token_secret,
            self._cost_version.repriced,
            state.policies,
            state.intervals,
            state.stages,
        )

    def _learn(self, new: Sequence[tuple[int, Event | Transition]]) -> None:
        """Fold new events of the store. The writer calls this in the event loop's thread."""
        for seq, event in new:
            self.state.learn(seq, event)
            for on_event in self.subscribers:
                try:
                    on_event(event)
                except Exception:  # the fold and the requests that wait for this commit must go on
                    log.exception("a subscriber has failed on an event")

    # Decide

    def choose(
        self, response_id: str, user: str | None, arm: str | None = None, context: Context | None = None
    ) -> Decided:
        """Decide which arm answers.

        Args:
            response_id: The response.
            user: Who asks; None if that is not known.
            arm: The arm that the client asked for; None lets the bandit choose.
            context: What is asked, of which features are taken; None if it is not known.

        Raises:
            Problem: As in `LoopState.choose`.
        """
        features = None
        if context is not None:
            try:
                features = self.bandit.features_of(context, self.scopes.key(user))
            except Exception as error:  # a feature map of another package must not stop the answers
                log.warning("%s: the features of a request cannot be computed: %r", response_id, error)
        if arm is None:
            arm = self.state.canary_for(self.scopes.key(user), response_id)
        return self.state.choose(response_id, self.scope_of(user), arm, features)

    def scope_of(self, user: str | None) -> str:
        """Whose bandit decides for a user: one of their own, if they have an arm of their own."""
        key = self.scopes.key(user)
        return key if key and key in self.bandit.state.owners.values() else self.scopes.of(user)

    # Record

    async def write(self, command: Command[T], *, hurry: bool = True) -> T:
        """What a command returns, once it is on the disk; see `Writer.write`.

        Raises:
            Problem: The command was refused; or 503, the store is down.
        """
        try:
            return await self.access.write(command, hurry=hurry)
        except Exception:
            # Not after a cancellation: the command is in the writer's queue then and will become an event.
            failed: object = command
            if isinstance(failed, RecordDecision):
                self.state.remove_in_flight(failed.decision.response_id)
            raise

    async def reroute(self, response_id: str, arm: str, attempt: int) -> None:
        """Record that another arm answers in place of the one that was chosen."""
        await self.write(RecordReroute(response_id, arm, attempt, time.time()))

    async def finish(
        self,
        response_id: str,
        ending: Ending,
        *,
        arm: str = "",
        asked: int = 0,
        seconds: float | None = None,
    ) -> tuple[str, str] | None:
        """Record how a response ended. No edit is expected of a response without a text.

        Args:
            response_id: The response.
            ending: How it ended.
            arm: Who wrote it.
            asked: The characters of the request.
            seconds: The time that the policy took.

        Returns:
            The text that is in the store already, and its arm, if another attempt finished first; else None.
        """
        rule = None
        if ending.response is not None:
            try:
                rule = self.non_answers.examine(arm, ending.response, asked)
            except Exception as error:  # a rule of another package must not lose the response
                log.warning("%s: the rules for non-answers have failed: %r", response_id, error)
        command = RecordResponse(
            response_id,
            ending.response if ending.text_digest is None else None,
            ending.finish,
            time.time(),
            rule,
            ending.compared,
            seconds,
            ending.logprob,
            ending.prompt_tokens,
            ending.completion_tokens,
            ending.message,
            ending.text_digest,
            arm or None,
        )
        return await self.write(command)

    async def edits(self, given: Sequence[RecordEdit]) -> list[EditResult | Problem]:
        """Record users' edits, in their order, in as few commits as possible.

        Args:
            given: The edits. Those of responses of which the costs can be known get them here.

        Returns:
            What became of each, or the reason why it was refused, as in `RecordEdit` and `text_sent_back`.

        Raises:
            Problem: 503, the store is down. Some of the edits may have been recorded.
        """
        there = {each.response_id for each in given if each.draft is None}
        known = await self.read(lambda c: look_up(c, there)) if there else Known({}, {})
        commands = await asyncio.to_thread(priced, given, known, self.cost, self.scopes.digest)
        # Each is handed to the writer when its task begins, and tasks begin in the order of their making.
        written = [self.write(each) for each in commands if not isinstance(each, Problem)]
        results = iter(await asyncio.gather(*written, return_exceptions=True))
        found: list[EditResult | Problem] = []
        for command in commands:
            each = command if isinstance(command, Problem) else next(results)
            if isinstance(each, BaseException) and not (isinstance(each, Problem) and each.status < 500):
                raise each
            found.append(each)
        return found

    async def set_arms(self, command: Command[Arms]) -> Arms:
        """Begin an epoch."""
        epoch = await self.write(command)
        await self.look_up_policies()
        return epoch

    async def forget(self, user: str, entry: AuditEntry | None = None) -> int:
        """Remove the texts of a user; see `Maintenance.forget`."""
        return await self.maintenance.forget(user, entry)

    def edit_cost(self, response: str, edit: str) -> float:
        """The cost of an edit."""
        return float(self.cost([response], [edit])[0])

    # Read

    async def read(self, query: Callable[[Connection], T]) -> T:
        """What a query finds.

        Raises:
            Problem: 503, the store is down or does not answer in time.
        """
        return await self.access.read(query)

    async def look_up_policies(self) -> None:
        """Read from the store in which run folders the policies of all arms are."""
        self.state.policies = await self.read(reads.policy_locations)
