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

__all__ = ["micro_batch", "training_arguments"]


class OneDeviceArguments(TrainingArguments):  # type: ignore[misc]
    """The library's arguments, with one device for each process.

    On a machine with several GPUs the library would otherwise wrap the model in `DataParallel`, which cuts
    every tensor of a batch along its first dimension. A packed batch of trees cannot be cut there.
    """

    @property
    def n_gpu(self) -> int:
        """The number of devices of this process."""
        return min(1, int(super().n_gpu))


def micro_batch(batch: int, trees: Sequence[ContextTree], vocabulary: int, *, most: int | None = None) -> int:
    """The number of contexts in one forward: the greatest divisor of the batch that is within the limit.

    Args:
        batch: Contexts in an optimiser step of one process.
        trees: The trees of the training rows.
        vocabulary: Size of the vocabulary; the logits are often the largest tensor.
        most: Limit in contexts. By default a forward has at most about 8,192 tokens, and logits of 2^29
            numbers, which are 2 GB in float32.
    """
    # A divisor, so that all parts of a step have the same number of contexts: the library takes one fixed
    # number for the size of a part and one for the number of parts.
    tokens = sum(len(tree.layout) for tree in trees) / len(trees)
    bearable = most or min(8192, 2**29 / vocabulary) / tokens
    return max(size for size in range(1, batch + 1) if batch % size == 0 and (size <= bearable or size == 1))


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
    batch = min(size, len(trees)) // world  # of one process
    vocabulary = int(policy.model.config.get_text_config().vocab_size)
    micro = micro_batch(batch, trees, vocabulary, most=config.micro_batch_size)
    steps = training_steps(len(trees), batch * world, epochs or config.epochs)
    every = max(1, steps // config.evaluations)
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
