"""In-context policies in this process: the tokens of their prompts, the model's window, several drafts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from serving import Service, run, serving, sqlite

from editloop.errors import ModelError
from editloop.policy import LoraSettings, RunFolder, attach_adapter, detach_adapter, load_base
from editloop.serve.backends.base import CountsTokens
from editloop.serve.backends.best_of import Chooser, given
from editloop.serve.backends.local import LocalBackend
from editloop.serve.in_context.base import InContextOptions
from editloop.serve.in_context.preferences import QUESTION
from small_run import cost, make_manifest

Folder = Callable[..., RunFolder]


@pytest.fixture
def folder(base: Any, tmp_path: Path) -> Folder:
    """A run with one adapter on a base that has a token for each character."""

    def make(*, chat: bool = True, max_length: int = 200) -> RunFolder:
        changes = {"max_position_embeddings": 2048}
        policy = load_base(base(chat=chat, **changes), device="cpu", max_length=max_length)
        made = RunFolder(tmp_path / "run")
        adapted = attach_adapter(policy, LoraSettings(rank=2), seed=1)
        made.save_policy("sft", lambda path: adapted.model.save_pretrained(str(path)))
        detach_adapter(adapted)
        about = {"name": policy.base, "fingerprint": policy.fingerprint, "max_length": max_length}
        policies = {"sft": {"chosen": 0, "alarms": [], "trials": [cost(0.2)]}}
        made.write_manifest(make_manifest(base=about | cost(0.5), policies=policies))
        return made

    return make


def serve(made: RunFolder, *names: str, best_of: int = 1) -> Any:
    backend = LocalBackend(max_new_tokens=6, best_of=best_of, device="cpu")
    options = {"runs": [made.path], "past_edits": InContextOptions(names)}
    return serving(sqlite(made.path.parent), made.path.parent / "state", (), backend, options)


async def learn(service: Service, *pairs: tuple[str, str]) -> None:
    for text, edit in pairs:
        done = await service.ask(text, user="ada", model="sft", temperature=0)
        assert (await service.edit(done.json()["id"], edit)).status_code == 200


async def figures(service: Service) -> dict[str, int]:
    rows = (await service.http.get("/v1/arms")).json()["data"]
    return {name: n for row in rows if row["in_context"] for name, n in row["in_context"].items()}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("chat", [False, True])
def test_the_policy_answers_the_whole_prompt(folder: Folder, *, chat: bool, stream: bool) -> None:
    made = folder(chat=chat)

    async def work() -> None:
        async with serve(made, "retrieval-2") as service:
            await learn(service, ("mail ann", "Hi Ann"), ("mail bob", "Hi Bob!"), ("x", "y"))
            done = await service.ask(
                "mail bob", user="ada", model="retrieval-2:base", temperature=0, stream=stream
            )
            base = made.load_base(device="cpu")
            messages = [
                {"role": "user", "content": "mail ann"},
                {"role": "assistant", "content": "Hi Ann"},
                {"role": "user", "content": "mail bob"},
                {"role": "assistant", "content": "Hi Bob!"},
                {"role": "user", "content": "mail bob"},
            ]
            expected, plain = base.sample([messages, "mail bob"], temperature=0, max_new_tokens=6)
            response_id = done.headers["X-EditLoop-Response-Id"]
            row = (await service.http.get(f"/v1/edits/{response_id}")).json()
            assert row["response"] == expected.text != plain.text
            assert row["context"] == "mail bob"
            prompt, asked = len(base.encoder.prompt(messages)), len(base.encoder.prompt("mail bob"))
            if chat:  # a token for each character, for each role, and for each end of a turn
                assert prompt - asked == 2 * 2 * 2 + len("mail ann" + "Hi Ann" + "mail bob" + "Hi Bob!")
            if not stream:
                assert done.json()["usage"]["prompt_tokens"] == prompt
            found = await figures(service)
            assert (found["extended"], found["prompt_tokens"]) == (1, prompt - asked)

    run(work())


# The request has 9 tokens, and an example 2 + 6 + 2 + 5 = 15; a half of what the request leaves stays free.
@pytest.mark.parametrize(
    ("max_length", "extended", "tokens"), [(140, 1, 60), (128, 1, 30), (68, 1, 15), (38, 0, 0)]
)
def test_a_small_window_gets_fewer_examples_and_keeps_room_for_the_response(
    folder: Folder, max_length: int, extended: int, tokens: int
) -> None:
    made = folder(max_length=max_length)

    async def work() -> None:
        async with serve(made, "retrieval") as service:
            await learn(service, *((f"mail {i}", "hello") for i in range(4)))
            done = await service.ask("mail 3", user="ada", model="retrieval-4:base", temperature=0)
            assert done.status_code == 200
            found = await figures(service)
            assert (found["extended"], found["failed"]) == (extended, 1 - extended)
            assert found["prompt_tokens"] == tokens

    run(work())


def test_a_request_that_is_too_long_is_refused_as_before(folder: Folder) -> None:
    made = folder(max_length=60)

    async def work() -> None:
        async with serve(made, "retrieval") as service:
            await learn(service, ("mail 1", "hello"))
            answer = await service.ask("word " * 20, user="ada", model="retrieval-4:base")
            assert answer.status_code == 400 and "leave no room" in answer.text

    run(work())


def test_several_drafts_are_compared_by_what_was_asked(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cost model learned from contexts without past edits."""
    contexts: list[Any] = []

    def choose(self: Chooser, made: Path, base: Any, adapters: Any, context: Any, drafts: Any) -> Any:
        contexts.append(context)
        return given(drafts, [0.5, 0.25])

    monkeypatch.setattr(Chooser, "take", lambda self, made: None)
    monkeypatch.setattr(Chooser, "count", lambda self, made: 2)
    monkeypatch.setattr(Chooser, "choose", choose)
    made = folder()

    async def work() -> None:
        async with serve(made, "retrieval", best_of=2) as service:
            await learn(service, ("mail ann", "Hi Ann"))
            done = await service.ask("mail bob", user="ada", model="retrieval-4:base", seed=1)
            assert done.status_code == 200 and contexts == ["mail bob"]
            found = await figures(service)
            assert found["prompt_tokens"] == 2 * 2 + len("mail ann" + "Hi Ann")
            row = service.loop.store.read(lambda c: c.exec_driver_sql("SELECT compared FROM drafts").all())
            assert sum(each.compared is not None for each in row) == 1

    run(work())


def test_a_preference_is_asked_of_the_base_beside_other_requests(folder: Folder) -> None:
    made = folder(max_length=1200)

    async def work() -> None:
        async with serve(made, "preference:sft") as service:
            await learn(service, ("mail ann", "Hi Ann"), ("mail bob", "Hi Bob"))
            asked = [
                service.ask(f"mail {i}", user="ada", model="preference-5:sft", temperature=0)
                for i in range(3)
            ]
            done = await asyncio.gather(*asked, service.ask("mail", user="bob", model="sft"))
            assert {each.status_code for each in done} == {200}
            rows = service.loop.store.read(
                lambda c: c.exec_driver_sql("SELECT response_id, arm, text FROM preferences").all()
            )
            assert len(rows) == 2 and {row.arm.partition("@")[0] for row in rows} == {"base"}
            found = await figures(service)
            assert found["requests"] == 3 and found["learning_tokens"] > 2 * len(
                QUESTION.format(asked="", draft="", edited="")
            )
            assert found["extended"] == (3 if any(row.text for row in rows) else 0)

    run(work())


def test_tokens_are_counted_once_a_base_is_there(folder: Folder) -> None:
    backend = LocalBackend()
    assert isinstance(backend, CountsTokens)
    with pytest.raises(ModelError, match="no policy is loaded"):
        backend.tokens_left({"messages": [{"role": "user", "content": "x"}]})
