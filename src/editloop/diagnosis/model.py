"""What a diagnosis is made of: findings, which are estimates with intervals, and advice."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from editloop.estimates import Estimate

__all__ = ["Advice", "Diagnosis", "Estimate", "Finding"]


@dataclass(frozen=True)
class Finding:
    """One of the quantities that decide which method wins.

    Attributes:
        name: The quantity's name.
        estimate: Its estimate; None where this log cannot tell.
        unit: The unit of the estimate.
        explanation: What the quantity is, or why it is not known.
        needs: What to log, or which flag to give, so that it can be estimated.
    """

    name: str
    estimate: Estimate | None
    unit: str
    explanation: str
    needs: str | None = None


@dataclass(frozen=True)
class Advice:
    """Which method to train.

    Attributes:
        method: `sft`, `dpo` or `early`.
        confidence: `low`, `medium` or `high`.
        reasons: Why this method, and why with this confidence.
    """

    method: str
    confidence: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """The diagnosis of a log.

    Attributes:
        rows: The number of records.
        answered: The number of them that were edited or accepted.
        edited: The number of those that were changed.
        cost: The name of the cost.
        findings: The findings, in the order in which they are printed.
        advice: What to train.
    """

    rows: int
    answered: int
    edited: int
    cost: str
    findings: tuple[Finding, ...]
    advice: Advice

    def __getitem__(self, name: str) -> Finding:
        """Return a finding by its name.

        Raises:
            KeyError: There is no finding of that name.
        """
        for each in self.findings:
            if each.name == name:
                return each
        raise KeyError(name)

    def to_json(self) -> dict[str, Any]:
        """Return the diagnosis as JSON types."""
        findings = [
            asdict(each) | {"estimate": None if each.estimate is None else each.estimate._asdict()}
            for each in self.findings
        ]
        return asdict(self) | {"findings": findings}
