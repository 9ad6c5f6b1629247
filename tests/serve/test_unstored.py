"""`store: false`: no text is kept anywhere, and the costs of edits still count."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import Service, error, run, serving, sqlite
from sqlalchemy import select

from editloop.online import BanditConfig
from editloop.serve.loop.commands import RecordDecision, RecordResponse
from editloop.serve.loop.spool import spooled_to_json
from editloop.store.schema import drafts, edits, events

TEXT = "Hello from a@1"


async def create(service: Service, **more: Any) -> httpx.Response:
    body = {"model": "editloop", "input": "Secret question", "store": False, "user": "ada"}
    return await service.http.post("/v1/responses", json={**body, "metadata": {"of": "secret"}, **more})


@pytest.mark.parametrize("stream", [False, True])
def test_no_text_is_kept_and_the_cost_counts(url: str, tmp_path: Path, stream: bool) -> None:
    async def work() -> None:
        async with serving(url, tmp_path, config=BanditConfig()) as service:
            answer = await create(service, stream=stream, instructions="Secret")
            response_id = answer.headers["X-EditLoop-Response-Id"]
            # A stream of this backend ends with a blank.
            text = "Hello from " + answer.headers["X-EditLoop-Policy"] + " " * stream
            found = error(await service.edit(response_id, "Secret edit"), 410, "response_unstored")
            assert found["param"] == "response" and "send the text" in found["message"]
            wrong = await service.edit(response_id, "Secret edit", response=text + "!")
            error(wrong, 409, "response_differs")
            done = (await service.edit(response_id, text + "Secret", response=text)).json()
            assert (done["status"], done["revision"]) == ("edited", 1) and 0 < done["cost"] < 0.5
            assert service.loop.bandit.state.tally("", done["policy"]).cost == pytest.approx(done["cost"])
            rows = await service.loop.read(
                lambda c: [c.execute(select(each)).all() for each in (drafts, edits, events)]
            )
            shown = repr(rows)
            for secret in ("Secret", "secret", "ada", "Hello"):
                assert secret not in shown
            (draft,) = rows[0]
            assert (draft.finish, draft.context, draft.response) == ("unstored", None, None)
            (decided,) = [row for row in rows[2] if row.kind == "decided"]
            assert 0 < decided.propensity <= 1 and decided.features is None
            error(await service.http.get(f"/v1/responses/{response_id}"), 410, "response_unstored")
            assert (await service.http.get("/v1/edits")).json()["data"] == []

    run(work())


def test_accepting_and_discarding_need_no_text(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            first, second, third = [(await create(service)).json()["id"] for _ in range(3)]
            assert (await service.edit(first)).json()["cost"] == 0
            body = {"response_id": second, "discarded": True}
            thrown = (await service.http.post("/v1/edits", json=body)).json()
            assert (thrown["status"], thrown["cost"]) == ("discarded", 1.0)
            kept = "Hello from " + (await service.http.get(f"/v1/edits/{third}")).json()["policy"]
            same = (await service.edit(third, kept, response=kept)).json()
            assert (same["status"], same["cost"]) == ("accepted", 0.0)

    run(work())


def test_a_later_edit_replaces_an_earlier_one(url: str, tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(url, tmp_path) as service:
            made = (await create(service)).json()
            text = made["output"][0]["content"][0]["text"]
            one = (await service.edit(made["id"], "Hi", response=text, key="k1")).json()
            again = (await service.edit(made["id"], "Hi", response=text, key="k1")).json()
            assert again == {**one, "repeated": True}
            two = (await service.edit(made["id"], text, response=text)).json()
            assert (two["revision"], two["status"], two["repeated"]) == (2, "accepted", False)
            # Without a key nothing shows that it is sent again; it replaces itself, at the same cost.
            three = (await service.edit(made["id"], text, response=text)).json()
            assert (three["revision"], three["cost"]) == (3, 0.0)
            tally = service.loop.bandit.state.tally("", made["model"])
            assert (tally.observed, tally.cost) == (1, 0.0)
            accepted = (await service.edit(made["id"])).json()
            assert accepted["repeated"] is False

    run(work())


def test_edits_are_priced_without_the_redaction_and_after_a_restart(url: str, tmp_path: Path) -> None:
    options = {"redact": lambda text: text.replace("Hello", "[greeting]")}

    async def work() -> None:
        async with serving(url, tmp_path, app_options=options) as service:
            made = (await create(service)).json()
        async with serving(url, tmp_path, app_options=options) as service:
            text = made["output"][0]["content"][0]["text"]
            assert text == TEXT
            done = (await service.edit(made["id"], "Goodbye from a@1", response=text)).json()
            assert done["cost"] == pytest.approx(1 / 3)

    run(work())


def test_an_edit_before_the_end_waits(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            response_id = "early"
            decision = service.loop.choose(response_id, None)
            await service.loop.write(RecordDecision(decision, 1.0, None, "digest", None, None, store=False))
            early = await service.edit(response_id, "Hi", response="Hello")
            error(early, 409, "response_unfinished")
            assert early.headers["Retry-After"] == "1"
            assert (await service.edit(response_id)).json()["cost"] is None  # accepted: needs no text
            digest = service.loop.scopes.digest(["text", "Hello"])
            await service.loop.write(RecordResponse(response_id, None, "unstored", 2.0, text_digest=digest))
            assert service.loop.bandit.state.tally("", decision.arm).observed == 1
            done = await service.edit(response_id, "Hi", response="Hello")
            assert done.json()["cost"] == 1.0

    run(work())


def test_what_waits_in_the_spool_holds_no_text(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            written: list[Any] = []
            write = service.loop.access.write

            async def note(command: Any, **more: Any) -> Any:
                written.append(command)
                return await write(command, **more)

            service.loop.access.write = note  # type: ignore[method-assign]
            await create(service)
            shown = json.dumps([spooled_to_json(each) for each in written])
            assert len(written) == 2 and "ecret" not in shown and "Hello" not in shown

    run(work())


def test_no_shadow_is_drawn_for_it(tmp_path: Path) -> None:
    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path) as service:
            seen: list[str] = []
            service.app.state.server.completions.shadows.consider = lambda request, name: seen.append(name)
            await create(service)
            kept = (await create(service, store=True)).json()["id"]
            assert seen == [kept]

    run(work())
