"""Features that are trained on the costs: those of the reference with an adapter tuned to predict costs.

A LoRA adapter and a linear head on the features are trained together by the square loss on responses of the
train part. The head is thrown away: the cost model is fitted on the tuned features of other rows, from which
it also has its uncertainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from editloop.errors import RunError
from editloop.io import atomic_folder
from editloop.offline.arguments import training_arguments
from editloop.offline.config import FitConfig
from editloop.offline.disk import disk_errors
from editloop.offline.examples import RESPONSE, Example
from editloop.offline.reference import on_all_processes
from editloop.policy import (
    ContextTree,
    Policy,
    TreeBatch,
    attach_adapter,
    batch_features,
    detach_adapter,
    load_adapter,
    processes,
)

__all__ = ["tuned_features"]


def tuned_features(
    policy: Policy,
    examples: Sequence[Example],
    costs: NDArray[np.float64],
    trees: Sequence[ContextTree],
    config: FitConfig,
    folder: Path,
) -> list[NDArray[np.float32]]:
    """Tune an adapter on costs, and compute the features of every continuation with it.

    Args:
        policy: The base.
        examples: The examples whose responses the adapter is tuned on [n].
        costs: The cost of each response [n].
        trees: The trees whose continuations get features.
        config: The fit's configuration; the learning rate is the highest of its trials.
        folder: Where the adapter is saved. One that is there already, from a process that was killed later,
            is used.

    Returns:
        For each tree the features, float32 [continuations, F].
    """
    if (folder / "adapter_config.json").is_file():  # the folder appears when it is whole (`_tune`)
        tuned = load_adapter(policy, folder)
    else:
        tuned = attach_adapter(policy, config.lora, seed=config.seed)
        try:
            _tune(tuned, examples, costs, config, folder)
        except BaseException:
            detach_adapter(tuned)
            raise
    try:
        tuned.model.eval()
        return on_all_processes(policy.device, trees, lambda mine: tuned.features(mine)[1])
    finally:
        detach_adapter(tuned)


def _tune(
    tuned: Policy, examples: Sequence[Example], costs: NDArray[np.float64], config: FitConfig, folder: Path
) -> None:
    """Train the adapter and a head on the costs, and save the adapter.

    Raises:
        RunError: The folder cannot be written to.
    """
    trials = [trial for method in config.methods for trial in config.trials(method)]
    rate = max(trial.hyperparameters.learning_rate for trial in trials)
    trees = [e.completions.only(RESPONSE).tree for e in examples]
    arguments = training_arguments(config, folder, tuned, trees, learning_rate=rate)
    # A short training without validation: early stopping would need costs of rows that the regression, and
    # then the report, should not have seen.
    arguments.eval_strategy, arguments.save_strategy = IntervalStrategy.NO, SaveStrategy.NO
    arguments.load_best_model_at_end = False
    arguments.train_sampling_strategy = "random"
    # Standardised, so that the learning rate suits costs in any unit.
    standard = (costs - costs.mean()) / (costs.std() or 1.0)
    trainer = _RegressionTrainer(
        model=_Regressor(tuned, trees),
        args=arguments,
        train_dataset=list(zip(trees, standard.tolist(), strict=True)),
        data_collator=lambda rows: {
            "trees": tuned.pack([tree for tree, _ in rows]),
            "costs": torch.tensor([cost for _, cost in rows]),
        },
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    state = processes(tuned.device)
    if state.is_main_process:
        with atomic_folder(folder, RunError) as unfinished, disk_errors(folder):
            tuned.model.save_pretrained(str(unfinished))
    state.wait_for_everyone()


class _Regressor(nn.Module):
    """The adapted model with a linear head on its features.

    The features are standardised by their mean and standard deviation before the training, and divided by the
    root of their number, so that the size of a step does not depend on how many there are. The head begins at
    zero, so its first prediction is the mean cost.
    """

    def __init__(self, policy: Policy, trees: Sequence[ContextTree]) -> None:
        super().__init__()
        self.model, self.linear_head = policy.model, policy.linear_head
        table = torch.from_numpy(np.concatenate(policy.features(trees)[1])).to(policy.device)
        self.centre: Tensor
        self.scale: Tensor
        self.register_buffer("centre", table.mean(dim=0))
        self.register_buffer("scale", table.std(dim=0, correction=0).clamp(min=1e-6) * table.shape[1] ** 0.5)
        self.head = nn.Linear(table.shape[1], 1, device=policy.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def gradient_checkpointing_enable(self, **options: Any) -> None:
        """Pass the trainer's request on to the model."""
        self.model.gradient_checkpointing_enable(**options)

    def forward(self, trees: TreeBatch) -> Tensor:
        """The predicted costs of the continuations, standardised [K]."""
        features = batch_features(self.model, trees, linear_head=self.linear_head)[1]
        predicted: Tensor = self.head((features - self.centre) / self.scale).squeeze(1)
        return predicted


class _RegressionTrainer(Trainer):  # type: ignore[misc]
    """The library's trainer with the square loss."""

    def compute_loss(self, model: Any, inputs: dict[str, Any], *_: Any, **__: Any) -> Tensor:
        costs: Tensor = inputs["costs"]
        loss: Tensor = (model(inputs["trees"]) - costs).square().mean()
        return loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        return 0
