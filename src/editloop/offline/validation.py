"""What a trial is validated on, and the figures of a policy in training on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from editloop.offline.config import Trial
from editloop.offline.examples import Completions, Example
from editloop.offline.methods.batch import Batch, Layout
from editloop.offline.reference import on_all_processes
from editloop.offline.scoring import DEFAULT_BETA, Scores, scores_of
from editloop.offline.start import Start
from editloop.policy import Policy, processes
from editloop.progress import ProgressCallback, counter

__all__ = ["TrialRows", "Validation"]


@dataclass(frozen=True)
class TrialRows:
    """What a trial is trained and validated on, prepared as its method needs it.

    Attributes:
        train: Completions of the rows to train on.
        held: Completions of those validation rows that the method learns from.
        examples: All examples of the validation part, for the figures that every method has.
        held_examples: The examples of `held`, in the same order.
        start: The policy at whose adapter the training begins; None for the base.
    """

    train: Sequence[Completions]
    held: Sequence[Completions]
    examples: Sequence[Example]
    held_examples: Sequence[Example]
    start: Start | None = None


class Validation:
    """The figures of a policy in training on the validation part.

    The method's own figure is computed as one batch in float64: a mean over batches of different sizes would
    not be the loss of the whole, and early stopping compares figures that differ little.

    Attributes:
        trial: The trial.
        rows: Its rows.
        scores: Log-probabilities of the validation examples under the state that was scored last or is kept;
            None before the first.
    """

    def __init__(
        self, trained: Policy, trial: Trial, rows: TrialRows, name: str, callback: ProgressCallback
    ) -> None:
        self.trial, self.rows = trial, rows
        self.scores: Scores | None = None
        self._best: tuple[float, Scores] | None = None
        self._trained, self._name, self._callback = trained, name, callback
        lengths = [length for each in rows.held for length in each.tree.lengths]
        self._layout = Layout(rows.held, torch.tensor(lengths))
        # By identity: two records may have the same id, and hashing an example would hash all its tokens.
        self._place = {id(example): i for i, example in enumerate(rows.examples)}

    @property
    def initial(self) -> float:
        """The method's figure of the policy at which training begins, which needs no forward."""
        start, reference = self._layout.known("start"), self._layout.known("reference")
        return self._figure(torch.where(start.isnan(), reference, start))

    @property
    def figures(self) -> dict[str, Any]:
        """The figures that every method has, by name, of the state that was scored last or is kept."""
        return self.scores.figures(_beta(self.trial)) if self.scores else {}

    def run(self) -> dict[str, float]:
        """Compute all figures, and return their means; `loss` is the method's own figure."""
        device, examples = self._trained.device, self.rows.examples
        world = processes(device).num_processes
        progress = counter(self._callback, f"{self._name}, validation", len(examples), world)
        scored = on_all_processes(
            device, [e.tree for e in examples], lambda mine: self._trained.log_probs(mine, progress=progress)
        )
        self.scores = scores_of(examples, scored)
        means = {key: value["mean"] for key, value in self.figures.items() if value}
        loss = self._loss(scored)
        if self._best is None or loss < self._best[0]:
            self._best = loss, self.scores
        return {"loss": loss, **means}

    def of_state(self, loss: float | None) -> float:
        """The method's own figure of the state that was kept; `figures` are then those of this state.

        Args:
            loss: That figure as the trainer knows it, None if it does not.
        """
        # The state was scored when it was reached, and is scored again only if another process did that.
        if self._best is not None and self._best[0] == loss:
            self.scores = self._best[1]
            return self._best[0]
        return self.run()["loss"]

    def _loss(self, scored: Sequence[Sequence[float]]) -> float:
        """The method's figure, given the log-probabilities of the edit and the response of every example."""
        # The edits and the responses of all examples were scored for the figures that every method has. A
        # method whose completions are all among them needs no second forward.
        table: list[Sequence[float] | None] = []
        for example, each in zip(self.rows.held_examples, self.rows.held, strict=True):
            known = dict(zip(example.tree.continuations, scored[self._place[id(example)]], strict=True))
            wanted, counts_all = each.tree.continuations, each.tree.weights is None
            is_known = counts_all and all(c in known for c in wanted)
            table.append([known[c] for c in wanted] if is_known else None)
        # Trees with other completions, such as sampled ones, or with weights, have not been scored yet.
        unknown = [i for i, found in enumerate(table) if found is None]
        trees = [self.rows.held[i].tree for i in unknown]
        if trees:
            found = on_all_processes(self._trained.device, trees, self._trained.log_probs)
            for i, log_probs in zip(unknown, found, strict=True):
                table[i] = log_probs
        values = [value for found in table for value in found or ()]
        return self._figure(torch.tensor(values, dtype=torch.float64))

    def _figure(self, log_probs: torch.Tensor) -> float:
        method = self.trial.method
        batch = Batch(self._layout, log_probs, method.totals(self._layout))
        return float(method.validation_figure(batch, self.trial.hyperparameters))


def _beta(trial: Trial) -> float:
    """The β of the reported preference loss: the trial's own, if it has one."""
    return float(getattr(trial.hyperparameters, "beta", DEFAULT_BETA))
