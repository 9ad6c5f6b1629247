"""TRL as an oracle: on the same batches our losses, gradients and trajectories are its own, in fp32."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from editloop.edits import Record
from editloop.offline import (
    METHODS,
    Completions,
    EditTrainer,
    FitConfig,
    Trial,
    make_examples,
    reference_pass,
)
from editloop.offline.arguments import training_arguments
from editloop.policy import Encoder, LoraSettings, Policy, attach_adapter
from tiny import VOCABULARY, tiny_tokenizer

trl = pytest.importorskip("trl", reason="TRL is the oracle here, and it is not installed")
datasets = pytest.importorskip("datasets")

STEPS, BATCH = 4, 4
RATE, BETA = 1e-3, 0.3
TOLERANCE = 1e-5


@dataclass
class Way(TrainerCallback):  # type: ignore[misc]
    """A training's way: the loss and the gradients of each step, and where it ended."""

    losses: list[float] = field(default_factory=list)
    gradients: list[dict[str, torch.Tensor]] = field(default_factory=list)
    weights: dict[str, torch.Tensor] = field(default_factory=dict)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.gradients.append({name: weight.grad.clone() for name, weight in adapter(model).items()})

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
        self.weights = {name: weight.detach().clone() for name, weight in adapter(model).items()}


def adapter(model: Any) -> dict[str, Any]:
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


@pytest.fixture(scope="module")
def rows() -> list[Record]:
    """Rows whose response and edit share a beginning, and end in different words and lengths."""
    draw = random.Random(0)

    def text(words: int) -> str:
        return " ".join("".join(draw.choices("abcdefgh", k=draw.randint(1, 3))) for _ in range(words))

    made = []
    for _ in range(STEPS * BATCH):
        begin = text(draw.randint(1, 4))
        response, edit = (f"{begin} {text(draw.randint(1, 4))}" for _ in range(2))
        made.append(Record(context=text(draw.randint(1, 6)), response=response, edit=edit))
    return made


@pytest.fixture(scope="module")
def base() -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.2,  # so that tokens are far from equally likely
        pad_token_id=1,
        eos_token_id=2,
        bos_token_id=None,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return LlamaForCausalLM(config).eval()


@pytest.fixture
def policy(base: LlamaForCausalLM) -> Policy:
    """A policy with an adapter that changes it from the start."""
    plain = Policy(copy.deepcopy(base), Encoder(tiny_tokenizer(), 256), "tiny", "tiny", shares=True)
    policy = attach_adapter(plain, LoraSettings(rank=4), seed=0)
    draw = torch.Generator().manual_seed(1)
    for name, weight in adapter(policy.model).items():
        if "lora_B" in name:
            weight.data.normal_(0, 0.05, generator=draw)
    return policy


def trial_of(name: str) -> Trial:
    """A trial of a method; that of EarlyEnsemble adds DPO to a mean over tokens, as TRL does."""
    joint = {"beta": BETA, "dpo_weight": 1.0, "reduction": "token"}
    method, more = METHODS.get(name), {"dpo": {"beta": BETA}, "wpo": {"beta": BETA}, "early": joint}
    return Trial(method, method.hyperparameters(learning_rate=RATE, **more.get(name, {})))


def train_ours(policy: Policy, rows: list[Completions], trial: Trial, folder: Path) -> Way:
    config, way = FitConfig(batch_size=BATCH, epochs=1, evaluations=1), Way()
    trees = [each.tree for each in rows]
    arguments = training_arguments(config, folder, policy, trees, learning_rate=RATE)
    arguments.max_grad_norm = 0.0
    trainer = EditTrainer(
        policy=policy,
        trial=trial,
        config=config,
        arguments=arguments,
        train=rows,
        validate=lambda: {"loss": 0.0},
        callbacks=[way],
        shuffle=False,
    )
    trainer.train()
    return way


def trl_trainer(base: LlamaForCausalLM, rows: list[Record], method: str, folder: Path, way: Way) -> Any:
    """TRL's trainer for a method, set to do what ours does by itself."""
    common: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": BATCH,
        "max_steps": STEPS,
        "learning_rate": RATE,
        "warmup_steps": round(STEPS * FitConfig().warmup),
        "logging_steps": 1,
        "max_grad_norm": 0.0,
        "train_sampling_strategy": "sequential",
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    shared: dict[str, Any] = {
        "model": copy.deepcopy(base),
        "processing_class": tiny_tokenizer(),
        "peft_config": LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        "callbacks": [way],
    }
    if method == "sft":
        texts = [{"prompt": f"{row.context}\n", "completion": row.edit} for row in rows]
        return trl.SFTTrainer(
            args=trl.SFTConfig(**common), train_dataset=datasets.Dataset.from_list(texts), **shared
        )
    texts = [{"prompt": f"{row.context}\n", "chosen": row.edit, "rejected": row.response} for row in rows]
    arguments = trl.DPOConfig(
        **common,
        beta=BETA,
        loss_type=["sigmoid", "sft"] if method == "early" else ["sigmoid"],
        precompute_ref_log_probs=True,
        use_weighting=method == "wpo",
    )
    return trl.DPOTrainer(args=arguments, train_dataset=datasets.Dataset.from_list(texts), **shared)


@pytest.mark.parametrize("method", ["sft", "dpo", "early", "wpo"])
def test_every_step_is_trls(
    method: str,
    base: LlamaForCausalLM,
    policy: Policy,
    rows: list[Record],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TQDM_DISABLE", "1")
    examples, _ = reference_pass(policy, make_examples(rows, policy.encoder).examples, cache=tmp_path)
    theirs = Way()
    trainer = trl_trainer(base, rows, method, tmp_path / "trl", theirs)
    for example, row in zip(examples, trainer.train_dataset, strict=True):
        edit, response = example.tree.continuations
        if method == "sft":
            assert row["input_ids"] == [*example.tree.context, *edit]
            assert row["labels"] == [-100] * len(example.tree.context) + list(edit)
        else:
            assert (row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) == (
                list(example.tree.context),
                list(edit),
                list(response),
            )
            assert example.completions.reference == pytest.approx(
                (row["ref_chosen_logps"], row["ref_rejected_logps"])
            )
    start = {name: weight.detach().clone() for name, weight in adapter(policy.model).items()}
    trainer.model.load_state_dict(start, strict=False)
    assert adapter(trainer.model).keys() == start.keys()
    trainer.train()
    trial = trial_of(method)
    completions = trial.method.completions(examples, trial.hyperparameters)
    ours = train_ours(policy, completions, trial, tmp_path / "ours")

    assert len(ours.losses) == STEPS and ours.losses[0] != pytest.approx(ours.losses[-1], abs=1e-3)
    assert ours.losses == pytest.approx(theirs.losses, abs=TOLERANCE)
    for mine, their in zip(ours.gradients, theirs.gradients, strict=True):
        largest = [float(gradient.abs().max()) for gradient in their.values()]
        assert min(largest) > 100 * TOLERANCE * max(largest)
        torch.testing.assert_close(mine, their, rtol=TOLERANCE, atol=TOLERANCE * max(largest))
    moved = max(float((ours.weights[name] - start[name]).abs().max()) for name in start)
    assert moved > RATE
    torch.testing.assert_close(ours.weights, theirs.weights, rtol=0, atol=0.01 * moved)
