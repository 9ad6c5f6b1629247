"""`serve --best-of`: several drafts of a response in this process, of which one is given and all are kept."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import run, serving, sqlite
from sqlalchemy import text as sql

from editloop.errors import ConfigError, RunError
from editloop.offline import fit
from editloop.offline.cost_model.saved import predicted_costs
from editloop.offline.rerank import KAPPA
from editloop.policy import Policy, RunFolder, load_base
from editloop.policy.catalog import find_policies
from editloop.policy.generation import GenerationSettings
from editloop.serve.backends import best_of, make_backend
from editloop.serve.backends.base import BackendOptions, BackendUnavailableError, Chunk, Completion
from editloop.serve.backends.local import LocalBackend
from small_log import small_log, with_cost_model


@pytest.fixture(scope="module")
def made(base: Any, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with a policy and a cost model."""
    policy = load_base(base(chat=True), device="cpu")
    return fit(small_log(60), policy, tmp_path_factory.mktemp("drafts") / "run", with_cost_model())


@pytest.fixture
def earned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the cost model choose, whatever it was shown to predict."""
    monkeypatch.setattr(best_of, "no_reranking", lambda run: None)


async def started(made: RunFolder, n: int) -> tuple[LocalBackend, str]:
    backend = LocalBackend(max_new_tokens=10, best_of=n)
    await backend.start()
    served = find_policies(made.path, ["sft", "rl"])
    for each in served:
        await backend.prepare(each)
    return backend, served[0].arm


def ask(content: str, **more: Any) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": content}], "seed": 5, **more}


def test_the_draft_with_the_least_bound_is_given_with_all_beside_it(made: RunFolder, earned: None) -> None:
    async def work() -> None:
        backend, arm = await started(made, 6)
        alone, _ = await started(made, 1)
        plain = made.load_base()
        places, likely = set(), set()
        for question in ("mail 1", "mail 2", "mail 3", "mail 4"):
            found, one = await asyncio.gather(
                backend.complete(arm, ask(question), "r"), alone.complete(arm, ask(question), "r")
            )
            assert found.drafts[0].text == one.text and one.drafts == ()
            assert len(found.drafts) == 6 and len({draft.text for draft in found.drafts}) > 1
            bounds = {k: draft.bound for k, draft in enumerate(found.drafts) if draft.bound is not None}
            ended = [k for k, draft in enumerate(found.drafts) if draft.finish == "stop"] or [*range(6)]
            assert list(bounds) == (ended if len(ended) > 1 else [])
            place = [draft.text for draft in found.drafts].index(found.text)
            places.add(place)
            # The adapters on the base must not reach the features by which the drafts are compared.
            trees = [plain.encoder.tree(question, [found.drafts[k].text]) for k in bounds]
            if bounds:
                mean, spread = predicted_costs(made, plain, [tree for tree in trees if tree is not None])
                assert list(bounds.values()) == pytest.approx(mean + KAPPA * spread, rel=1e-4)
                assert found.drafts[place].bound == np.min(list(bounds.values()))
            likely.add(found.logprob)
            if place == 0:
                assert found.logprob == one.logprob
            assert found.usage is not None and found.message["content"] == found.text
            assert found.usage["completion_tokens"] >= 6
            again = await backend.complete(arm, ask(question), "r")
            assert (again.text, again.usage) == (found.text, found.usage)
        assert None not in likely and len(likely) == 4
        assert places != {0}  # else a first draft that is always given would pass, too
        await backend.stop()
        await alone.stop()

    run(work())


def test_a_stream_gives_the_chosen_draft_in_one_part(made: RunFolder, earned: None) -> None:
    async def work() -> None:
        backend, arm = await started(made, 3)
        whole = await backend.complete(arm, ask("mail 1"), "r")
        chunks = [chunk async for chunk in backend.stream(arm, ask("mail 1"), "r")]
        # The same draws in two calls: the last digits of sums depend on what else the processor does.
        about = pytest.approx(whole.logprob, rel=1e-6)
        bounds = [pytest.approx(each.bound, rel=1e-6) for each in whole.drafts]
        drafts = tuple(replace(each, bound=bound) for each, bound in zip(whole.drafts, bounds, strict=True))
        assert chunks == [
            Chunk({"role": "assistant", "content": whole.text}),
            Chunk({}, whole.finish, whole.usage, drafts=drafts, logprob=about),
        ]
        await backend.stop()

    run(work())


def test_a_cost_model_that_has_not_earned_it_chooses_nothing(
    made: RunFolder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(best_of, "no_reranking", lambda run: "it predicts nothing")

    async def work() -> None:
        backend, arm = await started(made, 4)
        assert (await backend.complete(arm, ask("mail 1"), "r")).drafts == ()
        await backend.stop()

    run(work())
    told = [each.message for each in caplog.records if "one draft in place of 4" in each.message]
    assert len(told) == 1 and "it predicts nothing" in told[0]  # for two policies of one run


def test_tuned_features_choose_nothing(
    made: RunFolder, earned: None, caplog: pytest.LogCaptureFixture
) -> None:
    (made.cost_model / "adapter").mkdir()
    chooser = best_of.Chooser(2)
    chooser.take(made)
    (made.cost_model / "adapter").rmdir()
    assert chooser.count(made.path) == 1 and "features of its own" in caplog.text


def test_a_cost_model_is_read_again_for_another_run_and_a_damaged_one_chooses_nothing(
    made: RunFolder, earned: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    chooser = best_of.Chooser(2)
    chooser.take(made)
    assert chooser.count(made.path) == 2
    read = []
    monkeypatch.setattr(best_of.CostModel, "load", lambda folder: read.append(folder))
    chooser.take(made)
    assert read == []  # it is known
    manifest = made.manifest()
    monkeypatch.setattr(
        RunFolder, "manifest", lambda self: manifest.model_copy(update={"identity": "another"})
    )

    def damaged(folder: Path) -> None:
        raise RunError("the cost model is missing or damaged")

    monkeypatch.setattr(best_of.CostModel, "load", damaged)
    chooser.take(made)
    assert chooser.count(made.path) == 1 and "missing or damaged" in caplog.text


def test_drafts_that_cannot_be_compared_are_given_all_the_same(
    made: RunFolder, earned: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        backend, arm = await started(made, 3)
        monkeypatch.setattr(Policy, "features", lambda *_: 1 / 0)
        found = await backend.complete(arm, ask("mail 1"), "r")
        assert len(found.drafts) == 3 and [draft.bound for draft in found.drafts] == [None] * 3
        assert found.text in [draft.text for draft in found.drafts]
        assert "are not compared" in caplog.text
        backend._worker.shutdown()  # it stops between the drafts and the choice
        late = best_of.given([Completion("a", "length", {}), Completion("b", "stop", {})], [math.nan] * 2)
        assert late.text == "b"

    run(work())


def test_a_greedy_request_gets_one_draft(made: RunFolder, earned: None) -> None:
    async def work() -> None:
        backend, arm = await started(made, 4)
        assert (await backend.complete(arm, ask("mail 1", temperature=0), "r")).drafts == ()
        assert backend._base is not None
        backend._base = replace(backend._base, generation=GenerationSettings(temperature=0))
        assert (await backend.complete(arm, ask("mail 1"), "r")).drafts == ()  # as the base ships it
        with pytest.raises(BackendUnavailableError, match="missing"):
            await backend.complete("nobody@1", ask("mail 1"), "r")
        await backend.stop()

    run(work())


def test_a_client_that_leaves_ends_all_drafts(made: RunFolder, earned: None) -> None:
    async def work() -> None:
        backend, arm = await started(made, 4)
        backend._limit = 400
        waiting = asyncio.create_task(backend.complete(arm, ask("mail 1"), "r"))
        while len(backend._jobs) < 4:
            await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await asyncio.sleep(0)
        assert not backend._jobs
        await backend.stop()

    run(work())


@pytest.mark.parametrize("streamed", [False, True])
def test_all_drafts_are_kept_redacted_and_removed_with_the_texts(
    made: RunFolder, earned: None, tmp_path: Path, streamed: bool
) -> None:
    url = sqlite(tmp_path)

    async def work() -> None:
        options = {"runs": [made.path], "redact": lambda text: f"*{text}"}
        backend = LocalBackend(max_new_tokens=10, best_of=3)
        async with serving(url, tmp_path, arms=(), backend=backend, app_options=options) as service:
            answer = await service.ask("mail 1", user="zoe", stream=streamed)
            assert answer.status_code == 200
            rows = await service.loop.read(
                lambda c: c.execute(sql("SELECT response, compared FROM drafts")).all()
            )
            ((response, compared),) = rows
            drafts = json.loads(compared)
            assert len(drafts) == 3 and response in [draft["text"] for draft in drafts]
            assert all(set(draft) == {"text", "finish", "bound"} for draft in drafts)
            # Redaction has marked every text.
            assert all(text.startswith("*") for text in (response, *(draft["text"] for draft in drafts)))
            await service.http.delete("/v1/users/zoe")
            assert await service.loop.read(
                lambda c: c.execute(sql("SELECT response, compared FROM drafts")).all()
            ) == [(None, None)]

    run(work())


def test_a_model_server_compares_no_drafts() -> None:
    with pytest.raises(ConfigError, match="only by a base in this process"):
        make_backend("upstream", BackendOptions(url="http://localhost:1/v1", best_of=2))


def test_a_draft_that_fails_fails_the_response(
    made: RunFolder, earned: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        backend, arm = await started(made, 3)
        one = backend._complete

        async def failing(
            arm: str, request: Mapping[str, Any], response_id: str, number: int = 0
        ) -> Completion:
            if number == 1:
                raise BackendUnavailableError("error", "spoiled")
            return await one(arm, request, response_id, number)

        monkeypatch.setattr(backend, "_complete", failing)
        with pytest.raises(BackendUnavailableError, match="error"):
            await backend.complete(arm, ask("mail 1"), "r")
        await backend.stop()

    run(work())
