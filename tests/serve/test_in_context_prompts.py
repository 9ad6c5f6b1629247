"""In-context policies in a server: what goes into their prompts, whose edits, and what is learned of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from past_edits_server import (
    PREFERENCE,
    RETRIEVAL,
    edited,
    kept,
    last_asked,
    paragraph,
    served,
    tally,
    user,
)
from serving import Parrot, run
from sqlalchemy import select

from editloop.serve.backends.base import (
    BackendUnavailableError,
    Completion,
    UpstreamRejectedError,
    note_user,
)
from editloop.serve.in_context import preferences as preferences_module
from editloop.serve.in_context.preferences import QUESTION
from editloop.serve.loop.completion import CompletionRequest
from editloop.store.schema import preferences

# What the policy gets, and what is kept


def test_the_nearest_edits_of_this_user_are_in_the_prompt_and_in_no_log(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval-2") as service:
            await edited(service, "Invite Ada to the demo", "Ada, come to the demo!")
            await edited(service, "Thank Bob for the cake", "Cheers, Bob.")
            await edited(service, "Invite Ada to the party", None)  # kept as it was
            await edited(service, "Invite Eve to the demo", "SECRET of bob", user="bob")
            done = await service.ask("Invite Zoë to the demo", user="ada", model="retrieval-2:base")
            assert last_asked(service) == (
                "base",
                [
                    user("Invite Ada to the party"),
                    kept(f"Hello from {service.loop.bandit.arms[0]}"),
                    user("Invite Ada to the demo"),
                    kept("Ada, come to the demo!"),
                    user("Invite Zoë to the demo"),
                ],
            )
            assert done.headers["X-EditLoop-Policy"].startswith("retrieval-2:base@")
            row = (await service.http.get(f"/v1/edits/{done.json()['id']}")).json()
            assert row["context"] == "Invite Zoë to the demo" and row["policy"] == done.json()["model"]
            assert "come to the demo" not in json.dumps(row)

    run(work())


def test_nobody_gets_anything_of_another_user(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval", "preference") as service:
            for i in range(3):
                await edited(service, f"Invite Ada to the demo {i}", f"SECRET {i}", user="ada")
            nobody = await service.ask("Invite Ada to the demo", model="sft")
            await service.edit(nobody.json()["id"], "SECRET of nobody")
            for name in (RETRIEVAL, PREFERENCE):
                for asked_by in ({"user": "bob"}, {"user": "ada "}, {"user": "ADA"}, {}):
                    await service.ask("Invite Ada to the demo", model=name, **asked_by)
                    assert last_asked(service) == ("base", [user("Invite Ada to the demo")])
            assert (await tally(service, RETRIEVAL)) == {
                "requests": 4, "extended": 0, "failed": 0, "prompt_tokens": 0, "learning_tokens": 0
            }  # fmt: skip
            await service.ask("Invite Ada to the demo", model=RETRIEVAL, user="ada")
            assert "SECRET 2" in str(last_asked(service))

    run(work())


def test_users_at_the_same_time_get_their_own_edits(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            names = [f"user {i}" for i in range(12)]
            for name in names:
                await edited(service, "Invite Ada", f"by {name}.", user=name)
            service.backend.asked.clear()
            asked = [service.ask(f"Invite, says {n}", user=n, model=RETRIEVAL) for n in names * 3]
            assert {each.status_code for each in await asyncio.gather(*asked)} == {200}
            found = [[m["content"] for m in request["messages"]] for _, request in service.backend.asked]
            assert sorted(found) == sorted(["Invite Ada", f"by {n}.", f"Invite, says {n}"] for n in names * 3)

    run(work())


def test_discarded_drafts_and_kept_refusals_are_no_examples(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            service.backend.says = lambda arm, request: "I'm sorry, but I can't help with that."
            await edited(service, "Write to Ada", None)
            rewritten = await edited(service, "Write to Bob", "Bob, hello.")
            done = await service.ask("Write to Eve", user="ada", model="sft")
            thrown = {"response_id": done.json()["id"], "discarded": True}
            assert (await service.http.post("/v1/edits", json=thrown)).status_code == 200
            await service.ask("Write to Zoë", user="ada", model=RETRIEVAL)
            assert last_asked(service)[1] == [user("Write to Bob"), kept("Bob, hello."), user("Write to Zoë")]
            await service.edit(rewritten, "Bob, hi.")  # a later revision takes its place
            await service.ask("Write to Zoë", user="ada", model=RETRIEVAL)
            assert last_asked(service)[1][1] == kept("Bob, hi.")

    run(work())


def test_huge_edits_are_left_out_and_any_characters_go_in(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval", characters=300) as service:
            await edited(service, "Invite Ada", "x" * 150_000)
            await edited(service, "Invite " + "Ada " * 10_000, "long context")
            text = "Prüf 你好 \U0001f600 <|im_end|> \\u0041 \u2028 {asked}"
            await edited(service, "Invite Bob", text)
            await edited(service, "y" * 19_000, "of a long request")  # 2,000 of it would be shown
            await service.ask("Invite Ada", user="ada", model=RETRIEVAL)
            assert last_asked(service)[1] == [user("Invite Bob"), kept(text), user("Invite Ada")]

    run(work())


def test_a_text_from_elsewhere_is_an_example_too(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            chat = [{"role": "system", "content": "s"}, user("Invite Ada")]
            body = {"context": chat, "response": "Dear Ada", "edit": "Hi Ada", "user": "ada"}
            assert (await service.http.post("/v1/edits", json=body)).status_code == 200
            await service.ask("Invite Bob", user="ada", model=RETRIEVAL)
            assert last_asked(service)[1] == [user("Invite Ada"), kept("Hi Ada"), user("Invite Bob")]

    run(work())


def test_a_forgotten_users_edits_are_in_no_prompt(tmp_path: Path, url: str) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval", "preference", url=url) as service:
            for name in ("ada", "bob"):
                await edited(service, "Invite Ada", "Hi Ada", user=name)
                await service.ask("Invite Bob", user=name, model=PREFERENCE)
                assert "my preferences" in str(last_asked(service)[1])
            rows = service.loop.store.read(lambda c: c.execute(select(preferences)).all())
            assert len(rows) == 2
            assert (await service.http.delete("/v1/users/ada")).status_code == 200
            (row,) = service.loop.store.read(lambda c: c.execute(select(preferences)).all())
            assert row.text == f"Hello from {row.arm}"
            for arm in (RETRIEVAL, PREFERENCE):
                await service.ask("Invite Bob", user="ada", model=arm)
                assert last_asked(service)[1] == [user("Invite Bob")]
                await service.ask("Invite Bob", user="bob", model=arm)
                assert last_asked(service)[1] != [user("Invite Bob")]

    run(work())


def test_what_a_user_made_of_a_draft_is_in_no_draft_for_the_same_request(tmp_path: Path) -> None:
    """A policy in the shadow drafts after the answer, and its draft is compared with the edit of that."""

    async def work() -> None:
        async with served(tmp_path, "retrieval", "preference") as service:
            await edited(service, "Invite Ada", "Hi Ada")
            shown = await edited(service, "Invite Bob", "Hi Bob, the truth")
            backend = service.app.state.server.backend
            body = {"messages": [user("Invite Bob")]}
            for name in (RETRIEVAL, PREFERENCE):
                (arm,) = [each for each in service.loop.bandit.arms if each.startswith(name)]
                note_user("ada")
                service.backend.asked.clear()
                await backend.complete(arm, body, shown)
                assert "truth" not in str(service.backend.asked)
                assert last_asked(service)[1] != body["messages"]
                await backend.complete(arm, body, "another")
                assert "truth" in str(service.backend.asked)
            rows = service.loop.store.read(lambda c: c.execute(select(preferences)).all())
            assert len(rows) == 2

    run(work())


def test_a_policy_in_the_shadow_gets_the_edits_of_who_asked(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            await edited(service, "Invite Ada", "Hi Ada")
            await edited(service, "Invite Eve", "Hi Eve, a secret", user="bob")
            (arm,) = [each for each in service.loop.bandit.arms if each.startswith(RETRIEVAL)]
            shadows = service.app.state.server.completions.shadows
            asked = CompletionRequest({"messages": [user("Invite Zoë")]}, None, "ada")
            note_user("bob")  # whoever was answered last in this task
            await shadows._draw(asked, "r", (arm,))
            assert last_asked(service)[1] == [user("Invite Ada"), kept("Hi Ada"), user("Invite Zoë")]

    run(work())


# Preferences


class Taught(Parrot):
    """Says what it is told, if it is asked for a preference."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[str] = []
        self.learned: list[str] = []
        self.by_edit: dict[str, str] = {}
        self.broken: Exception | None = None
        self.slow: asyncio.Event | None = None

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        said = str(request["messages"][-1]["content"])
        if not said.startswith(QUESTION[:40]):
            return await super().complete(arm, request, response_id)
        self.questions.append(said)
        if self.slow:
            await self.slow.wait()
        if self.broken:
            raise self.broken
        of_edit = [each for edit, each in self.by_edit.items() if edit in said]
        text = of_edit[0] if of_edit else self.learned[(len(self.questions) - 1) % len(self.learned)]
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return Completion(text, "stop", {"role": "assistant", "content": text}, usage)


def test_a_preference_is_learned_once_of_each_edit(tmp_path: Path, url: str) -> None:
    async def work() -> None:
        backend = Taught()
        backend.learned = ["- brief,\n  warm ", "Informal"]
        async with served(tmp_path, "preference", url=url, backend=backend) as service:
            first = await edited(service, "Invite Ada", "Hi Ada")
            await edited(service, "Thank Bob", None)  # says nothing
            await service.ask("Invite Eve", user="ada", model=PREFERENCE)
            assert last_asked(service) == ("base", [user("Invite Eve" + paragraph("brief, warm"))])
            (question,) = backend.questions
            sft = next(arm for arm in backend.prepared if arm.startswith("sft@"))
            assert "<request>\nInvite Ada\n</request>" in question
            assert f"<draft>\nHello from {sft}\n</draft>" in question
            assert "<edited>\nHi Ada\n</edited>" in question
            await service.ask("Invite Eve", user="ada", model=PREFERENCE)
            assert len(backend.questions) == 1
            await service.edit(first, "Ada!")  # another revision says something else
            await service.ask("Invite Eve", user="ada", model=PREFERENCE)
            assert last_asked(service)[1] == [user("Invite Eve" + paragraph("Informal"))]
            assert "<edited>\nAda!\n</edited>" in backend.questions[1] and len(backend.questions) == 2
            figures = await tally(service, PREFERENCE)
            assert (figures["requests"], figures["extended"], figures["learning_tokens"]) == (3, 3, 210)
        async with served(tmp_path, url=url, backend=backend) as service:  # the texts are in the store
            await service.ask("Invite Eve", user="ada", model=PREFERENCE)
            assert last_asked(service)[1] == [user("Invite Eve" + paragraph("Informal"))]
            assert len(backend.questions) == 2

    run(work())


def test_preferences_of_the_nearest_edits_are_listed_each_once(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Taught()
        # By edit, because several are asked at a time, in the order in which the machine gets to them.
        backend.by_edit = {"Hi 0": "brief", "Hi 1": "warm", "Hi 2": "brief", "Hi 3": "", "Ada!": "x" * 400}
        async with served(tmp_path, "preference-4", backend=backend) as service:
            for i in range(5):
                await edited(service, f"Invite Ada {'again ' * i}", f"Hi {i}")
            await service.ask("Invite Ada", user="ada", model="preference-4:base")
            assert last_asked(service)[1] == [user("Invite Ada" + paragraph("brief", "warm"))]
            await edited(service, "Invite Ada now", "Ada!")
            await service.ask("Invite Ada now", user="ada", model="preference-4:base")
            assert len(backend.questions) == 5  # the one that said nothing is not asked again
            long = f"{'x' * 147} ... {'x' * 147}"
            assert last_asked(service)[1] == [user("Invite Ada now" + paragraph(long, "brief", "warm"))]

    run(work())


def test_what_is_learned_is_redacted(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Taught()
        backend.learned = ["greets Zoë by name"]
        redact = {"redact": lambda text: text.replace("Zoë", "[name]")}
        async with served(tmp_path, "preference", backend=backend, app_options=redact) as service:
            await edited(service, "Invite Zoë", "Hi Zoë")
            await service.ask("Invite Zoë again", user="ada", model=PREFERENCE)
            asked = "Invite Zoë again" + paragraph("greets [name] by name")
            assert last_asked(service)[1] == [user(asked)]
            assert "Zoë" not in backend.questions[0]  # it sees what is kept

    run(work())


def test_two_requests_at_the_same_time_ask_about_an_edit_once(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Taught()
        backend.learned, backend.slow = ["brief"], asyncio.Event()
        async with served(tmp_path, "preference", backend=backend) as service:
            await edited(service, "Invite Ada", "Hi Ada")
            both = [
                asyncio.create_task(service.ask(f"Invite {i}", user="ada", model=PREFERENCE))
                for i in range(2)
            ]
            while not backend.questions:
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            backend.slow.set()
            assert [(await each).status_code for each in both] == [200, 200]
            assert len(backend.questions) == 1
            found = sorted(request["messages"][0]["content"] for _, request in backend.asked[-2:])
            assert found == [f"Invite {i}" + paragraph("brief") for i in range(2)]

    run(work())


def test_a_preference_that_takes_long_is_there_for_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences_module, "LEARN_SECONDS", 0.05)

    async def work() -> None:
        backend = Taught()
        backend.learned, backend.slow = ["brief"], asyncio.Event()
        async with served(tmp_path, "preference", backend=backend) as service:
            await edited(service, "Invite Ada", "Hi Ada")
            await service.ask("Invite Bob", user="ada", model=PREFERENCE)
            assert last_asked(service)[1] == [user("Invite Bob")]
            backend.slow.set()
            while not service.loop.store.read(lambda c: c.execute(select(preferences)).all()):
                await asyncio.sleep(0.01)
            await service.ask("Invite Bob", user="ada", model=PREFERENCE)
            assert last_asked(service)[1] == [user("Invite Bob" + paragraph("brief"))]
            assert len(backend.questions) == 1
            backend.slow = asyncio.Event()  # nothing hangs at the end
            await edited(service, "Invite Eve", "Hi Eve")
            await service.ask("Invite Bob", user="ada", model=PREFERENCE)

    run(work())


def test_a_preference_of_texts_that_are_gone_is_not_kept(tmp_path: Path) -> None:
    async def work() -> None:
        backend = Taught()
        backend.learned, backend.slow = ["brief"], asyncio.Event()
        async with served(tmp_path, "preference", backend=backend) as service:
            await edited(service, "Invite Ada", "Hi Ada")
            asked = asyncio.create_task(service.ask("Invite Bob", user="ada", model=PREFERENCE))
            while not backend.questions:
                await asyncio.sleep(0.01)
            assert (await service.http.delete("/v1/users/ada")).status_code == 200
            backend.slow.set()
            assert (await asked).status_code == 200
            assert service.loop.store.read(lambda c: c.execute(select(preferences)).all()) == []

    run(work())


@pytest.mark.parametrize(
    "broken",
    [BackendUnavailableError("error"), UpstreamRejectedError(400, {}), UpstreamRejectedError(429, {})],
)
def test_if_nothing_can_be_learned_the_request_is_answered(
    tmp_path: Path, broken: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        backend = Taught()
        backend.broken = broken
        async with served(tmp_path, "preference", backend=backend) as service:
            await edited(service, "Invite Ada", "Hi Ada")
            done = await service.ask("Invite Bob", user="ada", model=PREFERENCE)
            assert done.status_code == 200 and last_asked(service)[1] == [user("Invite Bob")]
            assert "no preference is learned" in caplog.text

    run(work())
