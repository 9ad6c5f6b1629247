"""TRL's two arms of `train-speed`: its trainers as they come, and tuned by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.train_spec import ALPHA, BETA, LEARNING_RATE, RANK, Spec, device, make_rows


def train_steps(spec: Spec, clock: Any) -> dict[str, Any]:
    """Run TRL's trainer on a base in memory; there are no figures but the clock's."""
    from benchmarks.train_workload import build_base, build_tokenizer

    rows, batch = make_rows(spec)
    trainer = make_trainer(spec, rows, batch, build_base(spec.size, device()), build_tokenizer())
    trainer.add_callback(clock)
    trainer.train()
    return {}


def train_whole(spec: Spec) -> None:
    """Train one method with TRL, from a log and a base's folder to an adapter's folder."""
    from transformers import AutoTokenizer

    from benchmarks.train_workload import SIZES

    assert spec.log is not None and spec.base is not None
    lines = Path(spec.log).read_text(encoding="utf-8").splitlines()
    rows = [_Row(**json.loads(line)) for line in lines]
    tokenizer = AutoTokenizer.from_pretrained(spec.base)
    trainer = make_trainer(spec, rows, SIZES[spec.size].batch, spec.base, tokenizer)
    trainer.train()
    trainer.save_model(str(Path(spec.folder) / "policy"))


@dataclass(frozen=True)
class _Row:
    id: str
    context: str
    response: str
    edit: str


def make_trainer(spec: Spec, rows: list[Any], batch: int, model: Any, tokenizer: Any) -> Any:
    """Return TRL's trainer for a method, with the settings that all arms share.

    The tuned arm also gets what makes TRL faster on this workload: no gradient checkpointing, no bf16 on a
    CPU, and the reference precomputed.
    """
    from datasets import Dataset
    from peft import LoraConfig

    (method,), tuned = spec.methods, spec.arm == "trl tuned"
    arguments: dict[str, Any] = {
        "output_dir": spec.folder,
        "per_device_train_batch_size": batch,
        "max_steps": len(rows) // batch,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": round(len(rows) // batch * 0.1),
        "max_length": 4096,
        "train_sampling_strategy": "sequential",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": device() == "cpu",
        "dataloader_pin_memory": device() != "cpu",
    }
    if tuned:
        arguments |= {"gradient_checkpointing": False, "bf16": device() != "cpu"}
    shared: dict[str, Any] = {
        "model": model,
        "processing_class": tokenizer,
        "peft_config": LoraConfig(
            r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    }
    if method == "sft":
        from trl import SFTConfig, SFTTrainer

        texts = [{"prompt": f"{row.context}\n", "completion": row.edit} for row in rows]
        return SFTTrainer(args=SFTConfig(**arguments), train_dataset=Dataset.from_list(texts), **shared)
    from trl import DPOConfig, DPOTrainer

    texts = [{"prompt": f"{row.context}\n", "chosen": row.edit, "rejected": row.response} for row in rows]
    arguments |= {"beta": BETA, "loss_type": ["sigmoid", "sft"] if method == "early" else ["sigmoid"]}
    if tuned:
        arguments |= {"precompute_ref_log_probs": True}
    return DPOTrainer(args=DPOConfig(**arguments), train_dataset=Dataset.from_list(texts), **shared)
