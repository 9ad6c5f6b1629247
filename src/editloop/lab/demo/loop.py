"""The loop of the demo: each user's log, the policies trained from it, and what they cost both users.

A base is deployed to a strong and to a weak user. From each log SFT, DPO and EarlyEnsemble are trained, and
every policy then answers fresh contexts for both users. Finally LateEnsemble chooses among them, round by
round, while the strong user edits. The two users' parts do not depend on each other and can run in parallel.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from editloop.edits import LogSummary, Record, get_cost, plot_costs, read_log, summarize, write_log
from editloop.io import write_text
from editloop.lab.demo.page import write_demo_page
from editloop.lab.demo.result import EVALUATOR, USERS, DemoResult, UserResult
from editloop.lab.demo.settings import DemoSettings, quick_settings
from editloop.lab.demo.terminal import plot_text
from editloop.lab.demo.verdict import demo_verdict
from editloop.lab.domains import base_path, get_domain
from editloop.lab.evaluation import Evaluation, evaluate_on_users
from editloop.lab.folder import claim
from editloop.lab.log import stream_log
from editloop.lab.simulation import Simulation, simulate
from editloop.lab.world import LabDomain
from editloop.offline import fit
from editloop.offline.verdict import Verdict
from editloop.online import BanditConfig
from editloop.parallel import RelayedCallback, in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.progress import ProgressCallback, WarningCallback
from editloop.users import get_user

__all__ = ["run_demo"]


@dataclass(frozen=True)
class _Job:
    """The part of a demo that begins with one user's log."""

    user: str
    out: Path
    settings: DemoSettings
    callback: ProgressCallback


def run_demo(
    out: Path,
    settings: DemoSettings | None = None,
    *,
    parallel: bool = False,
    callback: ProgressCallback | None = None,
) -> DemoResult:
    """Run the demo.

    Args:
        out: The folder for the logs, the run folders and the report. An interrupted demo in it goes on.
        settings: How large the demo is; by default `quick_settings()`.
        parallel: Whether each user's log has a process of its own. A script that sets it must be guarded by
            `if __name__ == "__main__"`, because the processes import it.
        callback: Receives decisions and progress.

    Raises:
        RunError: The folder holds another demo.
    """
    started = time.monotonic()
    settings, callback = settings or quick_settings(), callback or WarningCallback()
    claim(out, "demo", {"rows": settings.rows, "seed": settings.seed, "domain": settings.domain})
    plural = get_domain(settings.domain).plural
    callback.message(f"The base writes {settings.rows} {plural} for each of two users, who edit them.")
    callback.message(f"From each user's log {len(settings.config.methods)} policies are trained.")
    users: dict[str, UserResult] = {}
    if parallel:
        jobs = [_Job(user, out, settings, RelayedCallback(f"{user} user: ")) for user in USERS]
        for job, found in in_parallel(_run_user, jobs, "users", callback):
            users[job.user] = found
    else:
        for user in USERS:
            users[user] = _run_user(_Job(user, out, settings, callback))
    users = {user: users[user] for user in USERS}  # processes end in any order
    seconds = time.monotonic() - started
    result = DemoResult(out / "report.html", _verdict(users), users, seconds)
    write_demo_page(result, settings)
    write_text(out / "demo.json", json.dumps(_numbers(result), indent=2) + "\n")
    return result


def _run_user(job: _Job) -> UserResult:
    """Everything that follows from one user's log."""
    settings, callback = job.settings, job.callback
    domain, base = get_domain(settings.domain), load_base(base_path(settings.domain))
    path = job.out / f"{job.user}.jsonl"  # written whole or not at all, so it is complete if it is there
    if not path.is_file():
        editor = get_user(job.user, domain, seed=settings.seed)
        made = stream_log(domain, editor, settings.rows, settings.seed, policy=base)
        write_log(_counted(made, settings.rows, callback), path)
    log = read_log(path)
    summary = summarize(log, cost=get_cost(domain.cost))
    line = log_line(summary)
    callback.message(line)
    seen = summary.sample["cost"][~np.isnan(summary.sample["cost"])]
    if len(seen):
        callback.message(
            "\n".join(
                [f"What the edits of the {job.user} user cost, by share of the rows:", *plot_text(seen)]
            )
        )
    plots = plot_costs(summary, job.out / f"{job.user}-log")
    run = fit(log, base, job.out / job.user, settings.config, report=False, callback=callback)
    names = [*(["base"] if job.user == USERS[0] else []), *run.policy_names()]  # one base for all logs
    costs = _evaluate(run, names, domain, base, settings, callback)
    callback.message(f"LateEnsemble chooses among the policies for {settings.responses} rounds.")
    online = _play(run, domain, base, job, f"{job.user}-{settings.responses}-rounds")
    return UserResult(line, tuple(plots), costs, online)


def _counted(records: Iterable[Record], rows: int, callback: ProgressCallback) -> Iterator[Record]:
    """Pass records on, and report how many there were."""
    for done, record in enumerate(records, 1):
        callback.progress("log", done, rows)
        yield record


def _evaluate(
    run: RunFolder,
    names: Sequence[str],
    domain: LabDomain,
    base: Policy,
    settings: DemoSettings,
    callback: ProgressCallback,
) -> dict[str, dict[str, Evaluation]]:
    """Evaluate these policies of a run with both users, on the same fresh contexts."""
    seed = settings.seed + 1
    editors = [get_user(user, domain, seed=seed) for user in USERS]
    found: dict[str, dict[str, Evaluation]] = {}
    for done, name in enumerate(names):
        callback.progress("evaluation", done, len(names), name)
        with run.policy(name, base) as policy:
            evaluations = evaluate_on_users(policy, domain, editors, settings.responses, seed)
        found[name] = dict(zip(USERS, evaluations, strict=True))
    callback.progress("evaluation", len(names), len(names))
    return found


def _play(run: RunFolder, domain: LabDomain, base: Policy, job: _Job, folder: str) -> Simulation:
    """Play the online phase: LateEnsemble chooses, and the strong user edits."""
    seed = job.settings.seed + 1  # users with another seed than those of the logs
    contexts = list(islice(domain.contexts(seed, stream="online"), job.settings.responses))
    editor = get_user(EVALUATOR, domain, seed=seed)
    config = BanditConfig(cost=domain.cost)
    return simulate(
        run,
        base,
        contexts,
        editor,
        job.out / folder,
        config=config,
        max_new_tokens=domain.max_new_tokens,
        seed=seed,
        callback=job.callback,
    )


def log_line(summary: LogSummary) -> str:
    """Return a summary of a log in one line."""
    cost = summary.all.mean_cost
    if cost is None:
        return f"{summary.rows} rows, none observed"
    return (
        f"{summary.rows} rows, {summary.all.share_edited or 0:.0%} edited, "
        f"mean cost {cost:.3f}, {summary.shared or 0:.0%} of a pair's words shared"
    )


def _verdict(users: Mapping[str, UserResult]) -> Verdict:
    evaluated = {
        user: {name: by_user[EVALUATOR].costs for name, by_user in found.costs.items()}
        for user, found in users.items()
    }
    base = evaluated[USERS[0]]["base"]
    trained = {
        user: {name: costs for name, costs in policies.items() if name != "base"}
        for user, policies in evaluated.items()
    }
    return demo_verdict(base, trained, {user: found.online.mean for user, found in users.items()})


def _numbers(result: DemoResult) -> dict[str, Any]:
    """The result as plain data, for `demo.json`."""
    return {
        "seconds": round(result.seconds, 1),
        "verdict": result.verdict.headline,
        "costs": {
            user: {
                name: {
                    by: {"mean": e.mean, "se": e.standard_error, "well_formed": e.share_well_formed}
                    for by, e in by_user.items()
                }
                for name, by_user in found.costs.items()
            }
            for user, found in result.users.items()
        },
        "online": {
            user: {
                "mean": found.online.mean,
                "shares": {arm: found.online.share(arm) for arm in found.online.bandit.arms},
            }
            for user, found in result.users.items()
        },
    }
