"""What `fit` can be told, validated where it is made and saved beside what it produced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from editloop.edits import SplitBy
from editloop.edits.cost import DEFAULT_COST
from editloop.errors import ConfigError
from editloop.offline.losses import Reduction
from editloop.policy import LoraSettings

__all__ = ["Candidate", "FitConfig", "Method", "make_fit_config"]

Method = Literal["sft", "dpo", "rl", "early"]
RLLoss = Literal["pairwise", "weighted"]
CostModelKind = Literal["ridge", "bootstrap", "tuned", "auto"]


LEARNING_RATES: Mapping[Method, tuple[float, ...]] = {
    "sft": (1e-4, 3e-4),
    "dpo": (2e-5, 1e-4),
    "rl": (2e-5, 1e-4),
    "early": (1e-4, 3e-4),
}


BETAS: Mapping[Method, tuple[float, ...]] = {"dpo": (0.1,), "rl": (0.1,), "early": (0.1,)}


class Candidate(BaseModel):
    """One point of a method's grid."""

    model_config = ConfigDict(frozen=True)

    learning_rate: float
    beta: float | None = None
    dpo_weight: float | None = None
    kappa: float | None = None
    rl_weight: float | None = None
    rl_beta: float | None = None
    rl_loss: RLLoss | None = None

    @property
    def name(self) -> str:
        """A short name, unique in its grid and safe in a path."""
        parts = {
            "lr": self.learning_rate,
            "beta": self.beta,
            "w": self.dpo_weight,
            "kappa": self.kappa,
            "rl": self.rl_weight,
            "rlbeta": self.rl_beta,
        }
        named = [f"{key}{value:g}" for key, value in parts.items() if value is not None]
        return "-".join([*named, *([self.rl_loss] if self.rl_loss else [])])


class FitConfig(BaseModel):
    """The configuration of `editloop fit`.

    Attributes:
        methods: What to train, in this order.
        learning_rate: Learning rates to try for each method.
        beta: Values of β (Eq. 4 and 6) to try for `dpo`, `rl` and `early`; a single list is for all. That of
            `rl` is in units of the train part's mean cost, so that it means the same whatever the cost is
            counted in; it is also that of the RL term of `early`.
        dpo_weight: Values of λ (Eq. 7) to try for `early`.
        rl_weight: Values of λ_RL to try for `early`; 0 leaves RL out of it.
        kappa: Values of κ to try wherever there is RL: how many u are added to f̂.
        rl_loss: Losses of RL to try: `pairwise` regression of log-ratios, likelihood `weighted` by e^(−f̄/β).
        candidates: Responses that are drawn from the reference for each context, for RL.
        cost_model: `ridge` on the reference's features, `bootstrap` regressions on them, ridge on features
            `tuned` by an adapter, or `auto`: what validates best of the three.
        select: How the best of the grid is chosen on the validation part: by validation `loss`, or by
            `cost`: the mean cost between a sampled response and the row's edit.
        sft_reduction: See `editloop.offline.sft_loss`.
        epochs: Passes over the train part; fractions are allowed. The last step is filled up from a
            further pass.
        rl_epochs: Passes of `rl`, which sees more of each context than the others; by default `epochs`.
        batch_size: Contexts in an optimiser step, over all processes.
        micro_batch_size: Contexts in one forward of one process; by default what memory can bear (see
            `editloop.offline.trainer.micro_batch`). The next lower divisor of the batch is taken, so that
            it changes no result.
        gradient_checkpointing: Keep fewer activations and compute them again: less memory, more time.
        evaluations: How often in a training the validation loss is looked at; the best state is kept.
        patience: Stop after so many evaluations without a better one.
        warmup: Share of the steps in which the learning rate rises; afterwards it falls linearly.
        full: Train all weights instead of a LoRA adapter.
        lora: The adapter.
        validation: Share of the log that is kept for choosing.
        split_by: See `editloop.edits.split`.
        validation_rows: Most rows of the validation part that are used; the others are left out.
        samples: Responses sampled from each trained candidate on the validation part: they show degenerate
            text, and they are what `select="cost"` chooses by. 0 samples none.
        mixture: What the weights of the mixture are fitted by, on the validation part: the `likelihood` of
            its edits, or the `cost` of sampled responses (by the cost model where there is RL, else against
            the row's edit); `none` fits none, nor does a run of one method.
        cost: The cost's name, for `select="cost"` and the report.
        max_new_tokens: Longest sampled response.
        max_length: As of `editloop.policy.load_base`.
        seed: Decides the split, the adapters' start, the order of the data and the sampling.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    methods: tuple[Method, ...] = ("sft", "dpo", "early")
    learning_rate: Mapping[Method, tuple[float, ...]] = LEARNING_RATES
    beta: Mapping[Method, tuple[float, ...]] = BETAS
    dpo_weight: tuple[float, ...] = (1.0,)
    rl_weight: tuple[float, ...] = (0.0,)
    kappa: tuple[float, ...] = (1.0,)
    rl_loss: tuple[RLLoss, ...] = ("pairwise",)
    candidates: int = Field(default=4, ge=0)
    cost_model: CostModelKind = "ridge"
    select: Literal["loss", "cost"] = "loss"
    sft_reduction: Reduction = "token"
    epochs: float = Field(default=3.0, gt=0)
    rl_epochs: float | None = Field(default=None, gt=0)
    batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    gradient_checkpointing: bool = False
    evaluations: int = Field(default=8, ge=1)
    patience: int = Field(default=3, ge=1)
    warmup: float = Field(default=0.1, ge=0, le=1)
    full: bool = False
    lora: LoraSettings = LoraSettings()
    validation: float = Field(default=0.1, gt=0, lt=1)
    split_by: SplitBy = "record"
    validation_rows: int = Field(default=500, ge=1)
    samples: int = Field(default=64, ge=0)
    mixture: Literal["likelihood", "cost", "none"] = "likelihood"
    cost: str = DEFAULT_COST
    max_new_tokens: int = Field(default=256, ge=1)
    max_length: int | None = Field(default=None, ge=8)
    seed: int = 0

    @field_validator("beta", mode="before")
    @classmethod
    def _for_each_method(cls, values: Any) -> Any:
        return {**BETAS, **values} if isinstance(values, Mapping) else dict.fromkeys(BETAS, values)

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        if not self.methods or len(set(self.methods)) != len(self.methods):
            raise ValueError("methods must be named, each once")
        missing = [m for m in self.methods if not self.learning_rate.get(m)]
        if missing:
            raise ValueError(f"no learning rate for {', '.join(missing)}")
        above = (*self.beta.values(), *self.learning_rate.values())
        if not all(0 < x < math.inf for values in above for x in values):
            raise ValueError("learning rates and beta must be above 0")
        if unknown := set(self.beta) - set(BETAS):
            raise ValueError(f"{min(unknown)} has no beta")
        for name, values in (
            ("dpo_weight", self.dpo_weight),
            ("rl_weight", self.rl_weight),
            ("kappa", self.kappa),
        ):
            if not values or not all(0 <= x < math.inf for x in values):
                raise ValueError(f"{name} needs a value, none below 0")
        for name, given in (("beta", all(self.beta.values())), ("rl_loss", self.rl_loss)):
            if not given:
                raise ValueError(f"{name} needs a value")
        if "cost" in (self.select, self.mixture) and self.samples == 0:
            raise ValueError("select and mixture by cost need samples above 0")
        compared = any(
            len({c.model_copy(update={"learning_rate": 0.0}) for c in self.grid(method)}) > 1
            for method in self.methods
        )
        if self.select == "loss" and compared:
            raise ValueError(
                "losses with different beta, kappa or weights cannot be compared: use select cost"
            )
        return self

    def grid(self, method: Method) -> list[Candidate]:
        """All candidates of a method."""
        none: tuple[float | None, ...] = (None,)
        joint = method == "early"
        plain = product(
            self.learning_rate[method], self.beta.get(method, none), self.dpo_weight if joint else none
        )
        points = []
        for rate, beta, weight in plain:
            point = Candidate(learning_rate=rate, beta=beta, dpo_weight=weight)
            if method == "rl":
                points += [
                    point.model_copy(update={"kappa": kappa, "rl_loss": loss})
                    for kappa, loss in product(self.kappa, self.rl_loss)
                ]
            elif joint:
                for rl_weight in self.rl_weight:
                    rl = product(self.kappa, self.rl_loss, self.beta["rl"]) if rl_weight else ()
                    points += [
                        point.model_copy(
                            update={
                                "rl_weight": rl_weight,
                                "kappa": kappa,
                                "rl_loss": loss,
                                "rl_beta": rl_beta,
                            }
                        )
                        for kappa, loss, rl_beta in rl
                    ] or [point]
            else:
                points.append(point)
        return points

    @property
    def prices(self) -> bool:
        """Whether a method needs the cost model."""
        return "rl" in self.methods or ("early" in self.methods and any(self.rl_weight))


def make_fit_config(**options: object) -> FitConfig:
    """A `FitConfig`; a wrong option is a one-line error.

    Raises:
        ConfigError: An option is unknown or has a wrong value.
    """
    try:
        return FitConfig.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "configuration"
        message = str(first["msg"]).removeprefix("Value error, ")
        raise ConfigError(f"{where}: {message}", seen=first["input"] if first["loc"] else None) from error
