"""How arms are chosen: the configuration of a bandit, and the scale of its costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

from pydantic import Field, field_validator

from editloop.configuration import Configuration, setting
from editloop.edits.cost import DEFAULT_COST, describe_cost
from editloop.errors import ConfigError
from editloop.online.algorithms import ALGORITHMS, Algorithm
from editloop.online.events import check_cost
from editloop.online.features import FEATURES, FeatureMap

__all__ = ["BanditConfig", "resolve_scale"]

PRIOR_CAP = 5.0
"""Most pulls that an offline prior can count for: at 20, a wrong prior costs more than a right one saves."""

CHOICE = "Choice among policies"


class BanditConfig(Configuration):
    """How arms are chosen. `BanditConfig.model_fields` has a description of every field."""

    algorithm: str = setting(
        "rand-ucb",
        f"The algorithm: {', '.join(ALGORITHMS.built_in)}, or one of an installed package. "
        "Fixed plays the first arm.",
        section=CHOICE,
        common=True,
    )
    cost: str = setting(
        DEFAULT_COST,
        "The cost that the feedback is in; alpha and the scale are in its unit.",
        section=CHOICE,
        common=True,
    )
    scale: float = setting(1.0, "A typical large cost: 1 for a normalised cost.", section=CHOICE, gt=0)
    alpha: float | None = setting(
        None, "α of UCB, the strength of exploration; by default 0.45 of the scale.", section=CHOICE
    )
    bounded: bool = setting(
        True,
        "Whether a cost counts for at most the scale. One edit of cost 19 would otherwise outweigh many.",
        section=CHOICE,
    )
    discard_cost: float | None = setting(
        None, "The cost of a draft that the user threw away; by default the scale.", section=CHOICE, ge=0
    )
    features: str = setting(
        "hashed",
        f"What is known of a request, by which another arm may be best: {', '.join(FEATURES.built_in)}, or "
        "a feature map of an installed package.",
        section=CHOICE,
    )
    non_answer_cost: float = setting(
        0.0,
        "The least cost of a draft that is no answer (a refusal, a question back, nothing); 0 prices it by "
        "its edit alone.",
        section=CHOICE,
        ge=0,
    )
    discount: float = setting(
        1.0,
        "The weight that an observation keeps per further decision in its scope; 1 for users whose "
        "wishes do not change.",
        section=CHOICE,
        gt=0,
        le=1,
    )
    pool: Literal["learned"] | Annotated[float, Field(ge=0)] = setting(
        "learned",
        "How many pulls the other scopes' experience counts for: learned, or a number (0 for none).",
        section=CHOICE,
    )
    prior: Mapping[str, float] | None = setting(
        None, "The offline validation cost of arms, by name.", section=CHOICE
    )
    prior_strength: float = setting(
        PRIOR_CAP, "How many pulls the offline prior counts for.", section=CHOICE, ge=0, le=PRIOR_CAP
    )
    seed: int = setting(0, "The seed of the algorithms that draw.", section=CHOICE)
    memory: int = setting(100_000, "How many responses are kept for feedback, at most.", section=CHOICE, ge=1)

    @field_validator("prior", mode="after")
    @classmethod
    def _costs(cls, prior: Mapping[str, float] | None) -> Mapping[str, float] | None:
        for cost in (prior or {}).values():
            check_cost(cost, "edited")
        return prior

    def model_post_init(self, _: object) -> None:
        """Check that the algorithm and the feature map exist, and that the former takes the scale and α."""
        self.make_algorithm()
        self.make_feature_map()

    @property
    def bound(self) -> float:
        """The most that a cost counts for."""
        return self.scale if self.bounded else math.inf

    @property
    def discarded(self) -> float:
        """What a draft costs that the user threw away, or left because of what it said."""
        return min(self.scale if self.discard_cost is None else self.discard_cost, self.bound)

    def make_algorithm(self) -> Algorithm:
        """Return the algorithm, with its options in the unit of the cost."""
        return ALGORITHMS.get(self.algorithm).for_costs(self.scale, alpha=self.alpha)

    def make_feature_map(self) -> FeatureMap:
        """Return the feature map."""
        return FEATURES.get(self.features)()


def resolve_scale(cost: str, costs: Sequence[float] = ()) -> tuple[float, str]:
    """Return the scale of a cost, and how it was found.

    Args:
        cost: The cost's name.
        costs: Costs of a log; needed if the cost declares no scale.

    Raises:
        ConfigError: The cost declares no scale, and no positive cost is given.
        CostError: There is no such cost.
    """
    declared = describe_cost(cost).scale
    if declared is not None:
        return declared, f"{cost} declares it"
    ranked = sorted(value for value in costs if math.isfinite(value))
    scale = ranked[int(0.95 * (len(ranked) - 1))] if ranked else 0.0
    if scale <= 0:
        raise ConfigError(
            "the scale of this cost is not known", seen=cost, do="give costs of a log, a scale or alpha"
        )
    return scale, f"95% of {len(ranked)} costs are at most this"
