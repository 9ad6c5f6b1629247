"""In-context policies in a server: what the policy gets, what is kept, and what happens on failures."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from serving import Parrot, Service, error, run, serving, sqlite
from sqlalchemy import select

from editloop.errors import ConfigError, MissingExtraError, StoreUnreachableError
from editloop.serve.backends.base import (
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    UpstreamRejectedError,
    note_user,
)
from editloop.serve.backends.upstream import UpstreamBackend
from editloop.serve.in_context import IN_CONTEXT
from editloop.serve.in_context import backend as in_context_backend
from editloop.serve.in_context import preferences as preferences_module
from editloop.serve.in_context.base import InContextOptions, PastEdit, with_paragraph
from editloop.serve.in_context.preferences import QUESTION
from editloop.serve.in_context.similarity import SIMILARITIES
from editloop.serve.loop.completion import CompletionRequest
from editloop.serve.stub import RESPONSE
from editloop.serve.testing import stub_server
from editloop.store.schema import preferences
from small_run import make_run

RETRIEVAL, PREFERENCE = "retrieval-4:base", "preference-5:base"


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def kept(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@asynccontextmanager
async def served(
    folder: Path, *names: str, url: str | None = None, backend: Any = None, **options: Any
) -> AsyncIterator[Service]:
    """A server of the policies of a run, and of in-context policies that stand on them."""
    where = folder / "run"
    made = where if where.exists() else make_run(where).path
    characters = options.pop("characters", 6000)
    about = {"runs": [made], "past_edits": InContextOptions(names, characters=characters)}
    about |= options.pop("app_options", {})
    async with serving(
        url or sqlite(folder), folder / "state", arms=(), backend=backend, app_options=about, **options
    ) as service:
        yield service


async def edited(service: Service, text: str, edit: str | None, user: str = "ada", arm: str = "sft") -> str:
    """Ask, and send what the user made of the draft; returns the response's id."""
    done = await service.ask(text, user=user, model=arm)
    assert done.status_code == 200, done.text
    response_id: str = done.json()["id"]
    assert (await service.edit(response_id, edit)).status_code == 200
    return response_id


def last_asked(service: Service) -> tuple[str, list[dict[str, Any]]]:
    """The arm that the backend was asked last, by its name alone, and the messages that it got."""
    arm, request = service.backend.asked[-1]
    return arm.partition("@")[0], list(request["messages"])


async def tally(service: Service, name: str) -> Mapping[str, Any]:
    rows = (await service.http.get("/v1/arms")).json()["data"]
    (row,) = [each for each in rows if each["policy"] == name]
    return row["in_context"] or {}


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


# Streams, usage, and prompts that are too long


class Narrow(Parrot):
    """A model whose window takes a number of messages; it counts a token for each character."""

    def __init__(self, most: int, status: int = 400) -> None:
        super().__init__()
        self.most, self.status = most, status

    def _check(self, request: Mapping[str, Any]) -> dict[str, int]:
        if len(request["messages"]) > self.most:
            raise UpstreamRejectedError(self.status, {"error": {"message": "too long"}})
        n = sum(len(message["content"]) for message in request["messages"])
        return {"prompt_tokens": n, "completion_tokens": 2, "total_tokens": n + 2}

    async def complete(self, arm: str, request: Mapping[str, Any], response_id: str) -> Completion:
        done = await super().complete(arm, request, response_id)
        return Completion(done.text, done.finish, done.message, self._check(request))

    async def stream(self, arm: str, request: Mapping[str, Any], response_id: str) -> AsyncIterator[Chunk]:
        usage = self._check(request)
        async for chunk in super().stream(arm, request, response_id):
            yield chunk
        yield Chunk({}, None, usage)


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n") if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("stream", [False, True])
def test_a_prompt_that_is_too_long_gets_fewer_examples(tmp_path: Path, *, stream: bool) -> None:
    async def work() -> None:
        backend = Narrow(most=5)
        async with served(tmp_path, "retrieval", backend=backend) as service:
            for i in range(4):
                await edited(service, f"Invite Ada {i}", f"Hi {i}")
            done = await service.ask("Invite Ada 3", user="ada", model=RETRIEVAL, stream=stream)
            assert done.status_code == 200 and f"from {'' if stream else 'base@'}" in done.text
            assert last_asked(service)[1] == [
                user("Invite Ada 2"), kept("Hi 2"), user("Invite Ada 3"), kept("Hi 3"), user("Invite Ada 3")
            ]  # fmt: skip
            figures = await tally(service, RETRIEVAL)
            assert figures == {
                "requests": 1, "extended": 1, "failed": 0, "prompt_tokens": 32, "learning_tokens": 0
            }  # fmt: skip
            backend.most = 1
            done = await service.ask("Invite", user="ada", model=RETRIEVAL, stream=stream)
            assert done.status_code == 200 and last_asked(service)[1] == [user("Invite")]
            figures = await tally(service, RETRIEVAL)
            assert (figures["requests"], figures["extended"], figures["failed"]) == (2, 1, 1)

    run(work())


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_wants_to_be_left_alone_is_asked_once(tmp_path: Path, *, stream: bool) -> None:
    async def work() -> None:
        backend = Narrow(most=2, status=429)
        async with served(tmp_path, "retrieval", backend=backend) as service:
            for i in range(4):
                await edited(service, f"Invite Ada {i}", f"Hi {i}")
            before = len(backend.asked)
            done = await service.ask("Invite", user="ada", model=RETRIEVAL, stream=stream)
            assert done.status_code == 429
            assert len(backend.asked) == before + (0 if stream else 1)  # a stream fails before it is noted

    run(work())


def test_a_stream_has_the_prompt_and_its_text_is_kept(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            await edited(service, "Invite Ada", "Hi Ada")
            done = await service.ask("Invite Bob", user="ada", model=RETRIEVAL, stream=True)
            assert last_asked(service) == (
                "base", [user("Invite Ada"), kept("Hi Ada"), user("Invite Bob")]
            )  # fmt: skip
            text = "".join(e["choices"][0]["delta"].get("content", "") for e in events(done.text))
            row = (await service.http.get(f"/v1/edits/{done.headers['X-EditLoop-Response-Id']}")).json()
            assert row["response"] == text and text.startswith("Hello from base@")
            # Without a usage, four characters count as a token: 10 + 6 of 26.
            assert (await tally(service, RETRIEVAL))["prompt_tokens"] == 4

    run(work())


# Failures


def test_while_the_store_is_down_the_arm_answers_without_examples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            await edited(service, "Invite Ada", "Hi Ada")

            def down(*_: Any) -> Any:
                raise StoreUnreachableError("the store does not answer")

            with monkeypatch.context() as patched:
                patched.setattr(service.loop.store, "read", down)
                done = await service.ask("Invite Bob", user="ada", model=RETRIEVAL)
            assert done.status_code == 200 and last_asked(service)[1] == [user("Invite Bob")]
            assert "answers without past edits" in caplog.text and "Hi Ada" not in caplog.text
            assert (await tally(service, RETRIEVAL))["failed"] == 1

            def hangs(*_: Any, **__: Any) -> Any:
                import time

                time.sleep(0.3)
                return []

            with monkeypatch.context() as patched:
                patched.setattr(in_context_backend, "READ_SECONDS", 0.05)
                patched.setattr(in_context_backend, "past_edits", hangs)
                done = await service.ask("Invite Bob", user="ada", model=RETRIEVAL)
            assert done.status_code == 200 and last_asked(service)[1] == [user("Invite Bob")]

    run(work())


def test_if_the_policy_under_it_fails_another_arm_answers(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval") as service:
            await edited(service, "Invite Ada", "Hi Ada")
            base = next(arm for arm in service.backend.prepared if arm.startswith("base@"))
            service.backend.fails[base] = BackendUnavailableError("error")
            done = await service.ask("Invite Bob", user="ada", model=RETRIEVAL)
            assert done.status_code == 200 and done.headers["X-EditLoop-Policy"].startswith(("sft@", "dpo@"))
            assert last_asked(service)[1] == [user("Invite Bob")]

    run(work())


# Preferences


class Taught(Parrot):
    """Says what it is told, if it is asked for a preference."""

    def __init__(self) -> None:
        super().__init__()
        self.questions: list[str] = []
        self.learned: list[str] = []
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
        text = self.learned[(len(self.questions) - 1) % len(self.learned)]
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        return Completion(text, "stop", {"role": "assistant", "content": text}, usage)


def paragraph(*texts: str) -> str:
    listed = "\n".join(f"- {text}" for text in texts)
    start = "I changed earlier drafts. From that, my preferences seem to be:"
    return f"\n\n{start}\n{listed}\nPlease write accordingly."


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
        backend.learned = ["brief", "warm", "brief", "", "x" * 400]
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


# Arms


def test_a_restart_keeps_the_arms_without_the_flag(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval:sft", "preference") as service:
            arms = service.loop.bandit.arms
            assert [arm.partition("@")[0] for arm in arms] == [
                "sft", "dpo", "retrieval-4:sft", "preference-5:base"
            ]  # fmt: skip
            epoch = service.loop.bandit.state.epoch
            await edited(service, "Invite Ada", "Hi Ada", arm="retrieval-4:sft")
        async with served(tmp_path, "retrieval:sft") as service:  # and what is there is not added again
            assert (service.loop.bandit.arms, service.loop.bandit.state.epoch) == (arms, epoch)
            done = await service.ask("Invite Bob", user="ada", model="retrieval-4:sft")
            assert done.headers["X-EditLoop-Policy"] == arms[2]
            assert last_asked(service) == (
                "sft", [user("Invite Ada"), kept("Hi Ada"), user("Invite Bob")]
            )  # fmt: skip
            assert service.loop.bandit.state.pool(arms[2]).observed == 1

    run(work())


def test_what_an_arm_stands_on_stays_ready_as_long_as_it_does(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval:sft", "retrieval:dpo", "retrieval-2:dpo") as service:
            sft, dpo, on_sft, on_dpo, also_on_dpo = service.loop.bandit.arms
            assert service.backend.prepared == [sft, dpo, sft, dpo, dpo]

            async def retire(arm: str) -> None:
                assert (await service.http.delete(f"/v1/arms/{arm}")).status_code == 200
                await asyncio.sleep(0.05)

            for arm in (sft, on_dpo, dpo):
                await retire(arm)
            assert service.backend.retired == []
            assert (await service.ask("x", user="a", model=on_sft)).status_code == 200
            await retire(also_on_dpo)
            assert service.backend.retired == [dpo]
            assert service.loop.bandit.arms == (on_sft,)

    run(work())


def test_they_are_promoted_by_name_and_have_to_be_forced(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path) as service:
            body = {"run": str(tmp_path / "run"), "policies": ["retrieval:base"]}
            error(await service.http.post("/v1/arms", json=body), 409, "evaluation_gate")
            done = await service.http.post("/v1/arms", json=body | {"force": True})
            assert [arm.partition("@")[0] for arm in done.json()["arms"]] == ["sft", "dpo", RETRIEVAL]
            wrong = body | {"policies": ["retrieval:early"], "force": True}
            error(await service.http.post("/v1/arms", json=wrong), 400, "run_unusable")
            wrong = body | {"policies": ["memory:base"], "force": True}
            error(await service.http.post("/v1/arms", json=wrong), 400, "run_unusable")
            rows = (await service.http.get("/v1/arms")).json()["data"]
            assert [row["in_context"] for row in rows] == [None, None, None]

    run(work())


def test_one_that_cannot_be_served_stops_no_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval:early", "preference") as service:
            names = [arm.partition("@")[0] for arm in service.loop.bandit.arms]
            assert names == ["sft", "dpo", "preference-5:base"]
            assert "retrieval-4:early is not added to the arms" in caplog.text
        empty = tmp_path / "empty"
        empty.mkdir()
        about = {"past_edits": InContextOptions(("retrieval",))}
        async with serving(sqlite(empty), empty / "state", arms=(), app_options=about) as service:
            assert service.loop.bandit.arms == () and "no policy is played yet" in caplog.text

    caplog.set_level(logging.WARNING)
    run(work())


def test_the_metrics_say_what_it_costs(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval", backend=Narrow(99)) as service:
            await edited(service, "Invite Ada", "Hi Ada")
            for name in ("ada", "bob"):
                await service.ask("Invite Bob", user=name, model=RETRIEVAL)
            lines = (await service.http.get("/metrics")).text.split("\n")
            (arm,) = [each for each in service.loop.bandit.arms if each.startswith(RETRIEVAL)]
            for name, labels, value in (
                ("requests", 'prompt="extended"', 1.0),
                ("requests", 'prompt="plain"', 1.0),
                ("requests", 'prompt="failed"', 0.0),
                ("tokens", 'use="prompt"', 16.0),
                ("tokens", 'use="learning"', 0.0),
            ):
                assert f'editloop_in_context_{name}_total{{arm="{arm}",{labels}}} {value}' in lines

    run(work())


# Kinds and similarities of other packages


class Shouted:
    """A kind as another package would define it: the texts alone, in the user's message."""

    examples, learns = 2, False

    def wants(self, edit: PastEdit) -> bool:
        return "!" in edit.text

    def write(self, messages: Any, found: Any) -> list[dict[str, Any]]:
        return with_paragraph(messages, " / ".join(edit.text for edit in found))


class Failing(Shouted):
    def write(self, messages: Any, found: Any) -> list[dict[str, Any]]:
        raise ZeroDivisionError


def test_a_kind_and_a_similarity_of_ones_own_are_used(tmp_path: Path, caplog: Any) -> None:
    IN_CONTEXT.register("shouted", Shouted())
    IN_CONTEXT.register("failing", Failing())
    SIMILARITIES.register("shortest", lambda asked, past: np.array([1 / len(text) for text in past]))

    async def work() -> None:
        options = InContextOptions(("shouted", "failing"), similarity="shortest")
        async with served(tmp_path, app_options={"past_edits": options}) as service:
            for text, edit in (("Invite Ada", "A!"), ("Go", "B!"), ("x", "quiet"), ("Ask", "C!")):
                await edited(service, text, edit)
            await service.ask("Write", user="ada", model="shouted-2:base")
            assert last_asked(service)[1] == [user("Write\n\nB! / C!")]
            await service.ask("Write", user="ada", model="failing-2:base")
            assert last_asked(service)[1] == [user("Write")]
            assert "answers without past edits: ZeroDivisionError" in caplog.text

    run(work())


def test_a_similarity_that_cannot_be_used_is_an_error_at_the_start(tmp_path: Path) -> None:
    def missing(asked: str, past: Any) -> Any:
        raise MissingExtraError("it needs a library")

    SIMILARITIES.register("missing", missing)

    async def work() -> None:
        options = InContextOptions(similarity="missing")
        with pytest.raises(MissingExtraError):
            async with served(tmp_path, app_options={"past_edits": options}):
                pass
        with pytest.raises(ConfigError, match="similarity"):
            async with served(tmp_path, app_options={"past_edits": InContextOptions(similarity="none")}):
                pass

    run(work())


# Behind a model server


def test_a_model_server_gets_the_prompt_and_nothing_of_this_server(tmp_path: Path) -> None:
    async def work() -> None:
        with stub_server(tmp_path / "stub.log") as port:
            url = f"http://127.0.0.1:{port}/v1"
            upstream = UpstreamBackend(url, base="stub")
            async with served(tmp_path, "retrieval-1", "preference-1", backend=upstream) as service:
                await edited(service, "Invite Ada", "Hi Ada")
                first = await service.ask("Invite Bob", user="ada", model="retrieval-1:base", top_p=0.5)
                usage = first.json()["usage"]
                await service.ask("Invite Bob", user="ada", model="preference-1:base")
                async with httpx.AsyncClient() as client:
                    _, retrieved, question, preferred = (await client.get(f"{url}/received")).json()
                assert retrieved == {
                    "model": "stub",
                    "stream": False,
                    "top_p": 0.5,
                    "messages": [user("Invite Ada"), kept("Hi Ada"), user("Invite Bob")],
                }
                about = {"asked": "Invite Ada", "draft": RESPONSE, "edited": "Hi Ada"}
                assert question == {
                    "model": "stub",
                    "stream": False,
                    "max_tokens": 64,
                    "temperature": 0,
                    "messages": [user(QUESTION.format_map(about))],
                }
                shown = preferences_module.shortened(RESPONSE, preferences_module.LONGEST_PREFERENCE)
                assert preferred == {
                    "model": "stub", "stream": False, "messages": [user("Invite Bob" + paragraph(shown))]
                }  # fmt: skip
                assert usage == {"prompt_tokens": 60, "completion_tokens": 50, "total_tokens": 110}
                # Of 26 characters 16 were added, and of the 60 tokens that the stub counts as many.
                assert (await tally(service, "retrieval-1:base"))["prompt_tokens"] == round(60 * 16 / 26)
                assert (await tally(service, "preference-1:base"))["learning_tokens"] == 110

    run(work())


def test_a_served_policy_says_what_it_uses() -> None:
    base = ServedPolicy("base@1", "base", Path("run"))
    assert base.uses == () and ServedPolicy("a:b@2", "a:b", Path("run"), uses=(base,)).uses == (base,)
