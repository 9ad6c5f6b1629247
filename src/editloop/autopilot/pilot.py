"""The autopilot of a store: looks at it again and again, and takes the one step that is due.

Everything that it knows is in the store, so it may be killed at any point and started again, here or on
another machine. Each step is one transaction that checks the lease and the stage that it leaves.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import (
    ShadowPair,
    adopt,
    crown,
    judge_alarms,
    judge_arms,
    judge_canary,
    judge_shadow,
)
from editloop.autopilot.fitter import FitResult, Fitter
from editloop.autopilot.gates import gate_objections
from editloop.autopilot.generation import as_evidence, read_generation
from editloop.autopilot.lease import Lease
from editloop.autopilot.ledger import NOTICED, WAITS, read_stages, transition_of, write_transitions
from editloop.autopilot.look import Look, look
from editloop.autopilot.notices import Notices
from editloop.autopilot.personal import (
    BUDGET_SHARE,
    GONE,
    begin_arm,
    heir_of,
    judge_personal,
    next_arm,
    user_of,
)
from editloop.autopilot.shadow import Scorer, ShadowCosts
from editloop.autopilot.stages import Lineage, Stage, Stages, Transition
from editloop.autopilot.starts import BASE, first_weights, run_of, start_path
from editloop.autopilot.triggers import (
    Supply,
    has_risen,
    may_fit,
    minutes_spent,
    refit_reason,
    waits_for,
)
from editloop.errors import AutopilotError, EditLoopError, StoreUnreachableError
from editloop.store import writes
from editloop.store.database import Store
from editloop.store.rounds import count_new_edits, stage_rows

__all__ = ["Autopilot"]

log = logging.getLogger("editloop.autopilot")

LOOK_SHARE = 0.05
"""The most of its time that the autopilot looks at the store: many rounds take seconds to read."""

RETRY_SECONDS = 5.0
"""Seconds until the next look at a store that does not answer."""


class Autopilot:
    """Steps of the autopilot.

    Args:
        store: The store; opened by `run`, or before `step` is called.
        config: The configuration.
        fitter: What fits.
        runs: The folder for the run folders of the generations.
        clock: The time in seconds since 1970.
        notices: What sends notices.
        lease: The lease of the store.
        scorer: What predicts the costs of drafts in the shadow; None for nothing.
    """

    def __init__(
        self,
        store: Store,
        config: AutopilotConfig,
        fitter: Fitter,
        runs: Path,
        *,
        clock: Callable[[], float] = time.time,
        notices: Notices | None = None,
        lease: Lease | None = None,
        scorer: Scorer | None = None,
    ) -> None:
        self.store, self.config, self.fitter, self.runs = store, config, fitter, runs
        self._clock, self._lease = clock, lease or Lease(store, seconds=config.lease)
        self._notices = notices or Notices(config.webhook)
        self._scorer, self._shadow = scorer, ShadowCosts(store, scorer)
        self._is_fitting = False
        self._fit_began = 0.0
        self._result: FitResult | None = None
        self._had_lease = False
        self._learned = 0.0, 0
        self._noticed = 0
        self._waits = ""

    # Running

    def run(self, is_ending: Callable[[float], bool]) -> None:
        """Take steps until the end.

        Args:
            is_ending: Waits so many seconds, and returns whether to end; `threading.Event.wait` is one.

        Raises:
            StoreError: The store can never be used.
        """
        pause, is_open = 0.0, False
        ended = threading.Event()
        beat = threading.Thread(target=self._keep_lease, args=(ended,), name="lease", daemon=True)
        beat.start()
        try:
            while not is_ending(pause):
                began = time.monotonic()
                pause = self.config.interval
                try:
                    if not is_open:
                        self.store.open(claim=False)
                        is_open = True
                    self.step()
                    pause = max(pause, (time.monotonic() - began) / LOOK_SHARE)
                except StoreUnreachableError as error:
                    log.warning("%s", error)
                    pause = max(pause, RETRY_SECONDS)
                except (AutopilotError, OSError) as error:
                    log.warning("%s", error)
                except Exception:  # such as of an alarm or a gate of another package; the next look may work
                    log.exception("a look at the store has failed")
        finally:
            ended.set()
            self.fitter.stop()
            if self._scorer is not None:
                self._scorer.stop()
            self._notices.close()
            try:
                self._lease.release()
            except EditLoopError as error:
                log.warning("%s", error)
            self.store.close()

    def _keep_lease(self, ended: threading.Event) -> None:
        """Renew the lease while the steps take their time; without it, stop the fit.

        Another autopilot takes the lease over when it was not renewed for its whole time, and begins the fit
        in the same folder. So this one is stopped when two thirds of that time are over.
        """
        renewed = time.monotonic()
        while not ended.wait(self.config.lease / 3):
            if not self._had_lease:
                renewed = time.monotonic()
                continue
            try:
                is_ours = self._lease.renew()
            except EditLoopError:
                is_ours = time.monotonic() - renewed < 2 * self.config.lease / 3
            else:
                renewed = time.monotonic()
            if not is_ours:
                log.warning("the lease is lost; the fit is stopped")
                self._had_lease = self._is_fitting = False
                self.fitter.stop()

    def step(self) -> list[Transition]:
        """Look at the store, and take what is due; returns the transitions that were written.

        Raises:
            StoreUnreachableError: The store does not answer. The step is taken later.
            AutopilotError: Somebody changed a stage in the same moment, or another autopilot took over.
        """
        if not self._lease.take():
            if self._had_lease:
                log.warning("another autopilot works on this store; this one waits")
                self.fitter.stop()
            self._had_lease = self._is_fitting = False
            self._waits = ""  # the other one notes for what it waits
            return []
        self._had_lease = True
        now = self._clock()
        seen = self.store.read(lambda c: look(c, now))
        self._send_notices(seen.rows, seen.noticed)
        if seen.is_paused:
            return []
        written = self._judge(seen, now) or self._fit(seen, now)
        if written:  # and somebody may have written beside it
            self._send_notices(self.store.read(stage_rows), self._noticed)
        return written

    def _write(
        self, transitions: Iterable[Transition], added: Sequence[dict[str, Any]] = ()
    ) -> list[Transition]:
        """Write transitions, all or none, if this process still has the lease."""
        transitions = list(transitions)
        with self.store.transaction() as connection:
            self._lease.check(connection)
            write_transitions(connection, transitions, added)
        return transitions

    def _send_notices(self, rows: Sequence[Any], noticed: int) -> None:
        """Send notices of the transitions that are new, whoever wrote them.

        The number of the last one is kept here, too: while it cannot be written, such as on a full disk, no
        notice is sent again and again.
        """
        self._noticed = max(self._noticed, noticed)
        for row in rows:
            if row.seq > self._noticed:
                self._notices.send(transition_of(row))
                self._noticed = row.seq
        if self._noticed > noticed:
            self._set_fact(NOTICED, str(self._noticed))

    def _set_fact(self, name: str, value: str) -> None:
        with self.store.transaction() as connection:
            writes.set_fact(connection, name, value)

    # Stages

    def _judge(self, seen: Look, now: float) -> list[Transition]:
        """Take the first step that follows from the rounds."""
        stages, arms, watch = seen.stages, seen.arms, seen.watch
        if new := adopt(stages, arms, now, seen.owners):
            return self._write(new)
        alarm = judge_alarms(stages, watch, arms, now, tuple(seen.owners))
        if alarm is not None:
            return self._write([alarm])
        first = crown(stages, watch, arms, now) or judge_canary(stages, watch, self.config, now)
        if first is None and (last := stages.the(Stage.SHADOW)) is not None and stages.champion:
            first = self._judge_shadow(seen, last, stages.champion, now)
        if first is not None:
            return self._write([first])
        found = judge_arms(stages, watch, arms, self.config, now)
        if not found and (worse := judge_personal(stages, watch, seen.owners, self.config, now)) is not None:
            found = [worse]
        return self._write(found) if found else []

    def _judge_shadow(self, seen: Look, last: Transition, champion: str, now: float) -> Transition | None:
        """Judge the policy in the shadow; by its cost model, too, once there are enough drafts."""
        last = last._replace(time=seen.shadow_since)  # by the clock that the drafts have
        units = {each.response_id: each.unit for each in seen.watch.rounds}
        costs = self._shadow.measured(last, champion, units)
        predicted: list[ShadowPair] | None = []
        if len(costs) >= self.config.shadow_rounds > 0:
            run = self.store.read(lambda c: run_of(c, last.subject))
            predicted = self._shadow.predicted(last, champion, run)
        if predicted is None:
            return None
        return judge_shadow(seen.stages, seen.watch, costs, self.config, now, predicted=predicted)

    # Fits

    def _fit(self, seen: Look, now: float) -> list[Transition]:
        """Begin a fit that is due, or take in what came of the one that is under way."""
        stages = seen.stages
        under_way = stages.the(Stage.FITTING)
        if under_way is None:
            return self._begin_fit(seen, now)
        lineage = under_way.lineage
        assert lineage is not None, "a fit has a lineage"
        if not self._is_fitting:  # this process was started again, or took the lease over
            log.info("going on with %s", under_way.subject)
            return self._start(under_way, lineage)
        # What a process did before it was killed does not count, and neither does the time until the next.
        lineage = lineage._replace(minutes=(time.monotonic() - self._fit_began) / 60)
        self._result = self._result or self.fitter.poll()
        if self._result is not None:
            written = self._take_in(under_way, lineage, self._result, seen, now)
            self._is_fitting, self._result = False, None  # only now: the writing may have failed
            return written
        if minutes_spent(stages, now) + lineage.minutes > self.config.fit_minutes:
            self.fitter.stop()
            reason = f"its minutes are over, with the niceness {self.config.niceness}"
            return self._fail(under_way, lineage, reason)
        return []

    def _fail(self, begun: Transition, lineage: Lineage, reason: str) -> list[Transition]:
        """Write that a fit has failed, and remove the rows that it kept for going on."""
        shutil.rmtree(Path(lineage.run) / ".work", ignore_errors=True)
        failed = Transition(
            begun.subject, Stage.FITTING, Stage.FAILED, self._clock(), reason=reason, lineage=lineage
        )
        written = self._write([failed])
        self._is_fitting, self._result = False, None
        return written

    def _begin_fit(self, seen: Look, now: float) -> list[Transition]:
        """Begin a fit if it is due, or note for what it waits."""
        stages, champion = seen.stages, seen.stages.champion
        if champion is None:
            self._note_wait("there is no champion yet", now)
            return []
        # A fit that began in the future, by a clock that was wrong, would be the last one until then.
        known = [each.lineage.until for each in stages.history if each.lineage and not each.lineage.owner]
        last = max((until for until in known if until <= now), default=0.0)
        if self._learned[0] != last:  # it takes a scan of all edits, and changes with each fit only
            self._learned = last, self.store.read(lambda c: count_new_edits(c, 0.0, last))
        supply = Supply(self._learned[1], self.store.read(lambda c: count_new_edits(c, last, now)))
        risen = has_risen(seen.watch.costs(champion), 1 - self.config.confidence)
        reason = refit_reason(stages, supply, self.config, now, risen=risen)
        if reason is None:
            self._note_wait(waits_for(stages, supply, self.config, now, risen=risen), now)
            return self._begin_personal(stages, champion, now)
        number = stages.generation + 1
        run = self._new_folder(f"generation-{number}")
        # After a fit that failed, perhaps by the shape of the champion's adapter, from the base.
        asks = self.config.start == "champion" and stages.of(f"generation-{number - 1}") is not Stage.FAILED
        start = self.store.read(lambda c: first_weights(c, champion)) if asks else BASE
        lineage = Lineage(number, seen.arms, start, now, str(run))
        return self._begin(f"generation-{number}", lineage, reason, now)

    def _begin(self, subject: str, lineage: Lineage, reason: str, now: float) -> list[Transition]:
        begun = Transition(subject, None, Stage.FITTING, now, reason=reason, lineage=lineage)
        self._write([begun])
        return [begun, *self._start(begun, lineage)]

    def _begin_personal(self, stages: Stages, champion: str, now: float) -> list[Transition]:
        """Begin the fit of an arm of a user's own, if somebody has enough edits."""
        own = self.config.model_copy(update={"fit_minutes": BUDGET_SHARE * self.config.fit_minutes})
        if not self.config.personal_edits or not may_fit(stages, own, now):
            return []
        due = self.store.read(lambda c: next_arm(c, stages, champion, self.config, now))
        if due is None:
            return []
        owner, name, reason = due
        run = str(self._new_folder(name))
        lineage = Lineage(stages.generation, (champion,), champion, now, run, owner=owner)
        return self._begin(Path(run).name, lineage, reason, now)

    def _note_wait(self, reason: str, now: float) -> None:
        """Keep for what the next fit waits, for whoever asks for the status."""
        if reason != self._waits:
            self._set_fact(WAITS, f"{now:.0f} {reason}")
            self._waits = reason

    def _new_folder(self, name: str) -> Path:
        """A run folder that nothing is in: a store that was replaced begins its generations again."""
        run = (self.runs / name).resolve()
        attempt = 1
        while run.exists():
            attempt += 1
            run = run.with_name(f"{name}-{attempt}")
        return run

    def _start(self, begun: Transition, lineage: Lineage) -> list[Transition]:
        stages = self.store.read(read_stages)
        try:
            start = self.store.read(lambda c: start_path(c, lineage.start))
            if (user := self.store.read(lambda c: user_of(c, lineage.owner))) is None and lineage.owner:
                return self._fail(begun, lineage, GONE)
            self.fitter.start(lineage, self.store.read(lambda c: run_of(c, stages.champion)), start, user)
        except AutopilotError as error:
            return self._fail(begun, lineage, str(error))
        self._is_fitting, self._fit_began, self._result = True, time.monotonic(), None
        return []

    def _take_in(
        self, begun: Transition, lineage: Lineage, result: FitResult, seen: Look, now: float
    ) -> list[Transition]:
        """Put the best policy of a run through the gates, and into the shadow; a user's is an arm at once."""
        if result.error:
            return self._fail(begun, lineage, result.error)
        if lineage.owner and self.store.read(lambda c: user_of(c, lineage.owner)) is None:
            return self._fail(begun, lineage, GONE)
        stages, champion = seen.stages, seen.stages.champion
        # Read out here: a store that does not answer is no fault of the fit.
        other = self.store.read(lambda c: run_of(c, champion))
        try:
            policy, row, lineage = read_generation(result.run, lineage, champion, other, self._clock())
        except EditLoopError as error:
            return self._fail(begun, lineage, str(error))
        fitted = Transition(begun.subject, Stage.FITTING, Stage.FITTED, now, lineage=lineage)
        before = stages.of(policy.arm)
        if before is not None:  # the same weights once more: nothing that could be tried is new
            reason = f"it is {policy.arm} again, which is {before}"
            return self._write([fitted._replace(reason=reason)])
        against = gate_objections(policy)
        evidence: dict[str, Any] = {"validation": dict(policy.validation), "gates": against}
        evidence |= {"held out": policy.held_out, "champion held out": policy.champion}
        evidence |= {"share": self.config.shadow_share, "not evaluated": result.unevaluated or None}
        stage, reason = Stage.SHADOW, "it passed the offline gates"
        if lineage.owner:
            stage, heir = Stage.ARM, heir_of(champion)
            evidence["inherits"] = heir and heir._asdict()
        if against:
            stage, reason = Stage.REJECTED, "; ".join(against.values())
        new = Transition(
            policy.arm, None, stage, now, reason=reason, evidence=as_evidence(evidence), lineage=lineage
        )
        steps = begin_arm(stages, new, seen.owners) if stage is Stage.ARM else [new]
        return self._write([fitted._replace(reason=f"its best policy is {policy.arm}"), *steps], [row])
