"""The configuration of `fit`, validated when it is made and saved in the run that it produced.

A default, a range and a help text stand in a field and nowhere else: the command's flags, its YAML and its
documentation are generated from the fields. The hyperparameters of a method are defined with the method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, ValidationError, field_validator, model_validator

from editloop.configuration import Configuration, setting
from editloop.edits import SplitBy
from editloop.edits.cost import DEFAULT_COST
from editloop.offline.methods import METHODS, Hyperparameters, Method, Need
from editloop.policy.lora import LoraSettings

if TYPE_CHECKING:
    from editloop.offline.examples import Example

__all__ = ["CostModelKind", "FitConfig", "Reference", "Trial"]

CostModelKind = Literal["ridge", "bootstrap", "tuned", "auto"]
Reference = Literal["base", "logged"]


@dataclass(frozen=True)
class Trial:
    """One point of a method's grid.

    Attributes:
        method: The method.
        hyperparameters: The values at this point, an instance of `method.hyperparameters`.
    """

    method: Method
    hyperparameters: Hyperparameters

    @property
    def name(self) -> str:
        """A short name, unique in the method's grid and safe in a path."""
        return self.hyperparameters.name

    @property
    def loss_key(self) -> tuple[Any, ...]:
        """Trials of a method with equal keys have the same loss, so their validation losses can be compared.

        With another β or weight the loss is another function, and its lowest value says nothing. Trials are
        comparable if they agree in everything but the comparable fields, such as the learning rate.
        """
        model = type(self.hyperparameters)
        fields = [name for name in model.model_fields if not model.extra(name)["comparable"]]
        return tuple(getattr(self.hyperparameters, name) for name in fields)

    def settled(self, examples: Sequence[Example]) -> Trial:
        """The trial with the hyperparameters that follow from the rows of the train part."""
        rows = [example for example in examples if self.method.rows(example)]
        return Trial(self.method, self.method.settled(self.hyperparameters, rows))

    @property
    def needs(self) -> frozenset[Need]:
        """What has to be prepared before the trial can train."""
        return self.method.needs(self.hyperparameters)


METHOD, TRAINING, CHOICE, SAMPLING = (
    "What is learned",
    "Training",
    "Validation and choice",
    "Sampling and cost",
)
"""The sections of the settings in help and documentation."""


class FitConfig(Configuration):
    """The configuration of `editloop fit`. `FitConfig.model_fields` has a description of every field."""

    methods: tuple[str, ...] = setting(
        ("sft", "dpo", "early"), "The methods to train, in this order.", section=METHOD, common=True
    )
    hyperparameters: Mapping[str, Mapping[str, tuple[Any, ...]]] = setting(
        {},
        "For each method the values of its hyperparameters to try, such as {dpo: {beta: [0.1, 1]}}; "
        "hyperparameters that are not named have the method's default grid.",
        section=METHOD,
    )
    reference: Reference = setting(
        "base",
        "π_ref of the losses that have one: the base, or for each row the policy that wrote its draft, where "
        "that is still there (logged). Methods that need a cost model keep the base.",
        section=METHOD,
    )
    start: str | None = setting(
        None,
        "Where the adapters begin: a trained policy, RUN/NAME such as run/early, of the same base with the "
        "same LoRA settings; by default each begins anew on the base. π_ref stays what `reference` says.",
        section=METHOD,
    )
    full: bool = setting(False, "Train all weights instead of a LoRA adapter.", section=METHOD)
    lora: LoraSettings = setting(LoraSettings(), "The LoRA adapter.", section=METHOD)
    epochs: float | None = setting(
        None,
        "Passes over the rows that a method learns from; fractions are allowed. The last step is filled up "
        "from a further pass. By default as many as 60 steps need, but at least 1 and at most 4.",
        section=TRAINING,
        common=True,
        gt=0,
    )
    batch_size: int | None = setting(
        None,
        "Contexts in an optimiser step, over all processes; by default 4 to 32, a sixtieth of the rows.",
        section=TRAINING,
        common=True,
        ge=1,
    )
    micro_batch_size: int | None = setting(
        None,
        "Limit on the contexts in one forward of one process; by default as many as are fast and fit into "
        "memory. The greatest divisor of the batch within the limit is used, and gradients are accumulated.",
        section=TRAINING,
        ge=1,
    )
    gradient_checkpointing: bool = setting(
        False, "Keep fewer activations and recompute them: less memory, more time.", section=TRAINING
    )
    memory: str | None = setting(
        None,
        "The most memory that the fit may use in all, such as 6GB; by default 80% of what is free. "
        "Micro-batches are made smaller, and activations computed twice, to stay within it.",
        section=TRAINING,
        common=True,
    )
    warmup: float = setting(
        0.1,
        "Share of the steps in which the learning rate rises; afterwards it falls linearly.",
        section=TRAINING,
        ge=0,
        le=1,
    )
    seed: int = setting(
        0,
        "Decides the split, the adapters' initial weights, the order of the rows, and the sampling.",
        section=TRAINING,
        common=True,
        ge=0,
        le=2**32 - 1,  # the range of NumPy's global random state, which the library seeds as well
    )
    max_length: int | None = setting(
        None,
        "Limit in tokens of a context and its completion; by default that of the base.",
        section=TRAINING,
        ge=8,
    )
    validation: float = setting(
        0.1, "Share of the log that is kept for validation.", section=CHOICE, common=True, gt=0, lt=1
    )
    split_by: SplitBy = setting(
        "context",
        "How the validation part is split off. The rows of one context, or of one user, stay together.",
        section=CHOICE,
        common=True,
    )
    validation_rows: int = setting(
        500, "Limit on the rows of the validation part; the others are left out.", section=CHOICE, ge=1
    )
    validation_samples: int = setting(
        64,
        "Number of responses sampled from each trained policy on the validation part. They show degenerate "
        "text, and `select: cost` chooses by them. 0 samples none.",
        section=CHOICE,
        ge=0,
    )
    evaluations: int = setting(
        5,
        "How often the validation loss is computed in a training; the best state is kept.",
        section=CHOICE,
        ge=1,
    )
    patience: int = setting(
        3, "Stop after this many evaluations without an improvement.", section=CHOICE, ge=1
    )
    select: Literal["loss", "cost"] = setting(
        "loss",
        "How the best trial of a method is chosen on the validation part: by its validation loss, or by the "
        "mean cost between a sampled response and the row's edit.",
        section=CHOICE,
    )
    halving: bool = setting(
        True,
        "With select: loss, drop the worse half of a method's trials at a quarter of their steps instead of "
        "training all of them to the end.",
        section=CHOICE,
    )
    mixture: Literal["likelihood", "cost", "none"] = setting(
        "likelihood",
        "How the weights of the mixture are fitted on the validation part: by the likelihood of its edits, "
        "or by the cost of sampled responses (estimated where there is a cost model, else against the row's "
        "edit). A run of one method has no mixture.",
        section=CHOICE,
    )
    cost: str = setting(
        DEFAULT_COST, "The name of the cost, for RL, choice and report.", section=SAMPLING, common=True
    )
    num_samples: int | None = setting(
        None,
        "Completions sampled from the reference for each context, for methods that choose among them; by "
        "default 4, and fewer where all of them together could have more than 100,000 tokens.",
        section=SAMPLING,
        ge=0,
    )
    cost_model: CostModelKind = setting(
        "ridge",
        "What predicts costs: ridge regression on the reference's features, bootstrap regressions on them, "
        "ridge on features tuned by an adapter, or auto: the best of the three on the validation part.",
        section=SAMPLING,
    )
    max_new_tokens: int | None = setting(
        None,
        "Limit of a sampled response, in tokens; by default the length that 99% of the log's edits do not "
        "exceed.",
        section=SAMPLING,
        common=True,
        ge=1,
    )

    _lacking: frozenset[Need] = PrivateAttr(frozenset())

    @model_validator(mode="before")
    @classmethod
    def _listed(cls, values: Any) -> Any:
        """Read a single value of a hyperparameter as a list of one."""
        if isinstance(values, Mapping) and isinstance(given := values.get("hyperparameters"), Mapping):
            listed = {
                name: {
                    field: each if isinstance(each, (list, tuple)) else (each,) for field, each in own.items()
                }
                if isinstance(own, Mapping)
                else own
                for name, own in given.items()
            }
            return {**values, "hyperparameters": listed}
        return values

    @field_validator("methods", mode="after")
    @classmethod
    def _known(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        if not methods or len(set(methods)) != len(methods):
            raise ValueError("name at least one method, and each only once")
        for name in methods:
            METHODS.get(name)
        return methods

    @field_validator("hyperparameters", mode="after")
    @classmethod
    def _typed(cls, given: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Mapping[str, tuple[Any, ...]]]:
        """Convert the values to the types of the methods' models; in YAML, 1e-4 is a text."""
        typed: dict[str, dict[str, tuple[Any, ...]]] = {}
        for name, fields in given.items():
            model, typed[name] = METHODS.get(name).hyperparameters, {}
            for field, values in fields.items():
                if not values:
                    raise ValueError(f"{name}.{field} has no value")
                # Pydantic converts and checks each value in a model whose other fields have their defaults.
                try:
                    made = [model.model_validate({field: value}) for value in values]
                except ValidationError as error:
                    known = "" if field in model.model_fields else f"; it has {', '.join(model.model_fields)}"
                    raise ValueError(f"{name}.{field}: {error.errors()[0]['msg']}{known}") from error
                typed[name][field] = tuple(getattr(each, field) for each in made)
        return typed

    @model_validator(mode="after")
    def _check(self) -> FitConfig:
        """Refuse settings that exclude each other, and a choice by figures that are not comparable."""
        if self.full and self.start is not None:
            raise ValueError("with full all weights are trained, and there is no adapter to start from")
        if "cost" in (self.select, self.mixture) and self.validation_samples == 0:
            raise ValueError("select and mixture by cost need validation_samples above 0")
        for name in self.methods if self.select == "loss" else ():
            losses = {trial.loss_key for trial in self.trials(name)}
            if len(losses) > 1:
                raise ValueError(
                    f"the losses of {name} with different hyperparameters cannot be compared: use select cost"
                )
        return self

    def without(self, need: Need) -> FitConfig:
        """The configuration without the trials, and the methods, that need what cannot be had."""
        left = self.model_copy()
        left._lacking = self._lacking | {need}
        return left.model_copy(update={"methods": tuple(name for name in self.methods if left.trials(name))})

    @property
    def added(self) -> set[str]:
        """The settings that earlier versions did not have, where they change nothing.

        What identifies a run, or work that is kept, leaves them out, so that it is found again.
        """
        without = {"reference": "base", "start": None}
        return {name for name, value in without.items() if getattr(self, name) == value}

    @property
    def is_halved(self) -> bool:
        """Whether the worse half of a grid's trials is dropped on the way."""
        # By their losses, so not where the user wants another criterion to decide. The losses of such a grid
        # can be compared: `_check` sees to it.
        return self.halving and self.select == "loss"

    @property
    def longest_response(self) -> int:
        """The limit of a sampled response, in tokens; `fit` takes it from the log if none was given."""
        assert self.max_new_tokens is not None, "the log has not been read yet"
        return self.max_new_tokens

    @property
    def draws(self) -> int:
        """Completions sampled for each context; `fit` decides by the log if no number was given."""
        assert self.num_samples is not None, "the log has not been read yet"
        return self.num_samples

    def trials(self, method: str) -> list[Trial]:
        """All trials of a method: the points of its grid.

        Raises:
            ConfigError: There is no such method.
        """
        part = METHODS.get(method)
        grid = part.hyperparameters.grid(self.hyperparameters.get(method, {}))
        trials = [Trial(part, point) for point in grid]
        return [trial for trial in trials if not trial.needs & self._lacking]

    def changed(self, changes: Mapping[str, Any]) -> FitConfig:
        """The configuration with other values.

        Args:
            changes: By field, or by `method.hyperparameter`: its value, or the values to try.

        Raises:
            ConfigError: There is no such field, or a value is wrong.
        """
        fields = {name: value for name, value in changes.items() if "." not in name}
        given = {name: dict(values) for name, values in self.hyperparameters.items()}
        for name, value in changes.items():
            method, dot, field = name.partition(".")
            if dot:
                given.setdefault(method, {})[field] = value
        # Made anew and not by `model_copy`, which would check nothing.
        made = FitConfig(**{**self.model_dump(), "hyperparameters": given, **fields})
        made._lacking = self._lacking
        return made

    @property
    def needs(self) -> frozenset[Need]:
        """Everything that has to be prepared for the trials."""
        return frozenset().union(*(trial.needs for name in self.methods for trial in self.trials(name)))
