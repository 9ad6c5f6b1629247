"""What a method is: one object in one file that says all that is particular to it.

A method says which rows it learns from, which completions of a context it looks at, what it needs beside the
policy's log-probabilities, its hyperparameters, its loss, and how it is named in a report. The trainer,
`fit`, the configuration, the command and the report know methods by this protocol alone. docs/methods.md adds
one from outside the package.

Nothing here loads torch: a configuration is read without it. A method's file loads it where its loss is.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

if TYPE_CHECKING:
    from torch import Tensor

    from editloop.offline.examples import Completions, Example
    from editloop.offline.methods.batch import Batch, Layout

__all__ = ["Hyperparameters", "Method", "Need", "hyperparameter"]

Need = Literal["reference", "completions", "cost_model"]
"""What is prepared before a method trains: log π_ref of its completions; completions that are sampled from
the reference; their estimated costs."""


def hyperparameter(*grid: Any, symbol: str, description: str, comparable: bool = False, **limits: Any) -> Any:
    """A field of `Hyperparameters`.

    Args:
        *grid: The values that are tried by default; the first is the default of one trial.
        symbol: A short name, for reports and folder names.
        description: What it is, in a sentence, for help and documentation.
        comparable: Whether the validation losses of trials that differ in it can be compared, because it is
            no part of the loss.
        **limits: As of pydantic's `Field`: `gt`, `ge`, `lt`, `le`.
    """
    extra: dict[str, Any] = {"grid": list(grid), "symbol": symbol, "comparable": comparable}
    return Field(default=grid[0], description=description, json_schema_extra=extra, **limits)


class Hyperparameters(BaseModel):
    """The hyperparameters of one trial of a method; a method with more of them adds fields to these."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = hyperparameter(
        1e-4, 3e-4, symbol="lr", description="Learning rate after the warm-up.", comparable=True, gt=0
    )
    epochs: float | None = hyperparameter(
        None,
        symbol="epochs",
        description="Passes over its rows; by default as of the fit.",
        comparable=True,
        gt=0,
    )

    def in_use(self) -> frozenset[str]:
        """The fields that matter at these values; two trials that agree in them are the same trial."""
        return frozenset(type(self).model_fields)

    @classmethod
    def extra(cls, field: str) -> Mapping[str, Any]:
        """What `hyperparameter` was told of a field: its grid, symbol, and whether it is comparable."""
        found = cls.model_fields[field].json_schema_extra
        assert isinstance(found, Mapping)
        return found

    @classmethod
    def grid(cls, values: Mapping[str, Sequence[Any]]) -> list[Self]:
        """Every combination of values, each trial once; fields without values have their default grid.

        Raises:
            pydantic.ValidationError: A field is unknown, or a value out of its range.
        """
        if unknown := set(values) - set(cls.model_fields):
            cls.model_validate(dict.fromkeys(unknown))  # the error names the first
        tried = [values.get(name, cls.extra(name)["grid"]) for name in cls.model_fields]
        trials: dict[tuple[Any, ...], Self] = {}
        for point in product(*tried):
            trial = cls.model_validate(dict(zip(cls.model_fields, point, strict=True)))
            trials.setdefault(tuple(trial.shown().items()), trial)
        return list(trials.values())

    def shown(self) -> dict[str, Any]:
        """The values that matter, by symbol."""
        used = self.in_use()
        return {
            str(self.extra(field)["symbol"]): getattr(self, field)
            for field in type(self).model_fields
            if field in used and getattr(self, field) is not None
        }

    @property
    def name(self) -> str:
        """A short name, unique in its grid and safe in a path."""
        return "-".join(quote(f"{key}{_text(value)}", safe="+") for key, value in self.shown().items())


class Method(ABC):
    """A way to learn a policy from a log.

    Attributes:
        name: How it is called in configurations, folders and commands; lower case.
        title: How it is called in sentences.
        summary: What it does, in one sentence of plain words.
        learns_from: Which rows it cannot do without, in words that follow "needs".
        colour: Of its curves.
        hyperparameters: The model of its hyperparameters.
        roles: Which completions of a context its loss looks at.
        within_context: Whether its loss depends on differences within a context only, so that what all
            completions of a context share need not be counted.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    learns_from: ClassVar[str]
    colour: ClassVar[str] = "#444444"
    hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters
    roles: ClassVar[tuple[str, ...]]
    within_context: ClassVar[bool] = False

    def rows(self, example: Example) -> bool:
        """Whether the method learns from an example."""
        return True

    def suffices(self, examples: Sequence[Example]) -> bool:
        """Whether a part of the log has the rows that the method cannot do without (`learns_from`)."""
        return any(self.rows(example) for example in examples)

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """What has to be prepared before a trial trains."""
        return frozenset()

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The completions that the loss looks at, for each of the examples it learns from [n].

        By default those of `roles`: with costs where they have been estimated and are needed. What has no
        log π_ref in what is returned gets it, if the method needs it.
        """
        estimated = "cost_model" in self.needs(hyperparameters)
        found = []
        for example in examples:
            known = example.sampled if estimated else example.completions
            if known is None:
                raise ValueError(f"{self.name} needs estimated costs, and example {example.id} has none")
            found.append(known.only(*self.roles))
        return found

    def totals(self, layout: Layout) -> Mapping[str, float]:
        """What the loss divides by, counted in a part of a batch; the same names for every part.

        The parts' totals are added up before the loss is asked (`Batch.totals`).
        """
        return layout.totals()

    @abstractmethod
    def loss(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """The loss of a batch, a scalar; with `batch.totals` for divisors, so that parts add up."""

    def validation_figure(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """What early stopping and the choice among trials go by, the lower the better: by default the loss.

        The batch holds the whole validation part, its log-probabilities in float64.
        """
        return self.loss(batch, hyperparameters)

    def report_line(self, hyperparameters: Any) -> str:
        """A trial in a few words, for tables: its numbers, and its choices where they are not the default."""
        usual = type(hyperparameters)().shown()
        return ", ".join(
            f"{key} {_text(value)}"
            for key, value in hyperparameters.shown().items()
            if not isinstance(value, str) or value != usual.get(key)
        )


def _text(value: Any) -> str:
    """A value in few digits; in all of them where fewer would be another number."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short
