"""The run folder: complete, or as it was before, whatever fails while it is written."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from editloop.errors import ModelError, RunError
from editloop.policy import (
    ContextTree,
    LoraSettings,
    MixedPolicy,
    Policy,
    RunFolder,
    attach_adapter,
    detach_adapter,
    library_versions,
    load_base,
    load_policy,
)
from small_run import make_manifest

TREES = [ContextTree((10, 11), ((20, 21), (22,)))]


def full_disk(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = RunFolder(tmp_path / "run")
    run.write_manifest(make_manifest(identity="1"))
    for broken in ("fsync", "replace"):
        with monkeypatch.context() as patched:
            patched.setattr(os, broken, full_disk)
            with pytest.raises(RunError, match=r"run\.json: No space left on device.*--out") as caught:
                run.write_manifest(make_manifest(identity="2"))
        assert "\n" not in str(caught.value)
        assert run.manifest().identity == "1"
        assert [p.name for p in run.path.iterdir()] == ["run.json"]
    run.write_manifest(make_manifest(identity="3"))
    assert run.manifest().identity == "3"


def test_a_run_folder_is_a_path(base: Any, tmp_path: Path) -> None:
    """What `fit` returns goes wherever a path does."""
    run = RunFolder(tmp_path / "run")
    assert RunFolder(run).path == run.path == Path(run)
    assert repr(run) == f"RunFolder({str(tmp_path / 'run')!r})"
    with pytest.raises(RunError, match="not a run folder"):
        load_policy(run, "sft")
    policy = load_base(base(), device="cpu")
    recorded = {"name": policy.base, "fingerprint": policy.fingerprint}
    run.write_manifest(make_manifest(base=recorded))
    assert load_policy(run).fingerprint == load_policy(str(run.path)).fingerprint == policy.fingerprint
    assert load_policy(RunFolder(base())).fingerprint == policy.fingerprint  # a base, by its folder


def test_a_folder_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("x")
    with pytest.raises(RunError, match=r"cannot write run\.json"):
        RunFolder(tmp_path / "run").write_manifest(make_manifest())


def test_the_manifest_names_the_versions_and_holds_what_json_can_hold(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    nan, inf = float("nan"), float("inf")
    trial = {
        "validation_loss": nan,
        "steps": 2,
        "history": [{"step": 1, "loss": 1.5}, {"step": 2, "loss": inf}],
    }
    policies = {"sft": {"trials": [trial]}}
    run.write_manifest(
        make_manifest(format=1, policies=policies, read={"path": "Zoë"}, versions={"torch": "0"})
    )
    manifest = run.manifest()
    best = manifest.policies["sft"].best
    assert (manifest.format, best.validation_loss, best.steps) == (2, None, 2)
    assert best.history == [{"step": 1, "loss": 1.5}, {"step": 2, "loss": None}]
    assert manifest.versions == library_versions()
    assert manifest.versions["torch"] == torch.__version__
    assert manifest.read.path == "Zoë"
    assert "Zoë" in run.manifest_path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe{}", b'{"format": 1'])
def test_a_damaged_manifest_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(RunError, match=r"run\.json is damaged"):
        RunFolder(tmp_path).manifest()


@pytest.mark.parametrize(
    ("content", "seen"),
    [({}, None), ({"format": 3}, 3), ({"format": 0}, 0), ({"format": "2"}, "2"), ({"format": [2]}, [2])],
)
def test_a_manifest_of_another_format_is_one_line(tmp_path: Path, content: Any, seen: int | None) -> None:
    (tmp_path / "run.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"another format.*expected up to 2") as caught:
        RunFolder(tmp_path).manifest()
    assert caught.value.seen == seen


def test_a_folder_without_a_run_is_one_line(tmp_path: Path) -> None:
    assert not RunFolder(tmp_path).exists()
    with pytest.raises(RunError, match="editloop fit"):
        RunFolder(tmp_path).policy_names()
    with pytest.raises(RunError, match=r"not a run folder"):
        load_policy(tmp_path, "sft")
    with pytest.raises(ModelError, match=r"no config\.json"):
        load_policy(tmp_path)


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("I/O error: No space")]
)
def test_a_policy_that_cannot_be_written_leaves_nothing_or_the_old_one(
    tmp_path: Path, error: Exception
) -> None:
    run = RunFolder(tmp_path)

    def failing(folder: Path) -> None:
        (folder / "adapter_config.json").write_text("{}")
        raise error

    for before in ([], ["sft"]):
        with pytest.raises(RunError, match=r"cannot write sft: .*No space.*policies") as caught:
            run.save_policy("sft", failing)
        assert "\n" not in str(caught.value)
        assert [p.name for p in (tmp_path / "policies").iterdir()] == before
        run.save_policy("sft", lambda folder: (folder / "old").write_text("x") and None)
    assert [p.name for p in run.policy_path("sft").iterdir()] == ["old"]
    run.save_policy("sft", lambda folder: (folder / "new").write_text("x") and None)
    assert [p.name for p in run.policy_path("sft").iterdir()] == ["new"]
    assert run.policy_path("sft").stat().st_mode & 0o777 == 0o755  # others may read it, to serve it


@pytest.fixture
def trained(base: Any, tmp_path: Path) -> tuple[RunFolder, Policy, list[list[float]]]:
    """A run with one adapter, its base, and the adapter's log-probabilities."""
    policy = load_base(base(), device="cpu", max_length=99, end_token="<|end|>")
    adapted = attach_adapter(policy, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.01)
    scores = adapted.log_probs(TREES)
    run = RunFolder(tmp_path / "run")
    run.save_policy("sft", lambda folder: adapted.model.save_pretrained(str(folder)))
    detach_adapter(adapted)
    about = {"name": policy.base, "fingerprint": policy.fingerprint, "max_length": 99, "end_token": "<|end|>"}
    run.write_manifest(make_manifest(base=about, policies={"sft": {"trials": [{}]}}))
    return run, policy, scores


def test_a_policy_is_found_by_its_name(trained: tuple[RunFolder, Policy, list[list[float]]]) -> None:
    run, policy, scores = trained
    plain = policy.log_probs(TREES)
    assert plain != scores
    assert run.policy_names() == ["sft"]
    for name, expected in (("sft", scores), ("base", plain), ("sft", scores)):
        with run.policy(name, policy) as found:
            assert found.log_probs(TREES) == expected
        assert policy.log_probs(TREES) == plain
    loaded = load_policy(run.path, "sft", device="cpu")
    assert loaded.log_probs(TREES) == scores
    assert (loaded.encoder.max_length, loaded.encoder.end_token) == (99, "<|end|>")
    assert load_policy(policy.base, device="cpu").log_probs(TREES) == plain  # a base by its own name


def test_a_mixture_of_one_policy_is_that_policy(trained: tuple[RunFolder, Policy, list[list[float]]]) -> None:
    run, policy, scores = trained
    manifest = run.manifest()
    about = {"sft": manifest.policies["sft"], "dpo": manifest.policies["sft"]}  # dpo has no folder
    run.write_manifest(manifest.model_copy(update={"policies": about}))
    run.keep_mixture({"weights": {"sft": 1.0, "dpo": 0.0}})
    with run.policy("mixture", policy) as found:
        assert not isinstance(found, MixedPolicy)
        assert found.log_probs(TREES) == scores


def test_a_base_is_loaded_again_as_it_was(
    trained: tuple[RunFolder, Policy, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _, _ = trained
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(sys.modules["editloop.policy.loading"], "load_base", lambda _, **o: asked.append(o))
    manifest = run.manifest()
    manifest.base.quantize, manifest.base.dtype = "4bit", "bfloat16"
    run.write_manifest(manifest)
    recorded = {"max_length": 99, "end_token": "<|end|>", "quantize": "4bit", "dtype": "bfloat16"}
    run.load_base(device="auto", dtype="auto", quantize=None)  # as the command does without flags
    run.load_base(device="cpu", dtype="float32", max_length=50)
    assert asked == [recorded, recorded | {"device": "cpu", "dtype": "float32", "max_length": 50}]
    manifest.base.trust_remote_code = True
    run.write_manifest(manifest)
    with pytest.raises(RunError, match=r"code of its own.*trust_remote_code"):
        run.load_base()
    run.load_base(trust_remote_code=True)
    assert asked[2] == recorded | {"trust_remote_code": True}


def test_a_name_that_is_not_there_is_one_line(trained: tuple[RunFolder, Policy, Any]) -> None:
    run, policy, _ = trained
    with pytest.raises(RunError, match=r"'ppo' .choose one of base, sft"):
        run.load_policy("ppo", policy)
    run.policy_path("sft").rename(run.path / "elsewhere")
    with pytest.raises(RunError, match="folder is missing"):
        run.load_policy("sft", policy)


def test_an_adapter_of_another_base_is_refused(trained: tuple[RunFolder, Policy, Any], base: Any) -> None:
    run, _, _ = trained
    with pytest.raises(RunError, match="not the one that the adapters were trained on"):
        run.load_policy("sft", load_base(base(seed=1), device="cpu"))


def test_the_base_carries_no_adapter_after_an_error(trained: tuple[RunFolder, Policy, Any]) -> None:
    run, policy, _ = trained
    plain = policy.log_probs(TREES)
    with pytest.raises(KeyError), run.policy("sft", policy):
        raise KeyError
    assert policy.log_probs(TREES) == plain
    assert not hasattr(policy.model, "peft_config")
