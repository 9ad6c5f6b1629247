"""The protocol of a method: one object in one file that defines everything particular to the method.

A method defines which rows it learns from, which completions of a context its loss looks at, what it needs
beside the policy's log-probabilities, its hyperparameters, its loss, and its line in a report. The trainer,
`fit`, the configuration, the command and the report know methods by this protocol alone. docs/methods.md
shows how to add a method from outside the package.

Nothing here imports torch, because a configuration is read without it. A method imports torch inside its
loss.
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

__all__ = ["Hyperparameters", "Method", "Need", "hyperparameter", "learning_rate"]

Need = Literal["reference", "cost_model", "cost"]
"""What a method may need before it trains: log π_ref of its completions; completions sampled from the
reference, with estimated costs of them, the edit and the response; what the edit of each response cost."""


def hyperparameter(*grid: Any, symbol: str, description: str, comparable: bool = False, **limits: Any) -> Any:
    """Define a field of `Hyperparameters`.

    Args:
        *grid: The values that a fit tries by default; the first is the field's default.
        symbol: A short name for reports and folders.
        description: A sentence for help and documentation.
        comparable: Whether the validation losses of trials that differ in this field can be compared, because
            the field is not part of the loss.
        **limits: Limits as pydantic's `Field` takes them: `gt`, `ge`, `lt`, `le`.
    """
    extra: dict[str, Any] = {"grid": list(grid), "symbol": symbol, "comparable": comparable}
    return Field(default=grid[0], description=description, json_schema_extra=extra, **limits)


def learning_rate(*grid: float) -> Any:
    """The field `learning_rate`, for a method whose grid of it is its own."""
    description = "Learning rate after the warm-up."
    return hyperparameter(*grid, symbol="lr", description=description, comparable=True, gt=0)


class Hyperparameters(BaseModel):
    """The hyperparameters of one trial of a method. A method with more hyperparameters adds fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = learning_rate(5e-4, 2e-3)
    epochs: float | None = hyperparameter(
        None,
        symbol="epochs",
        description="Passes over the method's rows; by default those of the fit.",
        comparable=True,
        gt=0,
    )

    def in_use(self) -> frozenset[str]:
        """Names of the fields that have an effect at these values.

        Two points of a grid that agree in them are the same trial, which is trained once.
        """
        return frozenset(type(self).model_fields)

    @classmethod
    def extra(cls, field: str) -> Mapping[str, Any]:
        """The grid, the symbol and the comparability of a field, as `hyperparameter` was given them."""
        found = cls.model_fields[field].json_schema_extra
        assert isinstance(found, Mapping)
        return found

    @classmethod
    def grid(cls, values: Mapping[str, Sequence[Any]]) -> list[Self]:
        """All distinct trials among the combinations of values.

        Args:
            values: For each field the values to try; the other fields have their default grid.

        Raises:
            pydantic.ValidationError: A field is unknown, or a value out of its range.
        """
        if unknown := set(values) - set(cls.model_fields):
            cls.model_validate(dict.fromkeys(unknown))  # raises pydantic's error for an unknown field
        tried = [values.get(name, cls.extra(name)["grid"]) for name in cls.model_fields]
        trials: dict[tuple[Any, ...], Self] = {}
        for point in product(*tried):
            trial = cls.model_validate(dict(zip(cls.model_fields, point, strict=True)))
            # Points that differ only in fields without an effect are one trial; the first of them is kept.
            trials.setdefault(tuple(trial.shown().items()), trial)
        return list(trials.values())

    def shown(self) -> dict[str, Any]:
        """The values that have an effect, by symbol."""
        used = self.in_use()
        return {
            str(self.extra(field)["symbol"]): getattr(self, field)
            for field in type(self).model_fields
            if field in used and getattr(self, field) is not None
        }

    @property
    def name(self) -> str:
        """A short name, unique in the grid and safe in a path."""
        # The name becomes a folder. Percent-encoding keeps a text value from holding a slash or a space.
        return "-".join(quote(f"{key}{_text(value)}", safe="+") for key, value in self.shown().items())


class Method(ABC):
    """A way to learn a policy from a log.

    Attributes:
        name: The name in configurations, folders and commands; lower case.
        title: The name in sentences.
        summary: What the method does, in plain words that follow its name.
        learns_from: The rows that the method cannot do without, in words that follow "needs".
        colour: The colour of its curves.
        hyperparameters: The model of its hyperparameters.
        roles: The roles of the completions that its loss looks at.
        within_context: Whether the loss depends only on differences between completions of the same context.
            The tokens that all completions of a context share are then left out of the log-probabilities.
        forward_matters: Whether the result depends on which contexts share a forward. Then the micro-batch is
            a part of what is learned, and memory does not decide it.
        log_squares: Whether the loss looks at `Batch.log_squares`, which are computed in training alone.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    summary: ClassVar[str]
    learns_from: ClassVar[str]
    colour: ClassVar[str] = "#444444"
    hyperparameters: ClassVar[type[Hyperparameters]] = Hyperparameters
    roles: ClassVar[tuple[str, ...]]
    within_context: ClassVar[bool] = False
    forward_matters: ClassVar[bool] = False
    log_squares: ClassVar[bool] = False

    def rows(self, example: Example) -> bool:
        """Whether the method learns from an example; by default from all."""
        return True

    def suffices(self, examples: Sequence[Example]) -> bool:
        """Whether a part of the log has the rows that the method cannot do without (`learns_from`)."""
        return any(self.rows(example) for example in examples)

    def needs(self, hyperparameters: Any) -> frozenset[Need]:
        """What has to be prepared before a trial with these hyperparameters trains; by default nothing."""
        return frozenset()

    def settled(self, hyperparameters: Any, examples: Sequence[Example]) -> Any:
        """The hyperparameters with which a trial trains, some of which may follow from the rows.

        Args:
            hyperparameters: The trial's hyperparameters, as the configuration has them.
            examples: The examples of the train part for which `rows` is true.
        """
        return hyperparameters

    def completions(self, examples: Sequence[Example], hyperparameters: Any) -> list[Completions]:
        """The completions that the loss looks at, for each example that the method learns from.

        By default those with the method's `roles`, with estimated costs if the method needs them. Completions
        that are returned without log π_ref get it afterwards where it is needed (`trial_rows`).

        Args:
            examples: The examples for which `rows` is true [n].
            hyperparameters: The trial's hyperparameters.

        Raises:
            ValueError: Estimated costs are needed, and an example has none.
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
        """What the loss divides by, counted in one part of an optimiser step; every part has the same names.

        The totals of the parts are added up before the loss is computed (`Batch.totals`).
        """
        return layout.totals()

    @abstractmethod
    def loss(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """The loss of a batch, a scalar. It divides by `batch.totals`, so that the parts of a step add up."""

    def validation_figure(self, batch: Batch, hyperparameters: Any) -> Tensor:
        """The figure that early stopping and the choice among trials minimise; by default the loss.

        The batch holds the whole validation part, with log-probabilities in float64.
        """
        return self.loss(batch, hyperparameters)

    def report_line(self, hyperparameters: Any) -> str:
        """A trial in a few words, for tables: its numbers, and those choices that are not the default."""
        usual = type(hyperparameters)().shown()
        return ", ".join(
            f"{key} {_text(value)}"
            for key, value in hyperparameters.shown().items()
            if not isinstance(value, str) or value != usual.get(key)
        )


def _text(value: Any) -> str:
    """A value as text: a float in six digits, or in as many as it takes to tell it from others."""
    short = f"{value:g}" if isinstance(value, float) else str(value)
    return repr(value) if isinstance(value, float) and float(short) != value else short
