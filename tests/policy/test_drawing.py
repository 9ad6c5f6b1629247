"""Tokens by inversion: hand-computed places, each row by its own settings, and none by its neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from editloop.policy.drawing import CANDIDATES, NOT_FINITE, draw_tokens, token_log_probs
from editloop.policy.generation import GenerationSettings

SHARES = torch.tensor([0.2, 0.5, 0.3]).log()
"""Cumulative: .2, .7, 1."""


def drawn(
    u: float, settings: GenerationSettings, scores: torch.Tensor = SHARES, seen: Sequence[int] = ()
) -> int:
    (token,) = draw_tokens(scores[None], [settings], [u], [seen])
    return token


@pytest.mark.parametrize(
    ("settings", "places"),
    [
        (GenerationSettings(), {0.0: 0, 0.19: 0, 0.21: 1, 0.69: 1, 0.71: 2, 1 - 2**-53: 2}),
        # Squares .04, .25, .09 of .38 in all: cumulative .105, .763, 1.
        (GenerationSettings(temperature=0.5), {0.1: 0, 0.11: 1, 0.76: 1, 0.77: 2}),
        # .5 and .3 of .8: the first token is gone, and the second one has .625.
        (GenerationSettings(top_k=2), {0.0: 1, 0.62: 1, 0.63: 2}),
        (GenerationSettings(top_p=0.6), {0.0: 1, 0.62: 1, 0.63: 2}),
        (GenerationSettings(top_p=0.5), {0.0: 1, 0.99: 1}),
        # Top-p is a share of what top-k leaves: .625 reaches .6 alone.
        (GenerationSettings(top_k=2, top_p=0.6), {0.0: 1, 0.99: 1}),
        (GenerationSettings(temperature=0), {0.0: 1, 0.99: 1}),
    ],
)
def test_places_computed_by_hand(settings: GenerationSettings, places: dict[float, int]) -> None:
    assert {u: drawn(u, settings) for u in places} == places


def test_the_log_probability_of_a_token_is_the_models_own() -> None:
    scores = torch.stack([SHARES + 7.0, SHARES, torch.tensor([0.0, -200.0, -300.0])])
    found = token_log_probs(scores, [1, 2, 0])
    assert found == pytest.approx([math.log(0.5), math.log(0.3), 0.0])
    assert max(found) <= 0.0
    (lost,) = token_log_probs(torch.tensor([[math.nan, 0.0]]), [NOT_FINITE])
    assert math.isnan(lost)


def test_the_repetition_penalty_lowers_what_is_there() -> None:
    """Scores above 0 are divided by it and those below are multiplied: 1 / 2 < 0.6, and -1 * 2 < -1.5."""
    settings = GenerationSettings(temperature=0, repetition_penalty=2.0)
    assert drawn(0.5, settings, torch.tensor([1.0, 0.6, -9.0])) == 0
    assert drawn(0.5, settings, torch.tensor([1.0, 0.6, -9.0]), (0, 0)) == 1
    assert drawn(0.5, settings, torch.tensor([-1.0, -1.5, -9.0]), (0, 2)) == 1


def test_each_row_is_drawn_by_its_own_settings_and_number() -> None:
    """In any order, the tokens are those that the rows have alone."""
    random = np.random.default_rng(0)
    kinds = [
        GenerationSettings(),
        GenerationSettings(temperature=0.7, top_p=0.9),
        GenerationSettings(top_k=5, repetition_penalty=1.5),
        GenerationSettings(temperature=0),
    ]
    settings = [kinds[i] for i in random.integers(0, 4, 60)]
    scores = torch.from_numpy(random.normal(size=(60, 40)) * 2)
    u = random.random(60).tolist()
    seen = [random.integers(0, 40, 6).tolist() for _ in range(60)]
    alone = [
        drawn(u[i], settings[i], scores[i], seen[i] if settings[i].repetition_penalty != 1 else ())
        for i in range(60)
    ]
    assert draw_tokens(scores, settings, u, seen) == alone
    assert len(set(alone)) > 10


@pytest.mark.parametrize("top_k", [0, CANDIDATES + 80])
def test_top_p_of_many_tokens_is_that_of_a_whole_sort(top_k: int) -> None:
    """In an almost flat distribution, more tokens belong to top-p than are looked at first."""
    random = np.random.default_rng(1)
    scores = torch.from_numpy(random.normal(size=3 * CANDIDATES) * 0.1)
    shares = scores.softmax(-1).numpy()
    order = np.argsort(-shares)[: top_k or None]
    before = np.cumsum(shares[order]) - shares[order]
    kept = np.sort(order[before < 0.9 * shares[order].sum()])
    assert CANDIDATES < len(kept) < len(shares)
    for u in random.random(50):
        sums = np.cumsum(shares[kept])
        expected = kept[np.searchsorted(sums, u * sums[-1], side="right")]
        assert drawn(float(u), GenerationSettings(top_p=0.9, top_k=top_k), scores) == expected


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_that_is_not_finite_gets_no_token_and_spoils_no_other(value: float, temperature: float) -> None:
    scores = torch.stack([SHARES, torch.tensor([0.0, value, 1.0]), SHARES])
    found = draw_tokens(scores, [GenerationSettings(temperature=temperature)] * 3, [0.5] * 3, [()] * 3)
    assert found == [1, NOT_FINITE, 1]


def test_minus_infinity_is_a_token_that_cannot_be_drawn() -> None:
    scores = torch.tensor([0.0, -math.inf, 0.0])
    assert [drawn(u, GenerationSettings(), scores) for u in (0.0, 0.49, 0.51, 0.99)] == [0, 0, 2, 2]
