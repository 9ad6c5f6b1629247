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
    METHODS,
    Batch,
    EditTrainer,
    FitConfig,
    Layout,
    Trial,
    make_examples,
    pack_completions,
    reference_pass,
    training_arguments,
)
from editloop.offline import arguments as arguments_module
from editloop.offline.arguments import micro_batch
from editloop.offline.examples import EDIT, Completions, Example
from editloop.offline.trainer import RowStream
from editloop.policy import (
    LoraSettings,
    Policy,
    TreeBatch,
    attach_adapter,
    batch_log_probs,
    detach_adapter,
    load_base,
)
from small_log import small_log

GIVEN: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {"beta": 0.5},
    "early": {"beta": 0.5, "dpo_weight": 2.0, "reduction": "token"},
}


def trial_of(name: str, **hyperparameters: Any) -> Trial:
    method = METHODS.get(name)
    return Trial(method, method.hyperparameters(learning_rate=1e-2, **(GIVEN[name] | hyperparameters)))


def rows_of(examples: list[Example], trial: Trial) -> list[Completions]:
    """The completions that a trial learns from."""
    return trial.method.completions([e for e in examples if trial.method.rows(e)], trial.hyperparameters)


def packed(policy: Policy, examples: list[Example], trial: Trial) -> tuple[TreeBatch, Layout]:
    return pack_completions(policy, rows_of(examples, trial), from_fork=trial.method.within_context)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def examples_of(policy: Policy, rows: int = 22) -> list[Example]:
    return reference_pass(policy, make_examples(small_log(rows), policy.encoder).examples)[0]


Trained = tuple[dict[str, torch.Tensor], list[float]]


def train(policy: Policy, trial: Trial, folder: Path, **options: Any) -> Trained:
    """Two epochs of 22 rows in batches of 8; returns the adapter and the loss of each step."""
    config = FitConfig(lora=LoraSettings(rank=2), epochs=2, batch_size=8, seed=3, patience=9, **options)
    rows = rows_of(examples_of(policy), trial)
    adapted = attach_adapter(policy, config.lora, seed=3)
    trainer = EditTrainer(
        policy=adapted,
        trial=trial,
        config=config,
        arguments=training_arguments(
            config, folder, policy, [each.tree for each in rows], learning_rate=1e-2
        ),
        train=rows,
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
    policy: Policy, tmp_path: Path, method: str, reduction: str
) -> None:
    trial = trial_of(method, **({} if method == "dpo" else {"reduction": reduction}))
    whole = train(policy, trial, tmp_path / "whole", micro_batch_size=8)
    parts = train(policy, trial, tmp_path / "parts", micro_batch_size=2)
    odd = train(policy, trial, tmp_path / "odd", micro_batch_size=3)
    # Two epochs of 22 rows (17 pairs) are five batches of 8 and a half (four and a quarter).
    assert len(whole[1]) == (5 if method == "dpo" else 6)
    same(whole, parts)
    same(whole, odd)
    assert max(float(w.abs().max()) for k, w in whole[0].items() if "lora_B" in k) > 1e-3


def test_the_order_of_the_rows_is_the_seeds(policy: Policy, tmp_path: Path) -> None:
    first, again = (train(policy, trial_of("sft"), tmp_path / name) for name in "ab")
    assert first[1] == again[1]
    assert all(torch.equal(first[0][name], again[0][name]) for name in first[0])


def test_the_loss_of_a_step_is_the_losses_of_its_rows_by_hand(policy: Policy) -> None:
    examples = examples_of(policy, 6)
    pairs = [e for e in examples if e.is_pair]
    with torch.no_grad():
        log_probs = {e.id: policy.log_probs([e.tree])[0] for e in examples}
    tokens = sum(len(e.tree.continuations[0]) for e in examples)
    sft = -sum(log_probs[e.id][0] for e in examples) / tokens
    references = [e.completions.reference or () for e in pairs]
    margins = [
        (log_probs[e.id][0] - log_probs[e.id][1]) - (reference[0] - reference[1] - 0.7)
        for e, reference in zip(pairs, references, strict=True)
    ]
    dpo = -torch.nn.functional.logsigmoid(0.5 * torch.tensor(margins)).mean()

    def moved(example: Example) -> Example:
        reference = example.completions.reference or ()
        shifted = example.completions.with_reference((reference[0] - 0.7, *reference[1:]))
        return replace(example, completions=shifted) if example.is_pair else example

    def loss(name: str) -> float:
        trial = trial_of(name)
        trees, layout = packed(policy, [moved(e) for e in examples], trial)
        with torch.no_grad():
            batch = Batch(layout, batch_log_probs(policy.model, trees), trial.method.totals(layout))
            return float(trial.method.loss(batch, trial.hyperparameters))

    assert loss("sft") == pytest.approx(sft, rel=1e-5)
    assert loss("dpo") == pytest.approx(float(dpo), abs=1e-5)
    assert loss("early") == pytest.approx(sft + 2.0 * float(dpo), rel=1e-5)
    assert float(dpo) != pytest.approx(0.6931, abs=1e-2)


def test_a_batch_holds_what_its_method_needs(policy: Policy) -> None:
    examples = examples_of(policy, 6)  # rows 0 and 5 were accepted
    trees, sft = packed(policy, examples, trial_of("sft"))
    assert (len(sft), len(sft.pairs[0]), len(trees.lengths)) == (6, 0, 6)
    early = packed(policy, examples, trial_of("early"))[1]
    chosen, rejected = early.pairs
    assert early.context[chosen].tolist() == early.context[rejected].tolist() == [1, 2, 3, 4]
    assert early.of(EDIT).tolist() == [0, 1, 3, 5, 7, 9]
    assert (chosen.tolist(), rejected.tolist()) == ([1, 3, 5, 7], [2, 4, 6, 8])
    lengths = [len(e.tree.continuations[0]) for e in examples]
    totals = {"contexts": 6.0, "edit_tokens": float(sum(lengths)), "pairs": 4.0, "choices": 4.0}
    assert METHODS.get("early").totals(early) == totals
    trees, dpo = packed(policy, [examples[0], examples[1]], trial_of("dpo"))  # the first is no pair
    # "hi! see ..." and "see ..." part at once, so nothing is left out.
    assert trees.lengths.tolist() == [len(c) for c in examples[1].tree.continuations]
    assert tuple(dpo.known("reference").tolist()) == examples[1].completions.reference
    assert dpo.known("cost").isnan().all()


def test_a_forward_holds_what_memory_can_bear_and_divides_the_batch(policy: Policy) -> None:
    examples = examples_of(policy, 6)
    trees = [e.tree for e in examples]
    tokens = sum(len(tree.layout) for tree in trees) / 6
    assert micro_batch(12, trees, 8192) == 12
    assert micro_batch(12, trees, int(5 * tokens)) == 4  # five bearable, four divide twelve
    assert micro_batch(7, trees, int(5 * tokens)) == 1
    assert micro_batch(12, trees, 1) == 1
    assert [micro_batch(12, trees, 8192, most=most) for most in (1, 5, 12, 99)] == [1, 4, 12, 12]


def stream(length: int, seed: int | None) -> list[int]:
    """The rows of a stream of five, from left to right."""
    made = RowStream(range(5), length, seed)
    assert len(made) == length
    return [made[i] for i in range(length)]


def test_every_row_is_seen_once_in_an_epoch_wherever_the_steps_end() -> None:
    order = stream(12, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert len(set(order[10:])) == 2
    assert order[:5] != order[5:10]
    assert stream(8, seed=3) == order[:8]
    assert stream(12, seed=4) != order
    assert stream(12, seed=None) == [*range(5), *range(5), 0, 1]


@pytest.mark.parametrize("step", [1, 4, 7, 11])
def test_a_stream_that_is_continued_goes_on_as_the_whole_one(step: int) -> None:
    """The row at a place follows from the place alone, whatever was read before and in whatever order."""
    whole = stream(40, seed=3)
    continued = RowStream(range(5), 40, 3)
    assert [continued[i] for i in range(step, 40)] == whole[step:]
    assert [continued[i] for i in reversed(range(40))] == whole[::-1]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The arguments that would be made in one of several processes, on any device."""

    def arguments(world: int, policy: Any, examples: list[Example], **options: Any) -> Any:
        monkeypatch.setattr(arguments_module, "processes", lambda _: SimpleNamespace(num_processes=world))
        monkeypatch.setattr(arguments_module, "OneDeviceArguments", lambda **given: SimpleNamespace(**given))
        trees = [e.tree for e in examples]
        return training_arguments(FitConfig(**options), Path(), policy, trees, learning_rate=1e-2)

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
        there = SimpleNamespace(device=torch.device(device), model=model, linear_head=True)
        assert made(1, there, examples_of(policy, 4)).bf16 is expected


def test_a_device_without_float64_is_given_none(policy: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    """The device `meta` stands for Apple's GPUs."""
    there, trial = torch.device("meta"), trial_of("dpo")
    layout = packed(policy, examples_of(policy, 6), trial)[1]
    totals = trial.method.totals(layout)
    alone = object.__new__(EditTrainer)
    alone.trial, alone.args = trial, SimpleNamespace(world_size=1, average_tokens_across_devices=False)
    parts = [{"layout": layout}] * 2
    samples, summed = alone.get_batch_samples(iter(parts), 2, there)
    assert samples == parts
    assert summed == {key: 2 * count for key, count in totals.items()}
    seen: list[torch.dtype] = []

    def watched(*tensors: torch.Tensor) -> torch.Tensor:
        seen.extend(tensor.dtype for tensor in tensors)
        return tensors[0]

    monkeypatch.setattr("editloop.offline.losses.preference_margin", watched)
    for device, expected in ((there, torch.float32), (torch.device("cpu"), torch.float64)):
        seen.clear()
        batch = Batch(layout, torch.zeros(len(layout.lengths), device=device), totals)
        loss = trial.method.loss(batch, trial.hyperparameters)
        assert (loss.device, loss.dtype) == (device, torch.float32)
        assert seen[2:] == [expected, expected]


def test_the_steps_are_those_of_the_epochs(policy: Policy, tmp_path: Path) -> None:
    def steps(rows: int, own: float | None = None, **options: Any) -> tuple[int, int, int]:
        trees = [e.tree for e in examples_of(policy, rows)]
        config = FitConfig(**options)
        made = training_arguments(config, tmp_path, policy, trees, learning_rate=1e-2, epochs=own)
        assert made.learning_rate == 1e-2
        return made.max_steps, made.per_device_train_batch_size, made.gradient_accumulation_steps

    assert steps(22, batch_size=8, epochs=3) == (9, 8, 1)  # 66 rows
    assert steps(22, batch_size=8, epochs=1.5, micro_batch_size=2) == (5, 2, 4)  # 33 rows
    assert steps(22, batch_size=8, epochs=1, micro_batch_size=3) == (3, 2, 4)  # two divide eight
    assert steps(10, batch_size=1, epochs=1.1) == (11, 1, 1)  # 11 rows, not 11.000000000000002
    assert steps(5, batch_size=8, epochs=1) == (1, 5, 1)  # a small log is one batch
    assert steps(1, batch_size=8, epochs=0.1) == (1, 1, 1)
    assert steps(22, batch_size=8, epochs=3, own=1.5) == (5, 8, 1)  # a trial's own epochs come first
