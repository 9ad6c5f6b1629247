"""In-context policies in a server: streams and long prompts, failures, arms, metrics, parts of one's own."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from past_edits_server import (
    RETRIEVAL,
    edited,
    kept,
    last_asked,
    paragraph,
    served,
    tally,
    user,
)
from serving import Parrot, error, run, serving, sqlite

from editloop.errors import ConfigError, MissingExtraError, StoreUnreachableError
from editloop.serve.backends.base import (
    BackendUnavailableError,
    Chunk,
    Completion,
    ServedPolicy,
    UpstreamRejectedError,
)
from editloop.serve.backends.upstream import UpstreamBackend
from editloop.serve.in_context import IN_CONTEXT
from editloop.serve.in_context import backend as in_context_backend
from editloop.serve.in_context import preferences as preferences_module
from editloop.serve.in_context.base import InContextOptions, PastEdit, with_paragraph
from editloop.serve.in_context.preferences import QUESTION
from editloop.serve.in_context.similarity import SIMILARITIES
from editloop.serve.stub_answers import RESPONSE
from editloop.serve.testing import stub_server
from small_run import make_run

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


def test_those_of_the_configuration_stay_when_all_other_arms_are_replaced(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval:sft", "preference:dpo") as service:
            body = {"run": str(tmp_path / "run"), "policies": ["sft"], "replace": True, "force": True}
            done = (await service.http.post("/v1/arms", json=body)).json()
            names = [arm.partition("@")[0] for arm in done["arms"]]
            assert sorted(names) == ["preference-5:dpo", "retrieval-4:sft", "sft"]
            assert tuple(done["arms"]) == service.loop.bandit.arms
            assert done["epoch"] == service.loop.bandit.state.epoch
            await edited(service, "Invite Ada", "Hi Ada")
            await service.ask("Invite Bob", user="ada", model="retrieval-4:sft")
            assert last_asked(service)[1] == [user("Invite Ada"), kept("Hi Ada"), user("Invite Bob")]

    run(work())


def test_none_stands_on_the_arm_of_one_user(tmp_path: Path) -> None:
    async def work() -> None:
        async with served(tmp_path, "retrieval:early") as service:
            own = make_run(tmp_path / "own", ("early",))
            body = {"run": str(own.path), "user": "ada", "replace": True, "force": True}
            done = (await service.http.post("/v1/arms", json=body)).json()
            names = [arm.partition("@")[0] for arm in done["arms"]]
            assert names == ["sft", "dpo", "early"]
            assert list(service.loop.bandit.state.owners) == [done["arms"][-1]]

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
