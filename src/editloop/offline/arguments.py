"""The library's arguments for one training: how an optimiser step is divided, and when it is evaluated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments

from editloop.errors import ConfigError
from editloop.offline.config import FitConfig
from editloop.offline.schedule import default_batch_size, training_steps
from editloop.policy import ContextTree, Policy, processes

__all__ = ["forward_tokens", "micro_batch", "step_size", "training_arguments", "training_length"]


class OneDeviceArguments(TrainingArguments):  # type: ignore[misc]
    """The library's arguments, with one device for each process.

    On a machine with several GPUs the library would otherwise wrap the model in `DataParallel`, which cuts
    every tensor of a batch along its first dimension. A packed batch of trees cannot be cut there.
    """

    @property
    def n_gpu(self) -> int:
        """The number of devices of this process."""
        return min(1, int(super().n_gpu))


def forward_tokens(policy: Policy) -> int:
    """About how many tokens a forward with a backward should have at most, if memory allows as many.

    On a CPU a token takes as long in a batch of 500 tokens as in one of 2,600 (SmolLM2-135M), so that larger
    batches would only take memory.
    """
    tokens = 8192 if policy.device.type == "cuda" else 2048
    if not policy.linear_head:  # all logits are held at once: 2^29 numbers are 2 GB in float32
        tokens = min(tokens, 2**29 // int(policy.model.config.get_text_config().vocab_size))
    return tokens


def micro_batch(batch: int, trees: Sequence[ContextTree], tokens: int, *, most: int | None = None) -> int:
    """The number of contexts in one forward: the greatest divisor of the batch that is within the limit.

    Args:
        batch: Contexts in an optimiser step of one process.
        trees: The trees of the training rows.
        tokens: About how many tokens a forward should have at most (`forward_tokens`).
        most: Limit in contexts, in place of that in tokens.
    """
    # A divisor, so that all parts of a step have the same number of contexts: the library takes one fixed
    # number for the size of a part and one for the number of parts.
    mean = sum(len(tree.layout) for tree in trees) / len(trees)
    bearable = most or tokens / mean
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= bearable or size == 1))


def step_size(config: FitConfig, rows: int, processes: int) -> int:
    """Contexts in an optimiser step of one process.

    Args:
        config: The fit's configuration.
        rows: The rows that are learned from.
        processes: The number of processes, which divides the batch.
    """
    return min(config.batch_size or default_batch_size(rows, processes), rows) // processes


def training_length(
    config: FitConfig, rows: int, processes: int, epochs: float | None = None
) -> tuple[int, int]:
    """Optimiser steps of a whole training, and those between two of its evaluations.

    Args:
        config: The fit's configuration.
        rows: The rows that are learned from.
        processes: The number of processes.
        epochs: Passes over the rows; by default those of the configuration.
    """
    # A step of no rows is refused where the training begins.
    batch = max(1, step_size(config, rows, processes)) * processes
    steps = training_steps(rows, batch, epochs or config.epochs)
    return steps, max(1, steps // config.evaluations)


def training_arguments(
    config: FitConfig,
    folder: Path,
    policy: Policy,
    trees: Sequence[ContextTree],
    *,
    learning_rate: float,
    epochs: float | None = None,
) -> TrainingArguments:
    """The library's arguments for one training.

    Long because it names every argument that differs from the library's default.

    Args:
        config: The fit's configuration.
        folder: The folder for checkpoints.
        policy: The policy to train, for its device, precision and vocabulary.
        trees: The trees of the training rows.
        learning_rate: The learning rate after the warm-up.
        epochs: Passes over the rows; by default those of the configuration.

    Raises:
        ConfigError: A batch cannot be divided among the processes, or there are fewer rows than processes.
    """
    device = policy.device
    world = processes(device).num_processes
    size = config.batch_size or default_batch_size(len(trees), world)
    if size % world:
        raise ConfigError(
            f"a batch cannot be divided among {world} processes",
            seen=size,
            do="change --batch-size",
        )
    if len(trees) < world:
        raise ConfigError(
            f"there are fewer rows than the {world} processes", seen=len(trees), do="use one process"
        )
    batch = step_size(config, len(trees), world)
    micro = micro_batch(batch, trees, forward_tokens(policy), most=config.micro_batch_size)
    steps, every = training_length(config, len(trees), world, epochs)
    checkpointing: dict[str, Any] = {}
    if config.gradient_checkpointing:  # the library warns if the flag is passed at all, even as False
        checkpointing = {
            "gradient_checkpointing": True,
            "gradient_checkpointing_kwargs": {"use_reentrant": False},
        }
    return OneDeviceArguments(
        output_dir=str(folder),
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=batch // micro,
        max_steps=steps,
        learning_rate=learning_rate,
        warmup_steps=round(steps * config.warmup),
        lr_scheduler_type="linear",
        # Decay pulls a LoRA matrix to zero, that is, the policy to its reference. β already controls that.
        weight_decay=0.0,
        eval_strategy="steps",
        eval_steps=every,
        save_strategy="steps",
        save_steps=every,
        save_total_limit=1,  # the last checkpoint; the library keeps the best one in addition
        # Early stopping counts evaluations without an improvement. Without its state, a continued training
        # would count from zero again, and end at another step than an uninterrupted one.
        restore_callback_states_from_checkpoint=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=False,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # the filter would hide a loss that diverged
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        train_sampling_strategy="sequential",  # the order of the rows is the RowStream's
        dataloader_drop_last=True,  # drops nothing: the stream's length is a multiple of the step
        dataloader_pin_memory=False,
        seed=config.seed,
        **checkpointing,
        bf16=device.type == "cuda" and policy.model.config.dtype == torch.bfloat16,
        use_cpu=device.type == "cpu",
        average_tokens_across_devices=False,  # the trainer sums the totals over the processes itself
        ddp_find_unused_parameters=False,
    )
