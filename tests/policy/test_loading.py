"""Devices, precisions, bases, adapters: choices with reasons, one-line errors, adapters without a trace."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from editloop.errors import ConfigError, EditLoopError, ModelError
from editloop.lab import base_path
from editloop.policy import (
    ContextTree,
    LoraSettings,
    Policy,
    attach_adapter,
    check_device,
    choose_device,
    choose_dtype,
    detach_adapter,
    load_adapter,
    load_base,
    trainable_copy,
)
from editloop.policy.bases import resolve_base

loading = sys.modules["editloop.policy.loading"]
TREES = [ContextTree((10, 11, 12), ((20, 21), (20, 22, 23))), ContextTree((13,), ((30,) * 9,))]
LORA = LoraSettings(rank=2, alpha=4)


def refused(kind: type[EditLoopError], call: Callable[[], object], *words: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line


def test_the_device_comes_with_a_reason() -> None:
    device, why = choose_device("auto")
    found = "accelerator" if device.type == "cpu" else "found"
    assert found in why
    assert choose_device("cpu") == (torch.device("cpu"), "as asked")


@pytest.mark.parametrize("device", ["quantum", "cuda:99", ""])
def test_a_device_that_is_not_there_is_refused(device: str) -> None:
    refused(ConfigError, lambda: choose_device(device), repr(device), "--device")


@pytest.mark.parametrize("asked", ["cuda", "auto"])
def test_a_process_takes_its_own_gpu(monkeypatch: pytest.MonkeyPatch, asked: str) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch, "empty", lambda *_, **__: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    assert choose_device(asked)[0] == torch.device("cuda", 1)
    assert choose_device("cuda:0")[0] == torch.device("cuda", 0)


def test_a_model_on_another_gpu_than_its_process_is_refused() -> None:
    alone, second = (SimpleNamespace(device=torch.device(name)) for name in ("cuda", "cuda:1"))
    for name, state in (("cuda:0", alone), ("cuda:1", second), ("cpu", alone), ("mps:0", alone)):
        check_device(torch.device(name), state)  # type: ignore[arg-type]
    words = ("GPU 0", "'cuda:1'", "CUDA_VISIBLE_DEVICES=1")
    refused(ConfigError, lambda: check_device(torch.device("cuda:1"), alone), *words)  # type: ignore[arg-type]
    refused(ConfigError, lambda: check_device(torch.device("cuda:0"), second), "GPU 1")  # type: ignore[arg-type]


def test_bf16_that_is_only_emulated_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    def old_gpu(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", old_gpu)
    assert choose_dtype(torch.device("cuda"))[0] == torch.float32


def test_the_precision_comes_with_a_reason() -> None:
    cpu = torch.device("cpu")
    dtype, why = choose_dtype(cpu)
    assert (dtype, why) == (torch.float32, "exact")
    assert choose_dtype(cpu, "bfloat16") == (torch.bfloat16, "as asked")
    refused(ConfigError, lambda: choose_dtype(cpu, "float8"), "'float8'", "--dtype", "bfloat16")


@pytest.mark.parametrize(
    ("known", "numbers", "chosen"),
    [
        ({"avx512_bf16": True}, 135_000_000, torch.bfloat16),
        ({"avx512_bf16": False, "amx_bf16": True}, 50_000_000, torch.bfloat16),
        ({"avx512_bf16": True}, 1_000_000, torch.float32),  # the products of a small base are too short
        ({"avx512_bf16": True}, 0, torch.float32),
        ({"avx2": True}, 135_000_000, torch.float32),
    ],
)
def test_a_processor_that_multiplies_in_bf16_does_so_for_a_large_base(
    known: dict[str, bool], numbers: int, chosen: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert choose_dtype(torch.device("cpu"), "auto", lambda: numbers)[0] == chosen
    assert choose_dtype(torch.device("cpu"), "float32", lambda: numbers) == (torch.float32, "as asked")


def test_the_numbers_of_a_base_are_counted_in_any_format(base: Any, tmp_path: Path) -> None:
    folder = Path(base())
    expected = sum(each.numel() for each in load_base(folder, device="cpu").model.parameters())
    assert loading._numbers(folder, False) == loading.numbers_of(folder) == expected
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    for weights in other.glob("*.safetensors"):
        weights.unlink()
    assert (
        loading.numbers_of(other) == 0 and loading._numbers(other, False) == expected
    )  # by the shapes of the configuration
    assert loading._numbers(tmp_path / "nowhere", False) == 0


def test_each_decision_is_reported_in_one_line(base: Any) -> None:
    policy = load_base(base(chat=True), device="cpu", dtype="bfloat16", max_length=50)
    assert policy.model.dtype == torch.bfloat16
    assert policy.encoder.max_length == 50
    assert policy.decisions[0] == "device cpu (as asked), dtype bfloat16 (as asked)"
    assert policy.decisions[1] == "length 50 tokens (as asked)"
    assert "<|end|>" in policy.decisions[2]
    assert policy.decisions[3].startswith("context trees (checked on this model")
    assert load_base(base(chat=True), max_length=5000).encoder.max_length == 256  # the model's own limit


def test_a_family_without_trees_is_said_to_be_scored_plainly(base: Any) -> None:
    policy = load_base(base("mpt"), device="cpu")
    assert not policy.shares
    assert policy.decisions[3].startswith("plain sequences (mpt ignores the tree mask")
    shared = load_base(base(), device="cpu")
    assert policy.pack(TREES).plain
    assert not shared.pack(TREES).plain


def damaged(source: Path, target: Path, how: str) -> Path:
    shutil.copytree(source, target)
    weights, config = target / "model.safetensors", target / "config.json"
    if how == "no config":
        config.unlink()
    elif how == "config cut":
        config.write_text(config.read_text()[:40])
    elif how == "no weights":
        weights.unlink()
    elif how == "weights cut":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how == "weights empty":
        weights.write_bytes(b"")
    elif how == "weight missing":
        kept = load_file(weights)
        del kept["model.norm.weight"]
        save_file(kept, weights, metadata={"format": "pt"})
    elif how == "weight of another shape":
        save_file(load_file(weights) | {"model.norm.weight": torch.ones(7)}, weights, {"format": "pt"})
    elif how == "no tokenizer":
        for file in target.glob("tokenizer*"):
            file.unlink()
    return target


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("no config", ["no config.json"]),
        ("config cut", ["config.json"]),
        ("no weights", ["no weights", "safetensors"]),
        ("weights cut", ["cannot be loaded"]),
        ("weights empty", ["cannot be loaded"]),
        ("weight missing", ["lacks 1 weights", "model.norm.weight"]),
        ("weight of another shape", ["cannot be loaded"]),
        ("no tokenizer", ["cannot be loaded", "tokenizer"]),
    ],
)
def test_a_damaged_base_is_one_line(base: Any, tmp_path: Path, how: str, words: list[str]) -> None:
    folder = damaged(base(), tmp_path / "base", how)
    refused(ModelError, lambda: load_base(folder, device="cpu"), str(folder)[:20], *words)


def test_a_base_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    refused(ModelError, lambda: load_base(tmp_path / "none"), "no such base folder", "--base")
    (tmp_path / "file").write_text("x")
    refused(ModelError, lambda: load_base(tmp_path / "file"), "not a model folder")
    refused(ConfigError, lambda: load_base(tmp_path / "none", quantize="3bit"), "'3bit'", "--quantize")


def test_a_base_of_the_lab_is_called_by_its_name() -> None:
    """In Python as in the command; a scheme that is not known is left to the hub."""
    named, by_path = load_base("lab:email", device="cpu"), load_base(base_path("email"), device="cpu")
    assert (named.base, named.fingerprint) == (by_path.base, by_path.fingerprint)
    with pytest.raises(ConfigError, match="unknown domain: 'letters'"):
        load_base("lab:letters")
    for base in ("C:/bases/a", Path("lab:email"), Path("smollm2")):
        assert resolve_base(base) == (base, str(base), None)


def test_the_fingerprint_is_of_what_is_in_the_base(base: Any, tmp_path: Path) -> None:
    here = load_base(base(), device="cpu").fingerprint
    copy = damaged(base(), tmp_path / "moved", "not at all")
    about = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(about | {"transformers_version": "5.17.0"}))
    assert load_base(copy, device="cpu").fingerprint == here
    assert load_base(copy, device="cpu", dtype="bfloat16").fingerprint == here
    assert load_base(base(seed=1), device="cpu").fingerprint != here

    weights = load_file(copy / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][3, 5] += 0.01  # one weight
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    assert load_base(copy, device="cpu").fingerprint != here

    shutil.copy(base() / "model.safetensors", copy / "model.safetensors")
    (copy / "config.json").write_text(json.dumps(about | {"rms_norm_eps": 1e-3}))
    assert load_base(copy, device="cpu").fingerprint != here


def state(policy: Policy) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in policy.model.state_dict().items()}


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_a_little(policy: Policy) -> None:
    from editloop.policy import batch_log_probs

    policy.model.train()
    optimizer = torch.optim.SGD([p for p in policy.model.parameters() if p.requires_grad], lr=0.01)
    for _ in range(3):
        batch_log_probs(policy.model, policy.pack(TREES)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_an_adapter_changes_the_policy_and_leaves_no_trace_when_it_is_off(base: Any, family: str) -> None:
    policy = load_base(base(family), device="cpu")
    before, names, scores = state(policy), list(policy.model.state_dict()), policy.log_probs(TREES)
    adapted = attach_adapter(policy, LORA, seed=0)
    assert adapted.log_probs(TREES) == scores  # a fresh adapter does nothing
    torch.manual_seed(1)  # the dropout of some families would depend on the tests that ran before
    train_a_little(adapted)
    trained = adapted.log_probs(TREES)
    assert abs(trained[0][0] - scores[0][0]) > 1e-2
    with adapted.reference():
        assert adapted.log_probs(TREES) == scores
    assert adapted.log_probs(TREES) == trained
    with pytest.raises(ModelError, match="carries an adapter of another policy"), policy.reference():
        pass  # its layers are in the base itself, which would answer like the policy
    again = detach_adapter(adapted)
    assert again.model is policy.model
    assert list(policy.model.state_dict()) == names
    assert equal(state(policy), before)
    assert policy.log_probs(TREES) == scores
    assert not policy.model.training
    assert not hasattr(policy.model, "peft_config")


def adapter_of(policy: Policy, seed: int) -> dict[str, torch.Tensor]:
    adapted = attach_adapter(policy, LORA, seed=seed)
    found = {name: w.clone() for name, w in adapted.model.state_dict().items() if "lora_" in name}
    detach_adapter(adapted)
    return found


def test_the_same_seed_gives_the_same_adapter_whatever_ran_before(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    torch.manual_seed(1)
    first, number = adapter_of(policy, 4), torch.rand(1)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), number)  # the global state was left alone
    assert first
    assert equal(first, adapter_of(policy, 4))
    assert not equal(first, adapter_of(policy, 5))


def test_an_adapter_that_fits_nothing_is_one_line_and_leaves_the_base(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    before = state(policy)
    refused(
        ModelError,
        lambda: attach_adapter(policy, LoraSettings(targets=("nothing",)), seed=0),
        "nothing",
        "--lora-targets",
    )
    assert equal(state(policy), before)
    detach_adapter(attach_adapter(policy, LORA, seed=0))


def saved_adapter(policy: Policy, folder: Path) -> list[list[float]]:
    adapted = attach_adapter(policy, LORA, seed=0)
    train_a_little(adapted)
    scores = adapted.log_probs(TREES)
    adapted.model.save_pretrained(str(folder))
    detach_adapter(adapted)
    return scores


def test_an_adapter_is_read_as_it_was_written(base: Any, tmp_path: Path) -> None:
    policy = load_base(base(), device="cpu")
    scores, plain = saved_adapter(policy, tmp_path / "adapter"), policy.log_probs(TREES)
    random = torch.get_rng_state()
    loaded = load_adapter(policy, tmp_path / "adapter")
    assert torch.equal(torch.get_rng_state(), random)
    assert loaded.log_probs(TREES) == scores
    assert not any(p.requires_grad for p in loaded.model.parameters())
    detach_adapter(loaded)
    assert policy.log_probs(TREES) == plain


@pytest.mark.parametrize("how", ["cut", "empty", "a weight less", "no config", "other rank", "absent"])
def test_a_damaged_adapter_is_one_line_and_leaves_the_base(base: Any, tmp_path: Path, how: str) -> None:
    policy = load_base(base(), device="cpu")
    folder = tmp_path / "adapter"
    saved_adapter(policy, folder)
    before = state(policy)
    weights, config = folder / "adapter_model.safetensors", folder / "adapter_config.json"
    if how == "cut":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "empty":
        weights.write_bytes(b"")
    elif how == "a weight less":
        kept = load_file(weights)
        kept.pop(sorted(kept)[0])
        save_file(kept, weights)
    elif how == "no config":
        config.write_text("{")
    elif how == "other rank":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"r": 3}))
    else:
        weights.unlink()
    refused(ModelError, lambda: load_adapter(policy, folder), "the adapter cannot be loaded", "'adapter'")
    assert equal(state(policy), before)
    assert not hasattr(policy.model, "peft_config")


def test_a_quantised_base_is_prepared_once_on_loading(base: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its fingerprint and any score; an adapter then changes nothing of it."""
    import peft

    def prepare(model: Any, **_: Any) -> Any:
        prepared.append(model)
        with torch.no_grad():
            model.model.norm.weight.mul_(2.0)
        return model

    prepared: list[Any] = []
    plain = load_base(base(), device="cpu")
    monkeypatch.setattr(loading, "_quantization", lambda *_: {})
    monkeypatch.setattr(peft, "prepare_model_for_kbit_training", prepare)
    policy = load_base(base(), device="cpu", quantize="4bit")
    assert policy.fingerprint != plain.fingerprint
    policy.model.is_quantized = True
    scores = policy.log_probs(TREES)
    assert scores != plain.log_probs(TREES)
    assert attach_adapter(policy, LORA, seed=0).log_probs(TREES) == scores
    assert prepared == [policy.model]


def test_full_training_takes_the_autocast_off_the_base(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    with trainable_copy(policy) as trained:  # as `accelerate` prepares a model for bf16
        trained.model._original_forward = trained.model.forward
        trained.model.forward = torch.autocast("cpu", torch.bfloat16)(trained.model.forward)
        trained.model._is_accelerate_prepared = True
    names = {"forward", "_original_forward", "_is_accelerate_prepared"}
    assert not names & policy.model.__dict__.keys()


def test_full_training_is_undone(base: Any) -> None:
    policy = load_base(base("gpt2"), device="cpu")
    before, scores = state(policy), policy.log_probs(TREES)
    with trainable_copy(policy) as trained:
        train_a_little(trained)
        assert abs(trained.log_probs(TREES)[0][0] - scores[0][0]) > 1e-2
    assert equal(state(policy), before)
    assert policy.log_probs(TREES) == scores
    assert not policy.model.training


def test_full_training_is_undone_when_it_fails(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    before = state(policy)
    with pytest.raises(KeyboardInterrupt), trainable_copy(policy) as trained:
        train_a_little(trained)
        raise KeyboardInterrupt
    assert equal(state(policy), before)


def test_log_probs_do_not_depend_on_how_many_tokens_go_at_a_time(base: Any) -> None:
    policy = load_base(base(), device="cpu")
    done: list[int] = []
    small = policy.log_probs(TREES, batch_tokens=1, progress=done.append)
    assert done == [1, 2]
    assert [len(each) for each in small] == [2, 1]
    for one, other in zip(small, policy.log_probs(TREES), strict=True):
        assert one == pytest.approx(other, abs=1e-4)
    assert policy.log_probs([]) == []


def test_an_adapter_begins_with_the_weights_of_another_and_can_be_trained(base: Any, tmp_path: Path) -> None:
    policy = load_base(base(), device="cpu")
    scores, plain = saved_adapter(policy, tmp_path / "adapter"), policy.log_probs(TREES)
    before = state(policy)
    random = torch.get_rng_state()
    adapted = attach_adapter(policy, LORA, seed=7, start=tmp_path / "adapter")
    assert torch.equal(torch.get_rng_state(), random)
    assert adapted.log_probs(TREES) == scores
    assert all(p.requires_grad for name, p in adapted.model.named_parameters() if "lora_" in name)
    train_a_little(adapted)
    assert adapted.log_probs(TREES) != scores
    detach_adapter(adapted)
    for other in (LoraSettings(rank=LORA.rank + 1), LoraSettings(rank=LORA.rank, targets=("q_proj",))):
        refused(
            ModelError,
            lambda other=other: attach_adapter(policy, other, seed=0, start=tmp_path / "adapter"),
            "the adapter cannot be loaded",
        )
    assert policy.log_probs(TREES) == plain and equal(state(policy), before)
    assert not hasattr(policy.model, "peft_config")
