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

    class Counted(MixedPolicy):
        def _policies(self) -> Iterator[tuple[str, Policy]]:
            for name, one in super()._policies():
                kept = one.sample

                def sample(contexts: Any, kept: Any = kept, name: str = name, **more: Any) -> Any:
                    asked.append((name, len(contexts)))
                    return kept(contexts, **more)

                one.sample = sample  # type: ignore[method-assign]
                yield name, one

    mixed = mixture(policy, {"base": 0.5, "other": 0.5})
    counted = Counted(policy, mixed.weights, mixed._load)
    for context in CONTEXTS:  # asked one by one it mixes, too
        counted.sample([context], **options)
    assert len(asked) == 12 and {name for name, _ in asked} == {"base", "other"}
    asked.clear()
    first = counted.sample(CONTEXTS, **options)
    sizes = [size for _, size in asked]
    assert len(first) == 12 == sum(sizes) and min(sizes) >= 2
    assert [each.text for each in mixed.sample(CONTEXTS, **options)] == [each.text for each in first]
