"""TRL's two arms: its trainers as they come, and tuned by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.train_spec import ALPHA, BETA, LEARNING_RATE, RANK, Spec, device, make_rows


def train_steps(spec: Spec, clock: Any) -> dict[str, Any]:
    """Run TRL's trainer for a few steps; there are no figures but the clock's."""
    from benchmarks.train_workload import build_base, build_tokenizer

    rows, batch = make_rows(spec)
    if spec.log is None:
        base, tokenizer = build_base(spec.size, device()), build_tokenizer()
    else:
        base, tokenizer = spec.size, _tokenizer(spec.size)
    trainer = make_trainer(spec, rows, batch, base, tokenizer)
    trainer.add_callback(clock)
    trainer.train()
    return {}


def train_whole(spec: Spec) -> None:
    """Train one method with TRL, from a log and a base's folder to an adapter's folder."""
    from benchmarks.train_workload import workload

    assert spec.log is not None and spec.base is not None
    rows, tokenizer = read_rows(spec.log), _tokenizer(spec.base)
    trainer = make_trainer(spec, rows, workload(spec.size)[1], spec.base, tokenizer)
    trainer.train()
    trainer.save_model(str(Path(spec.folder) / "policy"))


@dataclass(frozen=True)
class Row:
    """A row of a log, read without our library."""

    id: str
    context: str
    response: str
    edit: str


def read_rows(log: str) -> list[Row]:
    """Return the rows of a log in JSON lines."""
    lines = Path(log).read_text(encoding="utf-8").splitlines()
    return [Row(**json.loads(line)) for line in lines]


def _tokenizer(folder: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def make_trainer(spec: Spec, rows: list[Any], batch: int, model: Any, tokenizer: Any) -> Any:
    """Return TRL's trainer for a method, with the settings that all arms share.

    The tuned arm also gets what makes TRL faster on this workload: no gradient checkpointing, no bf16 on a
    CPU, and the reference precomputed.
    """
    from peft import LoraConfig

    (method,) = spec.methods
    arguments: dict[str, Any] = {
        **plain_arguments(spec.folder),
        "per_device_train_batch_size": batch,
        "max_steps": len(rows) // batch,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": round(len(rows) // batch * 0.1),
        "max_length": 4096,
        "train_sampling_strategy": "sequential",
    }
    if spec.arm == "trl tuned":
        arguments |= tuned_arguments(method)
    lora = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")
    return trainer_of(method, rows, arguments, model, tokenizer, lora)


def plain_arguments(folder: str) -> dict[str, Any]:
    """Return the arguments that change nothing of what is learned: where it runs, and what it writes."""
    return {
        "output_dir": folder,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "dataloader_pin_memory": device() != "cpu",
    }


def tuned_arguments(method: str) -> dict[str, Any]:
    """Return the arguments by which TRL is faster, and learns the same."""
    faster = {"gradient_checkpointing": False, "bf16": device() != "cpu"}
    return faster if method == "sft" else faster | {"precompute_ref_log_probs": True}


def trainer_of(
    method: str, rows: Sequence[Any], arguments: dict[str, Any], model: Any, tokenizer: Any, lora: Any
) -> Any:
    """Return TRL's trainer of a method, `early` being DPO with both losses.

    Args:
        method: `sft`, `dpo` or `early`.
        rows: The rows, with `context`, `response` and `edit`.
        arguments: Arguments of `SFTConfig` or `DPOConfig`.
        model: The base or its folder.
        tokenizer: The base's tokenizer; with a chat template, a row becomes a chat.
        lora: The `LoraConfig`.
    """
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    sides = {"completion": "edit"} if method == "sft" else {"chosen": "edit", "rejected": "response"}

    def text(role: str, content: str) -> Any:
        if tokenizer.chat_template is not None:
            return [{"role": role, "content": content}]
        return f"{content}\n" if role == "user" else content

    texts = [
        {"prompt": text("user", row.context)}
        | {name: text("assistant", getattr(row, side)) for name, side in sides.items()}
        for row in rows
    ]
    shared = {"model": model, "processing_class": tokenizer, "peft_config": lora}
    if method == "sft":
        return SFTTrainer(args=SFTConfig(**arguments), train_dataset=Dataset.from_list(texts), **shared)
    losses = ["sigmoid", "sft"] if method == "early" else ["sigmoid"]
    config = DPOConfig(**arguments | {"beta": BETA, "loss_type": losses})
    return DPOTrainer(args=config, train_dataset=Dataset.from_list(texts), **shared)
