"""The content of `run.json` as typed records, and how the content of an older version is read as one.

A number that was not finite is null in JSON and None here. Code that reads a run folder reads these fields;
none looks into the JSON itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editloop.edits.cost import PAPER_COST
from editloop.errors import RunError
from editloop.io import UnsafeJSONError, parse_json

__all__ = [
    "FORMAT",
    "BaseRecord",
    "ConfigRecord",
    "CostModelRecord",
    "DataRecord",
    "Figure",
    "Manifest",
    "MixtureRecord",
    "PartRecord",
    "PolicyRecord",
    "ReadRecord",
    "SampleRecord",
    "SamplesRecord",
    "TrialRecord",
    "read_manifest",
    "upgraded",
]

FORMAT = 2
"""The format of `run.json`. In format 1 a method's trials were called `candidates`, and their hyperparameters
stood among their figures."""


class _Record(BaseModel):
    # A field that a later release adds to the same format is ignored; a value of another type is damage.
    model_config = ConfigDict(extra="ignore", strict=True)


class Figure(_Record):
    """A mean with its standard error and the number of rows; for a share also its 95% interval."""

    mean: float | None = None
    se: float | None = None
    n: int | None = None
    interval: list[float] | None = None


class SampleRecord(_Record):
    """A sampled response beside the row's edit."""

    context: str
    sample: str
    edit: str
    cost: float | None = None
    finished: bool = True


class SamplesRecord(_Record):
    """What sampled responses of a policy look like (`editloop.offline.SampleCheck`)."""

    cost: Figure
    looping: float | None = None
    unfinished: float | None = None
    length_ratio: float | None = None
    empty: float | None = 0.0
    non_answers: float | None = None
    edits_non_answers: float | None = None
    examples: list[SampleRecord] = Field(default_factory=list)


class TrialRecord(_Record):
    """One trial of a method.

    Attributes:
        hyperparameters: The hyperparameters by name.
        settings: The hyperparameters in a few words, from `Method.report_line`.
        initial_loss: The method's validation figure before training: of the base, or of the run's `start`.
        validation_loss: The validation figure of the trained policy.
        validation_cost: Mean cost between a sampled response and the row's edit.
        validation: The figures that all methods have, by name.
        sampled: What sampled responses look like.
        steps: Number of optimiser steps.
        best_step: The step whose weights were kept.
        dropped: Whether it was stopped at `steps`, because other trials of the grid were better there.
        seconds: Duration of the training.
        history: What the trainer logged, by step.
    """

    hyperparameters: dict[str, Any] = Field(default_factory=dict)
    settings: str = ""
    initial_loss: float | None = None
    validation_loss: float | None = None
    validation_cost: float | None = None
    validation: dict[str, Figure | None] = Field(default_factory=dict)
    sampled: SamplesRecord | None = None
    steps: int = 0
    best_step: int | None = None
    dropped: bool = False
    seconds: float = 0.0
    history: list[dict[str, float | None]] = Field(default_factory=list)


class PolicyRecord(_Record):
    """A trained policy: the trials of its method, and which was chosen."""

    chosen: int = Field(default=0, ge=0)
    selected_by: str = "loss"
    alarms: list[str] = Field(default_factory=list)
    trials: list[TrialRecord] = Field(min_length=1)

    def model_post_init(self, _: Any) -> None:
        """Check that the chosen trial exists."""
        if self.chosen >= len(self.trials):
            raise ValueError("chosen is not one of the trials")

    @property
    def best(self) -> TrialRecord:
        """The chosen trial."""
        return self.trials[self.chosen]


class BaseRecord(_Record):
    """The base, and how it was loaded."""

    name: str
    fingerprint: str
    max_length: int | None = None
    end_token: str | None = None
    quantize: str | None = None
    dtype: str | None = None
    trust_remote_code: bool = False
    decisions: list[str] = Field(default_factory=list)
    sampled: SamplesRecord | None = None


class ReadRecord(_Record):
    """The log that was read; whose rows, if not of all users; of a store also up to when, and which it is."""

    path: str | None = None
    sha256: str | None = None
    rows: int | None = None
    until: float | None = None
    store: str | None = None
    users: list[str] | None = None


class PartRecord(_Record):
    """A part of the log: the number of examples and of pairs, and rows by what happened to them."""

    examples: int
    pairs: int
    counts: dict[str, int] = Field(default_factory=dict)


class DataRecord(_Record):
    """The two parts of the log."""

    train: PartRecord
    validation: PartRecord


class ConfigRecord(BaseModel):
    """The saved configuration (`editloop.offline.FitConfig`); fields that are read again stand here."""

    model_config = ConfigDict(extra="allow")

    cost: str = PAPER_COST
    max_new_tokens: int = 256


class MixtureRecord(_Record):
    """The fitted mixture (`editloop.offline.Mixture`)."""

    weights: dict[str, float]
    errors: dict[str, float | None] = Field(default_factory=dict)
    by: Literal["likelihood", "cost"] = "likelihood"
    rows: int = 0
    objective: float | None = None
    single: dict[str, float | None] = Field(default_factory=dict)
    curve: list[float | None] = Field(default_factory=list)


class FidelityRecord(_Record):
    """How well costs were predicted (`editloop.offline.Fidelity`)."""

    rows: int
    r2: float | None = None
    pearson: float | None = None
    spearman: float | None = None
    covered: list[float]


class CrossValidationRecord(_Record):
    """The share of the costs' variance that is predicted in new contexts, with its 95% interval."""

    r2: float | None = None
    low: float | None = None
    high: float | None = None
    contexts: int


class CostModelRecord(_Record):
    """The cost model, and how well it predicts beside baselines that know only the length, or nothing."""

    kind: str
    settings: dict[str, Any]
    noise: float | None = None
    unit: float
    cross_validated: CrossValidationRecord | None = None
    model: FidelityRecord
    length: FidelityRecord
    mean: FidelityRecord
    tried: dict[str, FidelityRecord] = Field(default_factory=dict)


class Manifest(_Record):
    """The content of `run.json`.

    `policies` is in the order in which they were trained; `start` is the arm at whose adapter their trainings
    began, None for the base; `declined` says of a method that was asked for why it, or a part of its trials,
    was not trained.
    """

    format: int = FORMAT
    status: Literal["running", "done"] = "running"
    identity: str = ""
    read: ReadRecord = Field(default_factory=ReadRecord)
    data: DataRecord | None = None
    base: BaseRecord
    start: str | None = None
    config: ConfigRecord = Field(default_factory=ConfigRecord)
    policies: dict[str, PolicyRecord] = Field(default_factory=dict)
    mixture: MixtureRecord | None = None
    cost_model: CostModelRecord | None = None
    declined: dict[str, str] = Field(default_factory=dict)
    versions: dict[str, str] = Field(default_factory=dict)


HYPERPARAMETERS_1 = ("learning_rate", "beta", "dpo_weight", "kappa", "rl_weight", "rl_beta", "rl_loss")
"""The hyperparameters that stood among the figures of a trial in format 1."""


def upgraded(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a `run.json` of any known format, in the current format."""
    if content.get("format") != 1:
        return dict(content)
    policies = {}
    for name, policy in content["policies"].items():
        trials = []
        for candidate in policy["candidates"]:
            values = {key: candidate[key] for key in HYPERPARAMETERS_1 if candidate.get(key) is not None}
            rest = {key: value for key, value in candidate.items() if key not in HYPERPARAMETERS_1}
            settings = ", ".join(f"{key} {value}" for key, value in values.items())
            trials.append({**rest, "hyperparameters": values, "settings": settings})
        rest = {key: value for key, value in policy.items() if key != "candidates"}
        policies[name] = {**rest, "trials": trials}
    return {**content, "format": FORMAT, "policies": policies}


def read_manifest(path: Path) -> Manifest:
    """Read a `run.json` of any known format.

    Raises:
        RunError: It is damaged, or a newer version wrote it.
    """
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
        _check_texts(content)
        if not isinstance(content, dict):
            raise ValueError("not an object")
        if content.get("format") not in range(1, FORMAT + 1):
            do = f"expected up to {FORMAT}; a newer version of editloop may read it"
            raise RunError("run.json has another format", seen=content.get("format"), do=do)
        return Manifest.model_validate(upgraded(content))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"run.json is damaged{_reason(error)}", seen=str(path.parent), do="fit again into a new folder"
        ) from error


def _check_texts(content: Any) -> None:
    """Refuse half of a surrogate pair, which JSON can escape but no file or HTTP response can hold."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UnsafeJSONError("a text in it is not Unicode") from error


def _reason(error: Exception) -> str:
    """Where a manifest is wrong, for an error message."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f", {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if isinstance(error, KeyError):  # of what an older version wrote
        return f", {error.args[0]}: missing"
    if isinstance(error, TypeError | AttributeError):
        return ", policies: not as an older version wrote them"
    return f", {error}" if isinstance(error, UnsafeJSONError) else ""
