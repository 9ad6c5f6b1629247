"""The trainer: a batch in parts takes the same steps as the batch at once, for every loss and reduction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from editloop.errors import ConfigError
from editloop.offline import (
    Candidate,
    EditTrainer,
    FitConfig,
    Method,
    make_batch,
    make_examples,
    method_loss,
    reference_pass,
    training_arguments,
)
from editloop.offline import trainer as trainer_module
from editloop.offline.trainer import _Stream, micro_batch
from editloop.policy import LoraSettings, Policy, attach_adapter, batch_log_probs, detach_adapter, load_base
from small_log import small_log

CANDIDATE = Candidate(learning_rate=1e-2, beta=0.5, dpo_weight=2.0)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def examples_of(policy: Policy, rows: int = 22) -> list[Any]:
    return reference_pass(policy, make_examples(small_log(rows), policy.encoder).examples)[0]


Trained = tuple[dict[str, torch.Tensor], list[float]]


def train(policy: Policy, method: Method, folder: Path, **options: Any) -> Trained:
    """Two epochs of 22 rows in batches of 8; returns the adapter and the loss of each step."""
    config = FitConfig(lora=LoraSettings(rank=2), epochs=2, batch_size=8, seed=3, patience=9, **options)
    examples = [e for e in examples_of(policy) if method != "dpo" or e.is_pair]
    adapted = attach_adapter(policy, config.lora, seed=3)
    trainer = EditTrainer(
        policy=adapted,
        method=method,
        candidate=CANDIDATE,
        config=config,
        arguments=training_arguments(config, CANDIDATE, folder, policy, examples),
        train=examples,
        validate=lambda: {"loss": 1.0},
    )
    trainer.args.load_best_model_at_end = False
    trainer.train()
    weights = {k: w.clone() for k, w in adapted.model.state_dict().items() if "lora_" in k}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    detach_adapter(adapted)
    return weights, losses


def same(a: Trained, b: Trained) -> None:
    assert a[1] == pytest.approx(b[1], rel=1e-4)
    assert a[0].keys() == b[0].keys()
    for name in a[0]:
        torch.testing.assert_close(a[0][name], b[0][name], atol=1e-5, rtol=1e-3, msg=name)


@pytest.mark.parametrize(
    ("method", "reduction"),
    [("sft", "token"), ("sft", "sequence"), ("dpo", "token"), ("early", "token"), ("early", "sequence")],
)
def test_accumulated_micro_batches_take_the_steps_of_the_whole_batch(
    policy: Policy, tmp_path: Path, method: Method, reduction: str
) -> None:
    whole = train(policy, method, tmp_path / "whole", sft_reduction=reduction, micro_batch_size=8)
    parts = train(policy, method, tmp_path / "parts", sft_reduction=reduction, micro_batch_size=2)
    odd = train(policy, method, tmp_path / "odd", sft_reduction=reduction, micro_batch_size=3)
    # Two epochs of 22 rows (17 pairs) are five batches of 8 and a half (four and a quarter).
    assert len(whole[1]) == (5 if method == "dpo" else 6)
    same(whole, parts)
    same(whole, odd)
    assert max(float(w.abs().max()) for k, w in whole[0].items() if "lora_B" in k) > 1e-3


def test_the_order_of_the_rows_is_the_seeds(policy: Policy, tmp_path: Path) -> None:
    first, again = (train(policy, "sft", tmp_path / name) for name in "ab")
    assert first[1] == again[1]
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])


def test_the_loss_of_a_step_is_the_losses_of_its_rows_by_hand(policy: Policy) -> None:
    examples = examples_of(policy, 6)
    config = FitConfig(sft_reduction="token")
    pairs = [e for e in examples if e.is_pair]
    with torch.no_grad():
        log_probs = {e.id: policy.log_probs([e.tree])[0] for e in examples}
    tokens = sum(len(e.tree.continuations[0]) for e in examples)
    sft = -sum(log_probs[e.id][0] for e in examples) / tokens
    margins = [
        (log_probs[e.id][0] - log_probs[e.id][1]) - (e.reference[0] - e.reference[1] - 0.7) for e in pairs
    ]
    dpo = -torch.nn.functional.logsigmoid(0.5 * torch.tensor(margins)).mean()

    def loss(method: Method) -> float:
        moved = [
            replace(e, reference=(e.reference[0] - 0.7, e.reference[1])) if e.is_pair else e for e in examples
        ]
        batch = make_batch(policy, [e for e in moved if method != "dpo" or e.is_pair], method)
        with torch.no_grad():
            return float(
                method_loss(method, CANDIDATE, batch, batch_log_probs(policy.model, batch.trees), config)
            )

    assert loss("sft") == pytest.approx(sft, rel=1e-5)
    assert loss("dpo") == pytest.approx(float(dpo), abs=1e-5)
    assert loss("early") == pytest.approx(sft + 2.0 * float(dpo), rel=1e-5)
    assert float(dpo) != pytest.approx(0.6931, abs=1e-2)


def test_a_batch_holds_what_its_method_needs(policy: Policy) -> None:
    examples = examples_of(policy, 6)  # rows 0 and 5 were accepted
    sft = make_batch(policy, examples, "sft")
    assert (len(sft), len(sft.pair), len(sft.trees.lengths)) == (6, 0, 6)
    early = make_batch(policy, examples, "early")
    assert early.pair.tolist() == [1, 2, 3, 4]
    assert early.chosen.tolist() == [0, 1, 3, 5, 7, 9]
    assert early.rejected.tolist() == [2, 4, 6, 8]
    lengths = [len(e.tree.continuations[0]) for e in examples]
    assert early.counts() == {"sequence": 6.0, "token": float(sum(lengths)), "pair": 4.0, "choice": 0.0}
    dpo = make_batch(policy, [examples[1]], "dpo")
    # "hi! see ..." and "see ..." part at once, so nothing is left out.
    assert dpo.trees.lengths.tolist() == [len(c) for c in examples[1].tree.continuations]
    assert (float(dpo.ref_chosen), float(dpo.ref_rejected)) == examples[1].reference


def test_a_forward_holds_what_memory_can_bear_and_divides_the_batch(policy: Policy) -> None:
    examples = examples_of(policy, 6)
    tokens = sum(len(e.tree.layout) for e in examples) / 6
    assert micro_batch(12, examples, 160) == 12
    assert micro_batch(12, examples, int(2**29 / (5 * tokens))) == 4  # five bearable, four divide twelve
    assert micro_batch(7, examples, int(2**29 / (5 * tokens))) == 1
    assert micro_batch(12, examples, 2**40) == 1


def test_every_row_is_seen_once_in_an_epoch_wherever_the_steps_end() -> None:
    order = list(_Stream(5, 12, seed=3))
    assert len(order) == len(_Stream(5, 12, seed=3)) == 12
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(set(order[10:])) == 2
    assert order[:5] != order[5:10]
    assert list(_Stream(5, 8, seed=3)) == order[:8]
    assert list(_Stream(5, 12, seed=4)) != order


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments that would be made in one of several processes, on any device."""

    def arguments(world: int, policy: Any, examples: list[Any], **options: Any) -> Any:
        monkeypatch.setattr(trainer_module, "processes", lambda _: SimpleNamespace(num_processes=world))
        monkeypatch.setattr(trainer_module, "TrainingArguments", lambda **given: SimpleNamespace(**given))
        return training_arguments(FitConfig(**options), CANDIDATE, Path(), policy, examples)

    return arguments


def test_a_batch_is_divided_among_processes_or_refused(policy: Policy, made: Any) -> None:
    examples = examples_of(policy, 22)
    two = made(2, policy, examples, batch_size=8, epochs=3, micro_batch_size=3)
    assert (two.max_steps, two.per_device_train_batch_size, two.gradient_accumulation_steps) == (9, 2, 2)
    with pytest.raises(ConfigError, match=r"divided among 3 processes: 8 .*--batch-size"):
        made(3, policy, examples, batch_size=8)
    with pytest.raises(ConfigError, match="fewer rows than the 4 processes: 3"):
        made(4, policy, examples[:3], batch_size=8)


@pytest.mark.parametrize(("dtype", "bf16"), [("float32", False), ("bfloat16", True)])
def test_a_gpu_trains_in_the_precision_that_was_asked_for(
    policy: Policy, base: Any, made: Any, dtype: str, bf16: bool
) -> None:
    model = load_base(base(), device="cpu", dtype=dtype).model
    for device, expected in (("cuda", bf16), ("cpu", False)):
        there = SimpleNamespace(device=torch.device(device), model=model)
        assert made(1, there, examples_of(policy, 4)).bf16 is expected


def test_a_device_without_float64_is_given_none(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device `meta` stands for Apple's GPUs."""
    there = torch.device("meta")
    batch = make_batch(policy, examples_of(policy, 6), "dpo")
    alone = SimpleNamespace(args=SimpleNamespace(world_size=1))
    counts = EditTrainer._get_num_items_in_batch(alone, [{"batch": batch}] * 2, there)  # type: ignore[arg-type]
    assert counts == {key: 2 * count for key, count in batch.counts().items()}
    seen: list[torch.dtype] = []

    def watched(*tensors: torch.Tensor) -> torch.Tensor:
        seen.extend(tensor.dtype for tensor in tensors)
        return tensors[0]

    monkeypatch.setattr(trainer_module, "preference_margin", watched)
    for device, expected in ((there, torch.float32), (torch.device("cpu"), torch.float64)):
        seen.clear()
        method_loss(
            "dpo", CANDIDATE, batch, torch.zeros(len(batch.trees.lengths), device=device), FitConfig()
        )
        assert seen[2:] == [expected, expected]


def test_the_steps_are_those_of_the_epochs(policy: Policy, tmp_path: Path) -> None:
    def steps(rows: int, **options: Any) -> tuple[int, int, int]:
        config = FitConfig(**options)
        made = training_arguments(config, CANDIDATE, tmp_path, policy, examples_of(policy, rows))
        return made.max_steps, made.per_device_train_batch_size, made.gradient_accumulation_steps

    assert steps(22, batch_size=8, epochs=3) == (9, 8, 1)  # 66 rows
    assert steps(22, batch_size=8, epochs=1.5, micro_batch_size=2) == (5, 2, 4)  # 33 rows
    assert steps(22, batch_size=8, epochs=1, micro_batch_size=3) == (3, 2, 4)  # two divide eight
    assert steps(10, batch_size=1, epochs=1.1) == (11, 1, 1)  # 11 rows, not 11.000000000000002
    assert steps(5, batch_size=8, epochs=1) == (1, 5, 1)  # a small log is one batch
    assert steps(1, batch_size=8, epochs=0.1) == (1, 1, 1)
