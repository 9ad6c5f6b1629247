"""What one batch shows about a machine and a base: seconds and bytes of a token."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from editloop.edits import ContextLike
from editloop.offline.arguments import forward_tokens
from editloop.offline.config import FitConfig
from editloop.offline.trial import trainable
from editloop.policy import ContextTree, Policy, batch_log_probs
from editloop.policy.memory import PeakMemory, release_memory, used_memory
from editloop.policy.sampling import default_batch

__all__ = ["Speed", "measure_speed"]

MEASURED_TOKENS = 2048
"""About how many tokens a measured batch has at most. With more, a token takes no less time."""
DRAWN = 4
"""The tokens that are drawn to see how long one takes."""


@dataclass(frozen=True)
class Speed:
    """What one batch has shown.

    Attributes:
        train: Seconds of forward and backward for a token.
        score: Seconds of a forward without gradients for a token.
        draw: Seconds of one token of a response that is sampled alone.
        resident: Bytes in use before a forward, with the base, the adapter and its optimiser.
        token: Bytes that a token of a forward takes until its backward.
        checkpointed: The same with gradient checkpointing, computed.
        together: Responses that are sampled at a time.
    """

    train: float
    score: float
    draw: float
    resident: float
    token: float
    checkpointed: float
    together: int


def measure_speed(
    policy: Policy, config: FitConfig, trees: Sequence[ContextTree], contexts: Sequence[ContextLike]
) -> Speed:
    """Run a forward and backward of the longest rows and of some of all lengths, and draw a few tokens.

    The longest rows show the memory; the others, padded as a batch is, the time. No step is taken, and the
    policy and the global random state are afterwards as they were.

    Args:
        policy: The base.
        config: The fit's configuration, for the adapter.
        trees: The trees of all methods.
        contexts: A context to draw a response to; without any, `draw` is 0.
    """
    ordered = sorted(trees, key=lambda tree: len(tree.layout), reverse=True)
    batch = _longest(ordered, min(forward_tokens(policy), MEASURED_TOKENS))
    size = sum(len(tree.layout) for tree in batch)
    usual = _of_all_lengths(ordered, size)
    usual_size = sum(len(tree.layout) for tree in usual)
    with (
        torch.random.fork_rng(devices=[policy.device] if policy.device.type == "cuda" else []),
        trainable(policy, config) as trained,
    ):
        _train(trained, ordered[-1:])  # pays for what is set up once
        with PeakMemory(policy.device) as memory:
            _train(trained, batch)
        # That pass also waited for memory that the machine had to find, up to half of its time; each step of
        # a training takes anew only what the last one gave back.
        release_memory()
        train = _seconds(policy.device, lambda: _train(trained, usual)) / usual_size
        score = _seconds(policy.device, lambda: trained.log_probs(usual)) / usual_size
        weights = [each for each in trained.model.parameters() if each.requires_grad]
        trained.model.zero_grad(set_to_none=True)
        # Adam keeps two numbers for each weight that is trained; the gradients were part of the measurement.
        optimiser = 2 * sum(each.numel() * each.element_size() for each in weights)
    computed, checkpointed = _computed(policy)
    longest = max(len(tree.context) for tree in ordered)
    token = max(computed, (memory.peak - memory.start) / size)
    return Speed(
        train,
        score,
        _draw(policy, contexts[0]) if contexts else 0.0,
        used_memory(policy.device) + optimiser if policy.device.type == "cuda" else memory.start + optimiser,
        token,
        min(token, checkpointed),
        default_batch(policy.model, min(longest + config.longest_response, policy.encoder.max_length)),
    )


def _longest(ordered: Sequence[ContextTree], tokens: int) -> list[ContextTree]:
    """The first trees with about this many tokens together, one at least."""
    batch, used = list[ContextTree](), 0
    for tree in ordered:
        used += len(tree.layout)
        if batch and used > tokens:
            break
        batch.append(tree)
    return batch


def _of_all_lengths(ordered: Sequence[ContextTree], tokens: int) -> list[ContextTree]:
    """One tree at least, in equal steps through all by length: with padding no more than so many tokens."""
    every = max(1, round(sum(len(tree.layout) for tree in ordered) / tokens))
    chosen = list(ordered[min(every // 2, len(ordered) - 1) :: every])
    # Where each has a row of its own, a long one among many short ones would be a batch of padding.
    while len(chosen) > 1 and len(chosen) * len(chosen[0].layout) > tokens:
        chosen = chosen[1:]
    return chosen


def _train(policy: Policy, trees: Sequence[ContextTree]) -> None:
    """A forward and a backward; the gradients stay."""
    log_probs = batch_log_probs(policy.model, policy.pack(trees), linear_head=policy.linear_head)
    log_probs.sum().backward()  # type: ignore[no-untyped-call]


def _seconds(device: torch.device, work: Callable[[], Any]) -> float:
    """The seconds that work takes; at least a microsecond, because other numbers are divided by it."""
    _finish(device)
    start = time.perf_counter()
    work()
    _finish(device)
    return max(time.perf_counter() - start, 1e-6)


def _finish(device: torch.device) -> None:
    """Wait for the kernels that were started."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _draw(policy: Policy, context: ContextLike) -> float:
    """Seconds of one token of a response."""

    def drawn(tokens: int) -> float:
        return _seconds(policy.device, lambda: policy.sample([context], max_new_tokens=tokens))

    # The difference leaves out the context. A response may end early, and then a token looks too cheap.
    return max(drawn(1 + DRAWN) - drawn(1), 1e-6) / DRAWN


def _computed(policy: Policy) -> tuple[float, float]:
    """Bytes of a token's activations by the shapes, without and with gradient checkpointing.

    In a layer of width d and inner width f, about 8 d + 4 f numbers are kept for the backward: the inputs of
    the norms and of the linear layers, queries, keys, values and the attention's output; and of the gated
    inner layer its two parts, the activation and the product. The measured memory is more by what the
    allocator cannot use again. With checkpointing, d numbers are kept of each layer, and one layer at a time
    has all of its own.
    """
    text = policy.model.config.get_text_config()
    layers, width = int(getattr(text, "num_hidden_layers", 1)), int(text.hidden_size)
    inner = int(getattr(text, "intermediate_size", None) or 4 * width)
    numbers = 8 * width + 4 * inner
    bytes_each = next(p.element_size() for p in policy.model.parameters() if p.is_floating_point())
    return layers * numbers * bytes_each, (layers * width + 2 * numbers) * bytes_each
