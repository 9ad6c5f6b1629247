"""The reference pass: cached by content, and a cache that fails costs time only."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from editloop.edits.record import Record
from editloop.offline import Example, cache_folder, feature_pass, make_examples, reference_pass
from editloop.policy import LoraSettings, Policy, attach_adapter, detach_adapter, load_base


@pytest.fixture
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def examples(policy: Policy, word: str = "hello") -> tuple[Example, ...]:
    rows = [
        Record(id="a", context="say a", response=f"{word} there", edit=word),
        Record(id="b", context="say b", response="bye", edit="bye"),
    ]
    return make_examples(rows, policy.encoder).examples


def cached(folder: Path) -> list[Path]:
    return sorted((folder / "reference").glob("*"))


def test_a_hit_equals_a_fresh_pass(policy: Policy, tmp_path: Path) -> None:
    fresh, known = reference_pass(policy, examples(policy), cache=tmp_path)
    assert not known
    assert len(cached(tmp_path)) == 1
    again, known = reference_pass(policy, examples(policy), cache=tmp_path)
    assert known
    assert again == fresh
    pair, single = fresh
    direct = policy.log_probs([e.tree for e in examples(policy)])
    assert pair.completions.reference == pytest.approx(tuple(direct[0]), abs=1e-5)
    assert single.completions.reference == (pytest.approx(direct[1][0], abs=1e-5),)
    assert reference_pass(policy, [], cache=tmp_path / "none") == ([], True)
    assert not (tmp_path / "none").exists()


def test_a_hit_runs_no_forward(policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fresh, _ = reference_pass(policy, examples(policy), cache=tmp_path)
    monkeypatch.setattr(policy.model, "forward", None)
    assert reference_pass(policy, examples(policy), cache=tmp_path) == (fresh, True)
    with pytest.raises(TypeError):
        reference_pass(policy, examples(policy, "other"), cache=tmp_path)


def test_the_default_cache_is_where_the_environment_says(
    policy: Policy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path / "here"))
    reference_pass(policy, examples(policy))
    assert len(cached(tmp_path / "here")) == 1
    monkeypatch.delenv("EDITLOOP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "editloop"


def test_the_reference_is_the_base_whatever_adapter_is_on(policy: Policy, tmp_path: Path) -> None:
    plain, _ = reference_pass(policy, examples(policy), cache=tmp_path / "a")
    adapted = attach_adapter(policy, LoraSettings(rank=2), seed=0)
    with torch.no_grad():
        for name, weight in adapted.model.named_parameters():
            if "lora_B" in name:
                weight.fill_(0.1)
    found, known = reference_pass(adapted, examples(policy), cache=tmp_path / "b")
    assert not known
    assert found == plain
    assert adapted.log_probs([plain[0].tree])[0] != pytest.approx(plain[0].completions.reference, abs=1e-2)
    detach_adapter(adapted)


@pytest.mark.parametrize("how", ["cut", "empty", "other rows", "other name", "not numbers", "a folder"])
def test_a_damaged_cache_file_is_computed_again_and_replaced(
    policy: Policy, tmp_path: Path, how: str
) -> None:
    fresh, _ = reference_pass(policy, examples(policy), cache=tmp_path)
    (file,) = cached(tmp_path)
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-3])
    elif how == "empty":
        file.write_bytes(b"")
    elif how == "other rows":
        save_file({"log_probs": np.zeros(4), "features": np.zeros((4, 0))}, file)
    elif how == "other name":
        save_file({"rewards": np.zeros(3), "features": np.zeros((3, 0))}, file)
    elif how == "not numbers":
        save_file({"log_probs": np.full(3, math.nan), "features": np.zeros((3, 0))}, file)
    else:
        file.unlink()
        file.mkdir()
    found, known = reference_pass(policy, examples(policy), cache=tmp_path)
    assert not known
    assert found == fresh
    if how != "a folder":
        assert load_file(file)["log_probs"][:2].tolist() == list(fresh[0].completions.reference or ())
        assert reference_pass(policy, examples(policy), cache=tmp_path) == (fresh, True)


def test_a_cache_that_cannot_be_written_costs_time_only(policy: Policy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for _ in range(2):
        found, known = reference_pass(policy, examples(policy), cache=tmp_path / "file")
        assert not known
        assert found[0].completions.reference is not None
    assert (tmp_path / "file").read_text() == "x"


def test_another_base_dtype_or_log_has_another_key(policy: Policy, base: Any, tmp_path: Path) -> None:
    reference_pass(policy, examples(policy), cache=tmp_path)
    others = [
        (load_base(base(seed=1), device="cpu"), "hello"),
        (load_base(base(), device="cpu", dtype="bfloat16"), "hello"),
        (policy, "hullo"),
    ]
    for n, (other, word) in enumerate(others, start=2):
        _, known = reference_pass(other, examples(other, word), cache=tmp_path)
        assert not known
        assert len(cached(tmp_path)) == n
    # Where the boundary between context and continuation lies matters too.
    moved = [Record(context="say ", response="ahello there", edit="ahello")]
    _, known = reference_pass(policy, make_examples(moved, policy.encoder).examples, cache=tmp_path)
    assert not known


def test_features_are_cached_with_the_log_probs_and_apart_from_a_pass_without(
    policy: Policy, tmp_path: Path
) -> None:
    plain, _ = reference_pass(policy, examples(policy), cache=tmp_path)
    trees = [each.tree for each in plain]
    fresh, known = feature_pass(policy, trees, cache=tmp_path)
    assert not known
    assert [each.log_probs for each in fresh] == [
        pytest.approx(each.completions.reference, abs=1e-5) for each in plain
    ]
    assert [each.features.shape for each in fresh] == [(2, 4 * 32 + 2), (1, 4 * 32 + 2)]
    again, known = feature_pass(policy, trees, cache=tmp_path)
    assert known
    for a, b in zip(again, fresh, strict=True):
        assert a.log_probs == b.log_probs
        np.testing.assert_array_equal(a.features, b.features)
    assert reference_pass(policy, examples(policy), cache=tmp_path) == (plain, True)
