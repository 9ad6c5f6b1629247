"""The trainer: a batch in parts takes the same steps as the batch at once, for every loss and reduction."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

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
from editloop.offline.trainer import micro_batch
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
    """Two epochs on 22 rows in batches of 8; returns the adapter and the loss of each step."""
    config = FitConfig(lora=LoraSettings(rank=2), epochs=2, batch_size=8, seed=3, **options)
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
    # 22 rows (17 pairs) hold two whole batches of 8: two epochs are 4 steps.
    assert len(whole[1]) == 4
    same(whole, parts)
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
    assert early.counts() == {"sequence": 6.0, "token": float(sum(lengths)), "pair": 4.0}
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


def test_the_steps_are_those_of_the_whole_batches(policy: Policy, tmp_path: Path) -> None:
    def steps(rows: int, **options: Any) -> tuple[int, int, int]:
        config = FitConfig(**options)
        made = training_arguments(config, CANDIDATE, tmp_path, policy, examples_of(policy, rows))
        return made.max_steps, made.per_device_train_batch_size, made.gradient_accumulation_steps

    assert steps(22, batch_size=8, epochs=3) == (6, 8, 1)
    assert steps(22, batch_size=8, epochs=1.5, micro_batch_size=2) == (3, 2, 4)
    assert steps(5, batch_size=8, epochs=1) == (1, 5, 1)  # a small log is one batch
    assert steps(1, batch_size=8, epochs=0.1) == (1, 1, 1)
