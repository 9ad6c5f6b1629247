"""A language model as a policy: a base, at most one adapter, and the encoder that goes with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.edits import ContextLike
from editloop.errors import ModelError
from editloop.policy.encode import Encoder
from editloop.policy.generation import READABLE, GenerationSettings
from editloop.policy.logprob import batch_features, batch_log_probs
from editloop.policy.mode import evaluating
from editloop.policy.packing import TreeBatch, pack
from editloop.policy.sampling import Sample, sample
from editloop.policy.tree import ContextTree

__all__ = ["Policy"]

# In a layer of width d, each key costs a query 2d multiplications, beside about 12d² for all else that the
# layer does to a token: the cost of a pair is a constant over d. The constant was measured: on a CPU
# attention alone gave 0.33; LoRA and the output embedding add to the other work, and whole steps gave 0.1
# to 0.3.
ATTENTION_COST = 0.25


@dataclass
class Policy:
    """A causal LM with its encoder.

    Attributes:
        model: The `transformers` model, or its PEFT wrapper while an adapter is attached.
        encoder: Turns texts into tokens.
        base: The hub name or folder that the base was loaded from.
        fingerprint: Hash of the base's configuration and weights.
        shares: Whether the model takes tree masks; if not, continuations are plain sequences.
        linear_head: Whether the logits are a linear function of the last states, so that log-probabilities
            take little memory (`editloop.policy.probe`).
        decisions: What was chosen when the base was loaded and why, one line each.
        quantize: How the base was quantised when it was loaded; None if it was not.
        dtype: The precision that was asked for, which may be `auto`.
        trust_remote_code: Whether the base may run code that it ships.
        generation: How responses are drawn if nothing else is asked for.
    """

    model: Any
    encoder: Encoder
    base: str
    fingerprint: str
    shares: bool
    decisions: list[str] = field(default_factory=list)
    quantize: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False
    generation: GenerationSettings = READABLE
    linear_head: bool = False

    @property
    def device(self) -> torch.device:
        """The device that holds the model's weights."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def precision(self) -> str:
        """The precision of the weights, such as `bfloat16`."""
        found = next(weight.dtype for weight in self.model.parameters() if weight.is_floating_point())
        return str(found).removeprefix("torch.")

    @property
    def attention_cost(self) -> float:
        """The work of one query-key pair, in units of a token's work outside attention (see `pack`)."""
        return ATTENTION_COST / float(self.model.config.get_text_config().hidden_size)

    def pack(self, trees: Sequence[ContextTree], *, from_fork: bool = False) -> TreeBatch:
        """Pack trees into the rows that this model takes (see `editloop.policy.pack`)."""
        return pack(
            trees,
            share=self.shares,
            from_fork=from_fork,
            attention_cost=self.attention_cost,
            pad=self.encoder.pad,
        )

    @torch.inference_mode()
    def log_probs(
        self,
        trees: Sequence[ContextTree],
        *,
        from_fork: bool = False,
        batch_tokens: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[float]]:
        """Log-probabilities (natural log) of every continuation of every tree, without gradients.

        Args:
            trees: Context trees, from `Encoder.tree`.
            from_fork: Count only the tokens after the prefix that all continuations of a tree share.
            batch_tokens: About how many tokens one forward has.
            progress: Called with the number of trees done so far.

        Returns:
            For each tree the log-probability of each of its continuations, in their order.
        """
        result: list[list[float]] = [[] for _ in trees]
        for members, batch in self._batches(trees, batch_tokens, progress, from_fork=from_fork):
            counts = [len(trees[i].continuations) for i in members]
            scores = batch_log_probs(self.model, batch, linear_head=self.linear_head)
            for i, own in zip(members, torch.split(scores, counts), strict=True):
                result[i] = own.tolist()
        return result

    @torch.inference_mode()
    def features(
        self,
        trees: Sequence[ContextTree],
        *,
        batch_tokens: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[list[float]], list[NDArray[np.float32]]]:
        """Log-probabilities and features of every continuation, without gradients.

        Args:
            trees: Context trees.
            batch_tokens: As for `log_probs`.
            progress: As for `log_probs`.

        Returns:
            For each tree the log-probabilities of its continuations, and their features as float32
            [continuations, F] (see `editloop.policy.batch_features`).
        """
        scores: list[list[float]] = [[] for _ in trees]
        features: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(trees)
        for members, batch in self._batches(trees, batch_tokens, progress):
            counts = [len(trees[i].continuations) for i in members]
            both = batch_features(self.model, batch, linear_head=self.linear_head)
            found, table = (torch.split(each, counts) for each in both)
            for k, i in enumerate(members):
                scores[i], features[i] = found[k].tolist(), table[k].cpu().numpy()
        return scores, features

    def _batches(
        self,
        trees: Sequence[ContextTree],
        batch_tokens: int,
        progress: Callable[[int], None] | None,
        *,
        from_fork: bool = False,
    ) -> Iterator[tuple[list[int], TreeBatch]]:
        """Yield packed trees with their indices; the model is in evaluation mode until all are consumed."""
        done = 0
        # With dropout, the figures of the reference pass and of the validation would be random.
        with evaluating(self.model):
            for members in _batches_by_tokens(trees, batch_tokens):
                yield members, self.pack([trees[i] for i in members], from_fork=from_fork)
                done += len(members)
                if progress is not None:
                    progress(done)

    def sample(
        self,
        contexts: Sequence[ContextLike],
        *,
        seed: int = 0,
        temperature: float | None = None,
        top_p: float | None = None,
        max_new_tokens: int = 256,
        batch_size: int | None = None,
        places: Sequence[tuple[int, ...]] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """One sampled response for each context (see `editloop.policy.sampling.sample`).

        Without a temperature and a top-p, it is drawn by `generation`, the base's own settings. With either,
        it is drawn by these alone: at temperature 1 from the policy's own distribution.
        """
        return sample(
            self.model,
            self.encoder,
            contexts,
            seed=seed,
            settings=self.generation.unless_asked(temperature, top_p),
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            places=places,
            progress=progress,
        )

    @property
    def has_reference(self) -> bool:
        """Whether the policy differs from its reference, because an adapter is attached to the base."""
        return hasattr(self.model, "disable_adapter")

    @contextmanager
    def reference(self) -> Iterator[None]:
        """A context in which the policy is its reference: the base with the adapter switched off.

        Raises:
            ModelError: This is a base to which an adapter was attached for another policy.
        """
        from peft.tuners.tuners_utils import BaseTunerLayer

        if self.has_reference:
            with self.model.disable_adapter():
                yield
        elif any(isinstance(module, BaseTunerLayer) for module in self.model.modules()):
            # An adapter's layers are put into the base itself, so this base would answer like the policy.
            raise ModelError(
                "the base carries an adapter of another policy",
                do="ask that policy for its reference, or detach it first",
            )
        else:
            yield


def _batches_by_tokens(trees: Sequence[ContextTree], budget: int) -> Iterator[list[int]]:
    """Yield indices of trees, longest first, so that each batch holds about `budget` tokens.

    Longest first, memory runs out at the first batch if it does at all, and rows of like length need little
    padding.
    """
    members: list[int] = []
    used = 0
    for i in sorted(range(len(trees)), key=lambda i: -len(trees[i].layout)):
        size = len(trees[i].layout)
        if members and used + size > budget:
            yield members
            members, used = [], 0
        members.append(i)
        used += size
    if members:
        yield members
