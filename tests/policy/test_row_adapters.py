"""Several adapters in one batch: each row is computed as PEFT computes it with its own adapter alone."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer

from editloop.errors import ModelError
from editloop.policy.row_adapters import RowAdapters
from tiny import tiny_model

KINDS: dict[str, dict[str, Any]] = {
    "a": {"r": 2, "lora_alpha": 8},
    "b": {"r": 5, "lora_alpha": 3, "target_modules": ["q_proj", "down_proj"]},
    "c": {"r": 4, "use_rslora": True, "rank_pattern": {"v_proj": 1}, "alpha_pattern": {"q_proj": 32}},
}
"""Ranks, scales and modules of their own."""

IDS = torch.randint(7, 150, (5, 9), generator=torch.Generator().manual_seed(0))
ROWS = ["b", None, "a", "c", "b"]


def save(folder: Path, name: str, family: str = "llama", spread: float = 0.3, **settings: Any) -> Path:
    """An adapter with random weights."""
    modules = {"target_modules": ["c_attn", "c_fc"] if family == "gpt2" else ["q_proj", "v_proj"]}
    torch.manual_seed(len(name) + ord(name[0]))
    with warnings.catch_warnings():  # that a layer with a bias of its own cannot be merged into one without
        warnings.simplefilter("ignore")
        config = LoraConfig(task_type="CAUSAL_LM", **(modules | settings))
        model = get_peft_model(tiny_model(family), config)
    with torch.no_grad():
        for key, weight in model.named_parameters():
            if "lora_" in key:
                weight.copy_(torch.randn_like(weight) * spread)
    with warnings.catch_warnings():  # it takes the bias of an adapter for a part of a weight
        warnings.simplefilter("ignore")
        model.save_pretrained(str(folder / name))
    return folder / name


@pytest.fixture
def folders(tmp_path: Path) -> Mapping[str, Path]:
    return {name: save(tmp_path, name, **settings) for name, settings in KINDS.items()}


@torch.inference_mode()
def expected(folders: Mapping[str, Path], rows: Sequence[str | None], family: str = "llama") -> torch.Tensor:
    """The logits of each row from a base that has only the row's adapter, put on it by PEFT."""
    found = []
    for name, ids in zip(rows, IDS, strict=True):
        model = tiny_model(family)
        if name is not None:
            with warnings.catch_warnings():  # it takes the bias of an adapter for a part of a weight
                warnings.simplefilter("ignore")
                model = PeftModel.from_pretrained(model, str(folders[name])).eval()
        found.append(model(input_ids=ids[None]).logits[0])
    return torch.stack(found)


@torch.inference_mode()
def logits(adapters: RowAdapters, rows: Sequence[str | None], held: set[str | None] | None = None) -> Any:
    adapters.hold(set(rows) if held is None else held)
    return adapters.forward(rows, IDS).logits


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Up to rounding: the logits are about 1, and those of different adapters differ by more than 0.1."""
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=2e-5)


def loaded(folders: Mapping[str, Path], family: str = "llama") -> RowAdapters:
    adapters = RowAdapters(tiny_model(family))
    for name, folder in folders.items():
        adapters.load(name, folder)
    return adapters


def test_each_row_is_what_peft_computes_with_its_adapter_alone(folders: Mapping[str, Path]) -> None:
    adapters = loaded(folders)
    wanted = expected(folders, ROWS)
    close(logits(adapters, ROWS), wanted)
    close(logits(adapters, ROWS, {"a", "b", "c"}), wanted)
    # The same again after other rows, so that nothing is left of the order before.
    close(logits(adapters, ROWS[::-1]), expected(folders, ROWS[::-1]))
    close(logits(adapters, ["a"] * 5), expected(folders, ["a"] * 5))
    close(logits(adapters, [None] * 5, {"a", "c"}), expected(folders, [None] * 5))


def test_rows_in_a_wrong_order_would_be_seen(folders: Mapping[str, Path]) -> None:
    adapters = loaded(folders)
    wanted = expected(folders, ROWS)
    wrong = logits(adapters, [ROWS[1], ROWS[0], *ROWS[2:]])
    differs = (wrong - wanted).abs().amax((1, 2))
    assert (differs[:2] > 0.1).all() and (differs[2:] < 1e-4).all()


def test_linear_layers_that_are_transposed_are_as_well(tmp_path: Path) -> None:
    kinds = {"a": {"r": 2}, "b": {"r": 3, "lora_alpha": 2}}
    made = {name: save(tmp_path, name, "gpt2", fan_in_fan_out=True, **each) for name, each in kinds.items()}
    rows = ["a", "b", None, "b", "a"]
    close(logits(loaded(made, "gpt2"), rows), expected(made, rows, "gpt2"))


def test_adapters_with_a_bias_are_computed_by_peft_for_each_row(tmp_path: Path) -> None:
    made = {"a": save(tmp_path, "a", r=2), "b": save(tmp_path, "b", r=3, lora_bias=True)}
    rows = ["b", None, "a", "b", "a"]
    close(logits(loaded(made), rows), expected(made, rows))


@pytest.mark.parametrize(
    "kind",
    [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"trainable_token_indices": [5, 6]}],
    ids=lambda kind: next(iter(kind)),
)
@pytest.mark.parametrize("first", [True, False])
def test_an_adapter_that_rows_cannot_have_for_themselves_is_refused(
    tmp_path: Path, kind: dict[str, Any], first: bool
) -> None:
    made = {"a": save(tmp_path, "a", r=2), "b": save(tmp_path, "b", r=3, **kind)}
    adapters = RowAdapters(tiny_model())
    if not first:
        adapters.load("a", made["a"])
    with pytest.raises(ModelError, match="cannot share a batch with other adapters"):
        adapters.load("b", made["b"])
    if first:
        adapters.load("a", made["a"])
    rows = ["a", None, "a", "a", None]
    close(logits(adapters, rows), expected(made, rows))


def test_an_adapter_that_overflows_spoils_no_other_row(tmp_path: Path) -> None:
    made = {"a": save(tmp_path, "a", r=2), "b": save(tmp_path, "b", r=2, spread=1e20)}
    rows = ["a", "b", None, "b", "a"]
    found = logits(loaded(made), rows)
    others = [0, 2, 4]
    assert not found[[1, 3]].isfinite().all()
    close(found[others], expected(made, ["a", "a", None, "a", "a"])[others])


def test_adapters_that_are_removed_free_the_base(folders: Mapping[str, Path]) -> None:
    base = tiny_model()
    with torch.inference_mode():
        before = base(input_ids=IDS).logits
    size = sum(weight.numel() for weight in base.parameters())
    adapters = RowAdapters(base)
    for name, folder in folders.items():
        adapters.load(name, folder)
    logits(adapters, ROWS)
    adapters.remove("b")
    assert adapters.names == {"a", "c"}
    rows = ["c", None, "a", "c", "a"]
    close(logits(adapters, rows), expected(folders, rows))
    assert not any("b" in each.lora_A for each in base.modules() if isinstance(each, LoraLayer))
    adapters.remove("a")
    adapters.remove("c")
    assert not any(isinstance(each, LoraLayer) for each in base.modules())
    assert sum(weight.numel() for weight in base.parameters()) == size
    with torch.inference_mode():
        assert torch.equal(base(input_ids=IDS).logits, before)
    adapters.load("b", folders["b"])  # and it can have adapters again
    close(logits(adapters, ["b"] * 5), expected(folders, ["b"] * 5))


def test_an_adapter_that_cannot_be_loaded_changes_nothing(
    folders: Mapping[str, Path], tmp_path: Path
) -> None:
    other = save(tmp_path, "other", "gpt2", r=2, fan_in_fan_out=True)  # its modules are not there
    adapters = RowAdapters(tiny_model())
    for name in ("a", "b"):
        with pytest.raises(ModelError, match="cannot be loaded"):
            adapters.load("other", other)
        assert "other" not in adapters.names
        adapters.load(name, folders[name])
    rows = ["a", "b", None, "b", "a"]
    close(logits(adapters, rows), expected(folders, rows))
