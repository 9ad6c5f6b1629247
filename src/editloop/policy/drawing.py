"""Draw the next token of each row of a batch from its scores, by the row's own settings and random number.

A token is drawn by inversion: it is the first one whose cumulative probability exceeds a number u in [0, 1).
`torch.multinomial` would draw from a generator that all rows of a batch share, so that a response would
depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from editloop.errors import ModelError
from editloop.policy.generation import GenerationSettings

__all__ = ["NOT_FINITE", "draw_tokens", "inverted", "not_finite_error", "token_log_probs"]

NOT_FINITE = -1
"""Stands for the token of a row whose probabilities are not finite numbers."""

CANDIDATES = 512
"""How many of the likeliest tokens top-p looks at first. To sort 8 x 49,152 takes ten times as long."""


def draw_tokens(
    scores: torch.Tensor,
    settings: Sequence[GenerationSettings],
    u: Sequence[float],
    tokens: Sequence[Sequence[int]],
) -> list[int]:
    """The next token of each row, or `NOT_FINITE`.

    Rows of equal settings are drawn together; a token does not depend on the other rows.

    Args:
        scores: The logits of the next token [n, vocabulary].
        settings: How each row's token is drawn.
        u: A number in [0, 1) for each row, which temperature 0 does not use.
        tokens: The tokens of each row so far, prompt included, which the repetition penalty lowers.
    """
    found = [NOT_FINITE] * len(settings)
    for each in dict.fromkeys(settings):
        rows = [i for i, other in enumerate(settings) if other == each]
        group = scores if len(rows) == len(settings) else scores[rows]
        if each.repetition_penalty != 1:
            group = _penalised(group, [tokens[i] for i in rows], each.repetition_penalty)
        if each.temperature > 0:
            drawn = inverted(group, torch.tensor([u[i] for i in rows], dtype=torch.float64), each)
        else:
            best, drawn = group.max(-1)  # of a row with NaN, the maximum is NaN
            drawn = torch.where(torch.isfinite(best), drawn, NOT_FINITE)
        for i, token in zip(rows, drawn.tolist(), strict=True):
            found[i] = token
    return found


def token_log_probs(scores: torch.Tensor, tokens: Sequence[int]) -> list[float]:
    """The log-probability of each row's token by the model itself, in nats, at most 0.

    It is that at temperature 1 over the whole vocabulary, however the token was drawn: what a loss measures
    a policy against is another policy, and temperature, top-p and penalty belong to the sampler.

    Args:
        scores: The logits of the token [n, vocabulary].
        tokens: The tokens [n]; the value of `NOT_FINITE` means nothing.
    """
    chosen = torch.tensor(tokens, device=scores.device).clamp(min=0)[:, None]
    found: list[float] = (scores.gather(1, chosen)[:, 0] - scores.logsumexp(-1)).clamp(max=0).tolist()
    return found


def _penalised(scores: torch.Tensor, tokens: Sequence[Sequence[int]], penalty: float) -> torch.Tensor:
    from transformers import RepetitionPenaltyLogitsProcessor

    # Row by row, because rows of one length would have to be padded, and the padding would be penalised.
    lower = RepetitionPenaltyLogitsProcessor(penalty)
    ids = [torch.tensor([row], device=scores.device) for row in tokens]
    return torch.cat([lower(each, scores[i : i + 1]) for i, each in enumerate(ids)])


def inverted(scores: torch.Tensor, u: torch.Tensor, settings: GenerationSettings) -> torch.Tensor:
    """The first token of each row whose cumulative probability exceeds u; `NOT_FINITE` if there is none.

    Args:
        scores: The logits [n, vocabulary].
        u: A number in [0, 1) for each row, in double precision: float32 would make tokens rarer than 2^-24
            impossible [n].
        settings: Temperature, above 0, top-k and top-p.

    Returns:
        The tokens [n].
    """
    exact = torch.float32 if scores.device.type == "mps" else torch.float64  # Apple's GPUs lack float64
    shares = (scores.to(exact) / settings.temperature).softmax(-1)
    names = None
    if settings.top_k or settings.top_p < 1:
        shares, names = _nucleus(shares, settings)
    sums = shares.cumsum(-1)
    total = sums[:, -1:]  # NaN anywhere in a row reaches it
    # The sum may miss 1 by rounding, or by top-p on purpose. To scale u by it is to normalise the shares.
    place = torch.searchsorted(sums, u[:, None].to(scores.device, exact) * total, right=True)
    # Where u * total was rounded up to the total, the search runs off the end and the last token of positive
    # probability is meant: the first one at which the cumulative sum reaches the total.
    place = torch.minimum(place, (sums < total).sum(-1, keepdim=True))
    found = place if names is None else names.gather(1, place)
    return torch.where(torch.isfinite(total), found, NOT_FINITE)[:, 0]


def _nucleus(shares: torch.Tensor, settings: GenerationSettings) -> tuple[torch.Tensor, torch.Tensor]:
    """What top-k and top-p leave, ordered by token: probabilities and tokens [n, candidates]."""
    vocabulary = shares.shape[-1]
    top_k = min(settings.top_k or vocabulary, vocabulary)
    for size in (min(max(CANDIDATES, settings.top_k), vocabulary), vocabulary):
        ranked, tokens = shares.topk(size)
        ranked[:, top_k:] = 0.0  # first, as everywhere: top-p is a share of what top-k has left
        mass = (ranked if settings.top_k else shares).sum(-1, keepdim=True) * settings.top_p
        if bool((ranked.sum(-1, keepdim=True) >= mass).all()):  # so that no other token can belong to it
            break
    # The sum before each token, not through it: the likeliest stays however probable it is.
    ranked[ranked.cumsum(-1) - ranked >= mass] = 0.0
    tokens, order = tokens.sort(-1)
    return ranked.gather(1, order), tokens


def not_finite_error() -> ModelError:
    """The error of a model whose probabilities are not finite."""
    return ModelError("the model's probabilities are not finite", do="check whether its training diverged")
