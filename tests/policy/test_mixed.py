"""A mixture as a policy: each response comes from one of its policies, each likelihood from all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch

from editloop.policy import (
    ContextTree,
    LoraSettings,
    MixedPolicy,
    Policy,
    attach_adapter,
    detach_adapter,
    load_base,
)


@pytest.fixture(scope="module")
def policy(base: Any) -> Policy:
    return load_base(base(), device="cpu")


def mixture(policy: Policy, weights: dict[str, float]) -> MixedPolicy:
    @contextmanager
    def load(name: str) -> Iterator[Policy]:
        if name == "base":
            yield replace(policy)
            return
        adapted = attach_adapter(policy, LoraSettings(rank=2), seed=1)
        with torch.no_grad():
            for key, weight in adapted.model.named_parameters():
                if "lora_B" in key:
                    weight.fill_(0.2)
        try:
            yield adapted
        finally:
            detach_adapter(adapted)

    return MixedPolicy(policy, weights, load)


TREES = [ContextTree((40, 41, 42), ((20, 21, 2), (20, 22, 23, 2))), ContextTree((40,), ((2,),))]
CONTEXTS = [f"say {i}" for i in range(12)]


def test_it_is_as_likely_as_its_policies_together(policy: Policy) -> None:
    mixed = mixture(policy, {"base": 0.25, "other": 0.75, "never": 0.0})
    with mixed._load("other") as other:
        theirs = other.log_probs(TREES)
    own = policy.log_probs(TREES)
    for found, a, b in zip(mixed.log_probs(TREES), own, theirs, strict=True):
        expected = [math.log(0.25 * math.exp(x) + 0.75 * math.exp(y)) for x, y in zip(a, b, strict=True)]
        assert found == pytest.approx(expected, abs=1e-5)
    assert own[0] != pytest.approx(theirs[0], abs=1e-2)
    assert policy.log_probs(TREES) == own  # the base carries nothing afterwards
    with pytest.raises(ValueError, match="shared prefix"):
        mixed.log_probs(TREES, from_fork=True)
    with pytest.raises(ValueError, match="no features"):
        mixed.features(TREES)


def test_each_response_is_drawn_from_one_policy(policy: Policy) -> None:
    options = {"seed": 3, "max_new_tokens": 4}
    alone = mixture(policy, {"base": 1.0, "other": 0.0}).sample(CONTEXTS, **options)
    assert [each.text for each in alone] == [each.text for each in policy.sample(CONTEXTS, **options)]
    asked: list[tuple[str, int]] = []

    mixed = mixture(policy, {"base": 0.5, "other": 0.5})

    @contextmanager
    def load(name: str) -> Iterator[Policy]:
        with mixed._load(name) as one:
            kept = one.sample

            def sample(contexts: Any, **more: Any) -> Any:
                asked.append((name, len(contexts)))
                return kept(contexts, **more)

            one.sample = sample  # type: ignore[method-assign]
            yield one

    counted = MixedPolicy(policy, mixed.weights, load)
    for context in CONTEXTS:  # asked one by one it mixes, too
        counted.sample([context], **options)
    assert len(asked) == 12 and {name for name, _ in asked} == {"base", "other"}
    asked.clear()
    first = counted.sample(CONTEXTS, **options)
    sizes = [size for _, size in asked]
    assert len(first) == 12 == sum(sizes) and min(sizes) >= 2
    assert [each.text for each in mixed.sample(CONTEXTS, **options)] == [each.text for each in first]


def test_a_response_is_the_one_that_its_policy_alone_gives_in_that_place(policy: Policy) -> None:
    """It depends on no other context, and not on how many of them the same policy answers."""
    options: dict[str, Any] = {"seed": 3, "max_new_tokens": 6}
    mixed = mixture(policy, {"base": 0.5, "other": 0.5})
    together = mixed.sample(CONTEXTS, **options)
    alone = {}
    for name in ("base", "other"):
        with mixed._load(name) as one:
            alone[name] = one.sample(CONTEXTS, **options)
    drawn = [[name for name in alone if alone[name][i] == each] for i, each in enumerate(together)]
    assert all(drawn) and {"base"} in map(set, drawn) and {"other"} in map(set, drawn)
    for i, context in enumerate(CONTEXTS):
        assert mixed.sample([context], places=[(i,)], **options) == [together[i]]
    assert mixed.sample(["new", *CONTEXTS[1:4]], **options)[1:] == together[1:4]


def test_progress_does_not_begin_again_with_each_policy(policy: Policy) -> None:
    mixed = mixture(policy, {"base": 0.5, "never": 0.0, "other": 0.5})
    steps: list[int] = []
    mixed.sample(CONTEXTS, seed=3, max_new_tokens=2, batch_size=2, progress=steps.append)
    assert steps == sorted(set(steps)) and steps[-1] == len(CONTEXTS) and len(steps) >= 6
    steps.clear()
    mixed.log_probs(TREES * 3, batch_tokens=1, progress=steps.append)
    assert steps == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6]  # halves of six trees, by two policies
