"""Policies in the server's process: several adapters in one batch, each with its own text."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from serving import run, serving

from editloop.errors import ModelError
from editloop.policy import ContextTree, LoraSettings, RunFolder, attach_adapter, detach_adapter, load_base
from editloop.policy.catalog import find_policies, objection, validation
from editloop.policy.continuous import ContinuousBatch
from editloop.policy.generation import GenerationSettings
from editloop.serve.backends.base import BackendUnavailableError, Chunk, ServedPolicy, UpstreamRejectedError
from editloop.serve.backends.local import LocalBackend
from editloop.serve.backends.local_job import Job
from small_run import cost, make_manifest


@pytest.fixture
def folder(base: Any, tmp_path: Path) -> RunFolder:
    """A run with two policies that were not trained but differ, and their mixture."""
    policy = load_base(base(), device="cpu", max_length=60)
    made = RunFolder(tmp_path / "run")
    for seed, name in enumerate(("sft", "dpo")):
        adapted = attach_adapter(policy, LoraSettings(rank=2), seed=seed)
        with torch.no_grad():
            for key, weight in adapted.model.named_parameters():
                if "lora_B" in key:
                    weight.fill_(0.3 * (1 + seed))
        made.save_policy(name, lambda path, model=adapted.model: model.save_pretrained(str(path)))
        detach_adapter(adapted)
    about = {"name": policy.base, "fingerprint": policy.fingerprint, "max_length": 60, **cost(0.5)}
    policies = {
        name: {"chosen": 0, "alarms": [], "trials": [cost(mean)]}
        for name, mean in (("sft", 0.2), ("dpo", 0.9))
    }
    mixture = {"weights": {"sft": 0.5, "dpo": 0.5}}
    made.write_manifest(make_manifest(base=about, policies=policies, mixture=mixture))
    return made


def ask(text: str, **more: Any) -> Mapping[str, Any]:
    return {"messages": [{"role": "user", "content": text}], "temperature": 0, **more}


async def collect(backend: LocalBackend, arm: str, request: Mapping[str, Any]) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(arm, request, "r")]


async def collect_as(
    backend: LocalBackend, arm: str, request: Mapping[str, Any], response_id: str
) -> list[Chunk]:
    return [chunk async for chunk in backend.stream(arm, request, response_id)]


def test_a_batch_of_all_arms_says_what_each_says_alone(folder: RunFolder) -> None:
    served = find_policies(folder.path, ["base", "sft", "dpo", "mixture"])

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=12)
        await backend.start()
        for each in served:
            await backend.prepare(each)
        names = [each.arm for each in served]
        prompts = ["say 1", "say 2 and 3 and 4", "x"]
        expected = {}
        policy = folder.load_base()
        for each in served[:3]:
            with folder.policy(each.name, policy) as alone:
                samples = alone.sample(prompts, temperature=0, max_new_tokens=12)
            expected |= {(each.arm, prompt): s.text for prompt, s in zip(prompts, samples, strict=True)}
        assert len(set(expected.values())) > 3
        asked = [(arm, prompt) for prompt in prompts for arm in names[:3]]
        done = await asyncio.gather(*(backend.complete(arm, ask(p), "r") for arm, p in asked))
        assert {key: each.text for key, each in zip(asked, done, strict=True)} == expected
        mixed = {(await backend.complete(names[3], ask("x"), f"r{i}")).text for i in range(12)}
        assert mixed == {expected[names[1], "x"], expected[names[2], "x"]}
        chunks = await collect(backend, names[1], ask("x"))
        assert "".join(each.delta.get("content", "") for each in chunks) == expected[names[1], "x"]
        assert [each.delta.get("role") for each in chunks if each.delta][:2] == ["assistant", None]
        assert [each.finish is not None for each in chunks] == [False] * (len(chunks) - 1) + [True]
        await backend.stop()

    run(work())


def test_a_response_has_the_log_probability_of_the_policy_that_wrote_it(folder: RunFolder) -> None:
    """Of the arm, or of the part of a mixture, whatever the temperature; with the token that ended it."""
    served = find_policies(folder.path, ["base", "sft", "dpo", "mixture"])

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=12)
        await backend.start()
        for each in served:
            await backend.prepare(each)
        policy, ended = folder.load_base(), set()
        for each in served:
            for i, temperature in enumerate((0, 0.6, 1.8)):
                request = ask(f"say {i}", temperature=temperature, seed=i)
                found = await backend.complete(each.arm, request, f"r{i}")
                chunks = await collect_as(backend, each.arm, request, f"r{i}")
                assert [chunk.logprob for chunk in chunks] == [None] * (len(chunks) - 1) + [found.logprob]
                tree = policy.encoder.tree(f"say {i}", [found.text or ""])
                assert tree is not None and found.usage is not None
                (tokens,) = tree.continuations
                ended.add(found.finish)
                # A draft that was cut has no end; one in other tokens than its text's own is left out.
                tokens = tokens if found.finish == "stop" else tokens[:-1]
                if len(tokens) != found.usage["completion_tokens"]:
                    continue
                with folder.policy(each.part_for(f"r{i}").name, policy) as alone:
                    ((expected,),) = alone.log_probs([ContextTree(tree.context, (tokens,))])
                assert found.logprob == pytest.approx(expected, abs=1e-3)
        assert "length" in ended
        await backend.stop()

    run(work())


def test_of_a_text_that_is_not_what_was_generated_nothing_is_known(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sft,) = find_policies(folder.path, ["sft"])

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=20)
        await backend.start()
        await backend.prepare(sft)
        whole = await backend.complete(sft.arm, ask("x"), "r")
        assert whole.text is not None and whole.logprob is not None
        stopped = await backend.complete(sft.arm, ask("x", stop=whole.text[4:6]), "r")
        assert stopped.text != whole.text and stopped.logprob is None
        monkeypatch.setattr("editloop.serve.backends.local.trim_loops", lambda text: text[:3])
        trimmed = await backend.complete(sft.arm, ask("x"), "r")
        assert trimmed.text == whole.text[:3] and trimmed.logprob is None
        await backend.stop()

    run(work())


def test_a_whole_model_answers_beside_the_adapters(folder: RunFolder) -> None:
    base = folder.load_base()
    with torch.no_grad():
        base.model.get_output_embeddings().weight.neg_()

    def save(path: Path) -> None:
        base.model.save_pretrained(str(path))
        base.encoder.tokenizer.save_pretrained(str(path))

    folder.save_policy("early", save)
    manifest = folder.manifest()
    manifest.policies["early"] = manifest.policies["sft"]
    folder.write_manifest(manifest)
    folder.keep_mixture({"weights": {"sft": 0.5, "early": 0.5}})
    served = find_policies(folder.path, ["sft", "early", "mixture"])

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=12)
        await backend.start()
        for each in served:
            await backend.prepare(each)
        sft, early, mixture = (each.arm for each in served)
        asked = [backend.complete(arm, ask("x"), "r") for arm in (sft, early, sft)]
        found = [each.text for each in await asyncio.gather(*asked)]
        with folder.policy("early", folder.load_base()) as alone:
            (whole,) = alone.sample(["x"], temperature=0, max_new_tokens=12)
        assert found[0] == found[2] != found[1] == whole.text
        await backend.retire(early)  # the mixture still needs it
        mixed = {(await backend.complete(mixture, ask("x"), f"r{i}")).text for i in range(12)}
        assert mixed == set(found)
        with pytest.raises(BackendUnavailableError, match="missing"):
            await backend.complete(early, ask("x"), "r")
        await backend.stop()

    run(work())


def test_limits_and_stops_are_a_rows_own(folder: RunFolder) -> None:
    (sft,) = find_policies(folder.path, ["sft"])

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=20)
        await backend.start()
        await backend.prepare(sft)
        whole = await backend.complete(sft.arm, ask("x", max_tokens=9), "r")
        assert whole.text is not None and whole.usage is not None
        assert (whole.finish, whole.usage["completion_tokens"]) == ("length", 9)
        half = len(whole.text) // 2
        stop = whole.text[half : half + 3]
        at = whole.text.find(stop)
        short, cut = await asyncio.gather(
            backend.complete(sft.arm, ask("x", max_tokens=3), "r"),
            backend.complete(sft.arm, ask("x", max_tokens=9, stop=[stop, "never"]), "r"),
        )
        assert short.usage is not None and short.usage["completion_tokens"] == 3
        assert (cut.text, cut.finish) == (whole.text[:at], "stop")
        streamed = await collect(backend, sft.arm, ask("x", max_tokens=9, stop=stop))
        assert "".join(each.delta.get("content", "") for each in streamed) == whole.text[:at]
        before = torch.get_rng_state()
        seeded = [ask("x", temperature=1, seed=seed) for seed in (3, 4, 3)]
        alone = [(await backend.complete(sft.arm, each, "r")).text for each in seeded]
        beside = await asyncio.gather(*(backend.complete(sft.arm, each, "r") for each in seeded))
        assert alone == [each.text for each in beside]
        assert alone[0] == alone[2] != alone[1]
        assert torch.equal(torch.get_rng_state(), before)  # nobody else's randomness is touched
        await backend.stop()

    run(work())


def test_a_character_of_several_tokens_is_sent_when_it_is_whole() -> None:
    """Some tokenizers decode every byte of a character that has begun as U+FFFD."""
    texts = [
        "",
        "Hi ",
        "Hi \ufffd",
        "Hi \ufffd\ufffd",
        "Hi \ufffd\ufffd\ufffd",
        "Hi \U0001f642",
        "Hi \U0001f642!",
    ]
    encoder = SimpleNamespace(end=0, ends=(0,), decode=lambda ids: texts[len(ids)])

    async def work() -> None:
        job = Job(
            prompt=(1,),
            max_tokens=len(texts) - 1,
            settings=GenerationSettings(),
            stream=np.random.SeedSequence(0),
            event_loop=asyncio.get_running_loop(),
        )
        for token in range(1, len(texts)):
            job.ids.append(token)
            job.take(token, encoder)  # type: ignore[arg-type]
        await asyncio.sleep(0)
        sent = [job.parts.get_nowait() for _ in range(job.parts.qsize())]
        parts = [each.delta.get("content", "") for each in sent if isinstance(each, Chunk)]
        assert parts == ["Hi ", "\U0001f642", "!", ""]

    run(work())


def test_what_cannot_be_answered_is_reported(folder: RunFolder) -> None:
    (sft,) = find_policies(folder.path, ["sft"])

    async def work() -> None:
        backend = LocalBackend()
        await backend.start()
        await backend.prepare(sft)
        with pytest.raises(UpstreamRejectedError, match="leave no room"):
            await backend.complete(sft.arm, ask("word " * 99), "r")
        tools = {"messages": [{"role": "assistant", "content": "x", "tool_calls": [1]}]}
        with pytest.raises(UpstreamRejectedError, match="only messages with texts"):
            await backend.complete(sft.arm, tools, "r")
        with pytest.raises(BackendUnavailableError, match="missing"):
            await backend.complete("other@1", ask("x"), "r")
        manifest = folder.manifest()
        manifest.base.fingerprint = "0" * 16
        folder.write_manifest(manifest)
        with pytest.raises(ModelError, match="needs another base"):
            await backend.prepare(ServedPolicy("new@1", "dpo", folder.path))
        await backend.stop()

    run(work())


def on_base(place: Path, base: Path) -> ServedPolicy:
    """A policy that was fitted on a base as it is now."""
    policy, made = load_base(base, device="cpu", max_length=60), RunFolder(place)
    adapted = attach_adapter(policy, LoraSettings(rank=2), seed=0)
    made.save_policy("sft", lambda path: adapted.model.save_pretrained(str(path)))
    about = {"name": policy.base, "fingerprint": policy.fingerprint, "max_length": 60, **cost(0.5)}
    policies = {"sft": {"chosen": 0, "alarms": [], "trials": [cost(0.2)]}}
    made.write_manifest(make_manifest(base=about, policies=policies))
    (served,) = find_policies(place)
    return served


def test_a_base_that_was_changed_on_the_disk_answers_for_none_of_its_policies(
    base: Any, tmp_path: Path
) -> None:
    place = Path(shutil.copytree(base(), tmp_path / "base"))
    before = on_base(tmp_path / "before", place)

    async def work() -> None:
        running, restarted = LocalBackend(max_new_tokens=4), LocalBackend(max_new_tokens=4)
        await running.prepare(before)
        text = (await running.complete(before.arm, ask("x"), "r")).text
        weights, new = place / "model.safetensors", tmp_path / "new"
        save_file({k: v + 0.1 for k, v in load_file(weights).items()}, new, metadata={"format": "pt"})
        new.replace(weights)  # the old file stays mapped into memory
        after = on_base(tmp_path / "after", place)
        assert after.arm != before.arm
        with pytest.raises(ModelError, match="other weights under the name") as error:
            await running.prepare(after)  # it has the old base in memory, and goes on with that
        assert "\n" not in str(error.value)
        with pytest.raises(BackendUnavailableError, match="missing"):
            await running.complete(after.arm, ask("x"), "r")
        assert (await running.complete(before.arm, ask("x"), "r")).text == text
        with pytest.raises(ModelError, match="other weights under the name"):
            await restarted.prepare(before)
        await restarted.prepare(after)
        assert (await restarted.complete(after.arm, ask("x"), "r")).finish
        with pytest.raises(BackendUnavailableError, match="missing"):
            await restarted.complete(before.arm, ask("x"), "r")
        await running.stop()
        await restarted.stop()

    run(work())


def test_what_is_refused_leaves_no_trace(folder: RunFolder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/edits.db"
    options = {"runs": [folder.path]}
    folder.write_manifest(folder.manifest().model_copy(update={"mixture": None}))

    async def work() -> None:
        backend = LocalBackend(max_new_tokens=4)
        async with serving(url, tmp_path, (), backend, options) as service:
            for more, shown in (
                ({"response_format": {"type": "json_object"}}, "cannot do `response_format`"),
                ({"messages": [{"role": "user", "content": "word " * 99}]}, "leave no room"),
            ):
                for stream in (False, True):
                    answer = await service.ask(stream=stream, **more)
                    assert answer.status_code == 400 and shown in answer.json()["error"]["message"]
            assert (await service.http.get("/v1/edits")).json()["data"] == []
            assert (await service.ask("x", temperature=0)).status_code == 200

    run(work())


def test_an_adapter_that_is_not_whole_is_refused(folder: RunFolder) -> None:
    """It is refused when it is loaded, even if the base's files could not be checked before."""
    served = {each.name: each for each in find_policies(folder.path, ["sft", "dpo", "base"])}
    whole = folder.policy_path("sft") / "adapter_model.safetensors"
    weights = load_file(whole)
    for change in (
        lambda kept: [kept.pop(name) for name in list(kept)[:2]],
        lambda kept: kept.update({"base_model.model.model.layers.9.lora_A.weight": torch.zeros(2, 2)}),
    ):
        kept = dict(weights)
        change(kept)
        save_file(kept, whole)

        async def work() -> None:
            backend = LocalBackend(max_new_tokens=8)
            await backend.start()
            for first in ("sft", "dpo", "sft"):
                if first == "dpo":
                    await backend.prepare(served["dpo"])
                    continue
                with pytest.raises(ModelError, match="weights missing"):
                    await backend.prepare(served["sft"])
            with pytest.raises(BackendUnavailableError, match="missing"):
                await backend.complete(served["sft"].arm, ask("x"), "r")
            policy = folder.load_base()
            with folder.policy("dpo", policy) as alone:
                (expected,) = alone.sample(["x"], temperature=0, max_new_tokens=8)
            assert (await backend.complete(served["dpo"].arm, ask("x"), "r")).text == expected.text
            await backend.stop()

        run(work())


def test_names_of_arms_follow_what_they_are(folder: RunFolder) -> None:
    before = {each.name: each.arm for each in find_policies(folder.path, ["base", "sft", "dpo", "mixture"])}
    assert len(set(before.values())) == 4
    assert all(arm.startswith(f"{name}@") and len(arm) == len(name) + 9 for name, arm in before.items())
    weights = folder.policy_path("sft") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")  # the last number changes
    after = {each.name: each.arm for each in find_policies(folder.path, list(before))}
    assert {name for name in before if before[name] != after[name]} == {"sft", "mixture"}


def test_offline_evaluation_objects_to_what_is_worse_than_the_base(folder: RunFolder) -> None:
    assert objection(validation(folder.path, "sft")) is None
    assert objection(validation(folder.path, "base")) is None
    assert objection(validation(folder.path, "dpo")) == (
        "its validation cost is 0.900, the base's 0.500 ± 0.042"
    )
    assert objection(validation(folder.path, "mixture")) is not None
    assert objection({"cost": None, "base": None}) == "the run has no validation costs"


def test_policies_are_promoted_and_retired_while_serving(folder: RunFolder, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/edits.db"

    async def work() -> None:
        async with serving(url, tmp_path, arms=(), backend=LocalBackend(max_new_tokens=8)) as service:

            async def promote(**body: Any) -> Any:
                return await service.http.post("/v1/arms", json={"run": str(folder.path), **body})

            refused = await promote()
            assert refused.status_code == 409 and "its validation cost is 0.900" in refused.text
            assert refused.json()["error"]["code"] == "evaluation_gate"
            assert service.loop.bandit.arms == ()
            first = (await promote(policies=["sft"])).json()
            assert first["epoch"] == 1 and len(first["arms"]) == 1
            (sft,) = first["arms"]
            answer = await service.ask("x", user="ada")
            assert answer.json()["model"] == sft
            await service.edit(answer.json()["id"], "better")
            second = (await promote(policies=["dpo", "base"], force=True)).json()
            assert [arm.partition("@")[0] for arm in second["arms"]] == ["sft", "dpo", "base"]
            assert list(second["against"]) == [second["arms"][1]]
            assert (await promote(policies=["sft"])).json()["epoch"] == 3  # to the end of the list
            assert (await promote(policies=["sft"])).json()["epoch"] == 3
            gone = await service.http.delete(f"/v1/arms/{second['arms'][1]}")
            assert len(gone.json()["arms"]) == 2
            assert (await service.http.delete("/v1/arms/none")).status_code == 404
            shown = {each["arm"]: each for each in (await service.http.get("/v1/arms")).json()["data"]}
            assert shown[sft]["observed"] == 1 and shown[sft]["validation"]["cost"]["mean"] == 0.2
            assert not shown[second["arms"][1]]["played"]
            for body, code in (
                ({"run": str(tmp_path)}, "run_unusable"),
                ({"policies": ["nothing"]}, "run_unusable"),
            ):
                wrong = await promote(**body)
                assert (wrong.status_code, wrong.json()["error"]["code"]) == (400, code)
            await promote(policies=["sft"], replace=True)
            assert service.loop.bandit.arms == (sft,)
            last = await service.http.delete(f"/v1/arms/{sft}")
            assert last.status_code == 409 and last.json()["error"]["code"] == "last_arm"
        async with serving(url, tmp_path, arms=(), backend=LocalBackend(max_new_tokens=8)) as service:
            assert (await service.ask("x")).json()["model"] == sft

    run(work())


async def prepared(folder: RunFolder, **options: Any) -> tuple[LocalBackend, list[str]]:
    """A backend that has started, with the arms of sft and dpo."""
    backend = LocalBackend(**options)
    await backend.start()
    served = find_policies(folder.path, ["sft", "dpo"])
    for each in served:
        await backend.prepare(each)
    return backend, [each.arm for each in served]


def test_an_error_in_a_step_ends_its_requests_and_the_next_one_is_answered(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        backend, (sft, dpo) = await prepared(folder, max_new_tokens=6)
        expected = (await backend.complete(sft, ask("x"), "r")).text

        def fails(self: ContinuousBatch) -> list[Any]:
            self._admit()
            raise RuntimeError("out of memory")

        with monkeypatch.context() as patched:
            patched.setattr(ContinuousBatch, "step", fails)
            asked = [backend.complete(arm, ask("x"), "r") for arm in (sft, dpo)]
            for error in await asyncio.gather(*asked, return_exceptions=True):
                assert isinstance(error, BackendUnavailableError) and "out of memory" in str(error)
        assert (await backend.complete(sft, ask("x"), "r")).text == expected
        await backend.stop()

    run(work())


def test_requests_that_wait_are_answered_before_the_backend_stops(folder: RunFolder) -> None:
    async def work() -> None:
        backend, (sft, dpo) = await prepared(folder, max_new_tokens=20)
        asked = [asyncio.create_task(backend.complete(arm, ask("x"), "r")) for arm in (sft, dpo) * 2]
        await asyncio.sleep(0)  # they are begun
        await backend.stop()
        found = await asyncio.gather(*asked)
        assert [each.text for each in found[:2]] == [each.text for each in found[2:]]

    run(work())


def test_a_client_that_leaves_frees_its_row(folder: RunFolder) -> None:
    async def work() -> None:
        backend, (sft, _) = await prepared(folder, max_new_tokens=50)
        stream = backend.stream(sft, ask("x"), "r")
        await anext(stream)
        (batch,) = backend._batches.values()
        (row,) = batch.rows
        await stream.aclose()
        assert row.done == "stop"
        await backend.stop()
        assert len(row.ids) < 50 and not backend._batches

    run(work())


def test_a_retired_adapter_is_freed_when_its_last_request_has_ended(folder: RunFolder) -> None:
    async def work() -> None:
        backend, (sft, dpo) = await prepared(folder, max_new_tokens=8)
        assert backend._adapters is not None
        alone = (await backend.complete(sft, ask("x"), "r")).text
        waiting = asyncio.create_task(backend.complete(sft, ask("x"), "r"))
        await asyncio.sleep(0)
        await backend.retire(sft)
        assert (await waiting).text == alone
        await backend.complete(dpo, ask("x"), "r")
        await backend.stop()
        assert backend._adapters.names == {dpo}

    run(work())
