"""A server whose policies have stages: who gets a canary, shadow drafts, and moves by hand."""

from __future__ import annotations

import asyncio
import json
import time

from serving import error, run, serving, sqlite

from editloop.autopilot.assignment import is_in_canary, user_key
from editloop.autopilot.ledger import read_stages, write_transitions
from editloop.autopilot.stages import Stage, Transition
from editloop.serve.loop.stage_commands import RecordShadow
from editloop.store import Store, reads, writes
from editloop.store.rounds import rounds, shadow_rounds

S = Stage
NEW = "early@9"
TERMS = {"champion": "a@1", "share": 0.4, "unit": "user", "rounds": 100, "draw": 0}


def step(subject: str, before: Stage | None, stage: Stage, **evidence) -> Transition:
    return Transition(subject, before, stage, time.time(), evidence=evidence)


def beside(url: str, *steps: Transition) -> None:
    """What another process, the autopilot, writes while the server runs."""
    store = Store(url)
    store.open(claim=False)
    with store.transaction() as connection:
        rows = [
            {"arm": arm, "name": "early", "run": "nowhere", "time": 1.0, "metrics": "{}", "read_until": None}
            for arm in dict.fromkeys(each.subject for each in steps)
        ]
        write_transitions(connection, steps, rows)
    store.close()


async def until(true) -> None:
    async with asyncio.timeout(10):
        while not true():
            await asyncio.sleep(0.02)


def crowned() -> tuple[Transition, Transition]:
    return step("a@1", None, S.ARM), step("a@1", S.ARM, S.CHAMPION)


def test_a_canary_is_for_its_users_and_for_good(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            salt = service.loop.scopes.salt
            beside(url, *crowned(), step(NEW, None, S.SHADOW), step(NEW, S.SHADOW, S.CANARY, **TERMS))
            await until(lambda: service.loop.state.canary is not None)
            assert service.loop.bandit.arms == ("a@1",) and service.loop.state.served == ("a@1", NEW)
            drawn = {
                name: is_in_canary(f"{NEW}#0", user_key(salt, name), 0.4) for name in map(str, range(30))
            }
            for _ in range(2):
                for name, is_drawn in drawn.items():
                    answer = await service.ask(user=name)
                    assert answer.headers["X-EditLoop-Policy"] == (NEW if is_drawn else "a@1")
            assert (await service.ask()).headers["X-EditLoop-Policy"] == "a@1"  # nobody knows who asks
            assert 0 < sum(drawn.values()) < 30
            shown = (await service.http.get("/v1/arms")).json()["data"]
            assert {each["arm"]: (each["played"], each["tried"]) for each in shown}[NEW] == (False, "canary")
            overview = (await service.http.get("/v1/overview")).json()["arms"]
            assert {each["arm"]: each["tried"] for each in overview} == {"a@1": None, NEW: "canary"}
            own = service.loop.bandit.state.tally("", NEW)
            assert own.pending == 2 * sum(drawn.values())
            rows = await service.loop.read(lambda c: rounds(c, 0.0))
            assert {row.propensity for row in rows if row.arm == NEW} == {None}
            # A client may not ask for it by name: it is no arm yet.
            error(await service.ask(user="1", model=NEW), 404, "model_not_found")
        async with serving(url, tmp_path, arms=()) as again:  # from the snapshot
            assert again.loop.state.canary.arm == NEW and again.loop.bandit.state.canaries == (NEW,)

    run(play())


def test_a_canary_that_fails_is_answered_by_an_arm(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            from editloop.serve.backends.base import BackendUnavailableError

            service.backend.fails[NEW] = BackendUnavailableError("missing")
            terms = {**TERMS, "share": 1.0}
            beside(url, *crowned(), step(NEW, None, S.SHADOW), step(NEW, S.SHADOW, S.CANARY, **terms))
            await until(lambda: service.loop.state.canary is not None)
            answer = await service.ask(user="ada")
            assert answer.headers["X-EditLoop-Policy"] == "a@1"
            (row,) = await service.loop.read(lambda c: rounds(c, 0.0))
            assert (row.chosen, row.arm) == (NEW, "a@1")

    run(play())


def test_shadow_drafts_are_kept_for_both_and_nobody_sees_them(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            beside(url, *crowned(), step(NEW, None, S.SHADOW, share=1.0))
            await until(lambda: service.loop.state.served == ("a@1", NEW))
            answer = await service.ask(user="ada")
            assert answer.headers["X-EditLoop-Policy"] == "a@1"
            name = answer.json()["id"]
            await service.edit(name, "Hello from Ada")
            streamed = await service.ask(user="ada", stream=True)
            assert streamed.status_code == 200

            def kept() -> list:
                return service.loop.store.read(lambda c: shadow_rounds(c, 0.0))

            await until(lambda: len(kept()) == 2)
            assert {(row.arm, row.response) for row in kept()} == {
                (NEW, f"Hello from {NEW}"),
                ("a@1", "Hello from a@1"),
            }
            assert all(row.edit == "Hello from Ada" and row.response_id == name for row in kept())
            await until(lambda: len(service.backend.asked) == 6)  # two answers, and two drafts for each
            assert all("stream" not in request for arm, request in service.backend.asked if arm == NEW)
            # They are texts of the user like all others.
            await service.http.delete("/v1/users/ada")
            assert kept() == []
            assert service.loop.store.read(lambda c: reads.has_shadow(c, name, NEW)) is False

    run(play())


def test_a_shadow_draft_that_comes_after_its_texts_were_removed_is_not_kept(tmp_path):
    async def play() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=("a@1",)) as service:
            name = (await service.ask(user="ada")).json()["id"]
            await service.http.delete("/v1/users/ada")
            await service.loop.write(RecordShadow(name, NEW, "A text of Ada's.", "stop", time.time()))
            await service.loop.write(RecordShadow("unknown", NEW, "Another text.", "stop", time.time()))
            for each in (name, "unknown"):
                assert not service.loop.store.read(lambda c, each=each: reads.has_shadow(c, each, NEW))

    run(play())


def test_stages_are_shown_and_moved_by_hand(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            beside(url, *crowned(), step(NEW, None, S.SHADOW), step(NEW, S.SHADOW, S.CANARY, **TERMS))
            await until(lambda: service.loop.state.canary is not None)
            found = (await service.http.get("/v1/stages")).json()
            assert found["champion"] == "a@1" and found["paused"] is None
            policies = {each["subject"]: each for each in found["policies"]}
            assert policies[NEW]["stage"] == "canary"
            assert policies[NEW]["next"] == ["arm", "rejected", "rolled back", "shadow"]
            assert [each["stage"] for each in found["history"]] == ["arm", "champion", "shadow", "canary"]

            async def move(subject: str, stage: str):
                return await service.http.post("/v1/stages", json={"subject": subject, "stage": stage})

            moved = await move(NEW, "rolled back")
            assert moved.status_code == 200 and service.loop.bandit.state.canaries == ()
            assert service.loop.state.served == ("a@1",)
            assert (await move(NEW, "champion")).status_code == 409
            assert (await move(NEW, "arm")).json()["arms"] == ["a@1", NEW]
            assert (await move(NEW, "champion")).status_code == 200
            stages = service.loop.store.read(read_stages)
            assert stages.champion == NEW and stages.of("a@1") is S.ARM
            error(await move("nobody@1", "arm"), 404, "arm_not_found")
            error(await move("a@1", "unheard-of"), 400, "invalid_request")
            # The old way to retire an arm leaves stages that agree with it.
            await service.http.delete("/v1/arms/a@1")
            stages = service.loop.store.read(read_stages)
            assert stages.of("a@1") is S.RETIRED and stages.last("a@1").by == "somebody"
            error(await move(NEW, "retired"), 409, "stage_refused")  # no arm would be left
            paused = await service.http.post("/v1/autopilot", json={"paused": True})
            assert paused.status_code == 200
            assert "by somebody" in (await service.http.get("/v1/stages")).json()["paused"]

    run(play())


def test_an_epoch_by_hand_keeps_the_canary(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path) as service:
            beside(url, *crowned(), step(NEW, None, S.SHADOW), step(NEW, S.SHADOW, S.CANARY, **TERMS))
            await until(lambda: service.loop.state.canary is not None)
            await service.http.delete("/v1/arms/b@2")
            assert service.loop.bandit.arms == ("a@1",)
            assert service.loop.bandit.state.canaries == (NEW,)
            row = service.loop.store.read(reads.last_epoch)
            assert json.loads(row.detail) == {"canaries": [NEW]}

    run(play())


def test_an_unreadable_transition_stops_nothing(tmp_path):
    async def play() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            store = Store(url)
            store.open(claim=False)
            with store.transaction() as connection:
                row = {"time": 1.0, "kind": "stage", "arm": "x@1", "detail": "{}"}
                seq = writes.insert_event(connection, row)
            store.close()
            await until(lambda: service.loop.writer.last >= seq)
            assert (await service.ask()).status_code == 200

    run(play())
