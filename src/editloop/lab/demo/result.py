"""The result of a demo: for each user's log the evaluations of its policies, and the verdict over both."""

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
"""The user whose costs decide: the one who repairs nearly everything that is wrong, and so shows it."""


@dataclass(frozen=True)
class UserResult:
    """The results that follow from the log of one user.

    Attributes:
        log_line: A summary of the log in one line.
        plots: The files of the plots of its costs.
        costs: For each policy the evaluation by each user; the base is among the policies of the first log.
        online: The rounds of LateEnsemble with the strong user.
    """

    log_line: str
    plots: tuple[Path, ...]
    costs: Mapping[str, Mapping[str, Evaluation]]
    online: Simulation


@dataclass(frozen=True)
class DemoResult:
    """The result of a demo.

    Attributes:
        report: The HTML report.
        verdict: Which method to train and serve.
        users: The results by the user who wrote the log.
        seconds: The duration of the demo.
    """

    report: Path
    verdict: Verdict
    users: Mapping[str, UserResult]
    seconds: float

    def table(self) -> list[list[str]]:
        """Return mean cost ± standard error to each user, a row for each policy after the heading.

        What else is known of the drafts, such as how many pass their tests, has a column each.
        """
        base = next(iter(self.users[USERS[0]].costs.values()))[EVALUATOR]
        known = list(base.outcomes)
        rows = [["policy", *(f"cost, {user} user" for user in USERS), "well-formed", *known]]
        for user, found in self.users.items():
            for name, by_user in found.costs.items():
                cells = [f"{by_user[u].mean:.3f} ± {by_user[u].standard_error:.3f}" for u in USERS]
                label = name if name == "base" else f"{name}, {user} log"
                shares = [f"{by_user[EVALUATOR].outcomes[key].mean():.0%}" for key in known]
                rows.append([label, *cells, f"{by_user[EVALUATOR].share_well_formed:.0%}", *shares])
            empty = [""] * (2 + len(known))
            rows.append([f"late, {user} log", f"{found.online.mean:.3f} by round", *empty])
        return rows
