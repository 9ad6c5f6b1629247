"""What a demo comes to: for each user's log the evaluations of its policies, and the verdict over both."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from editloop.lab.evaluation import Evaluation
from editloop.lab.simulation import Simulation
from editloop.offline.verdict import Verdict

__all__ = ["EVALUATOR", "USERS", "DemoResult", "UserResult"]

USERS = ("strong", "weak")

EVALUATOR = "strong"
"""The user whose costs decide: the one who repairs nearly all that is wrong."""


@dataclass(frozen=True)
class UserResult:
    """What the log of one user came to.

    Attributes:
        log_line: The log in a line.
        plots: Pictures of its costs.
        costs: For each policy the evaluation by each user; the base is among those of the first log.
        online: The rounds of LateEnsemble with the strong user.
    """

    log_line: str
    plots: tuple[Path, ...]
    costs: Mapping[str, Mapping[str, Evaluation]]
    online: Simulation


@dataclass(frozen=True)
class DemoResult:
    """What a demo came to.

    Attributes:
        report: The HTML report.
        verdict: Which method to train and serve.
        users: For each log's user, what came of the log.
        seconds: How long it took.
    """

    report: Path
    verdict: Verdict
    users: Mapping[str, UserResult]
    seconds: float

    def table(self) -> list[list[str]]:
        """Mean cost ± standard error to each user; a row for each policy, the heading first."""
        rows = [["policy", *(f"cost, {user} user" for user in USERS), "well-formed"]]
        for user, found in self.users.items():
            for name, by_user in found.costs.items():
                cells = [f"{by_user[u].mean:.3f} ± {by_user[u].standard_error:.3f}" for u in USERS]
                label = name if name == "base" else f"{name}, {user} log"
                rows.append([label, *cells, f"{by_user[EVALUATOR].share_well_formed:.0%}"])
            rows.append([f"late, {user} log", f"{found.online.mean:.3f} by round", "", ""])
        return rows
