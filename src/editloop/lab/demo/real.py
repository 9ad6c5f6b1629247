"""The loop of the demo on a real base: its drafts, people's or a rule user's edits, policies, drafts again.

A base answers tasks of the lab's free texts, and a rule user edits. From this log, or from a log of real
edits, policies are trained. They and the base answer contexts that are in no log; and if there is a user,
LateEnsemble chooses among the base and the policies, round by round.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from editloop.edits import Log, Record, context_text, get_cost, read_log, write_log
from editloop.errors import ConfigError
from editloop.lab.domains import free_texts
from editloop.lab.drafts import KeptDrafts
from editloop.lab.evaluation import Evaluation, evaluate_on_users
from editloop.lab.folder import claim
from editloop.lab.free import FreeTexts
from editloop.lab.log import stream_log
from editloop.lab.settings import REAL_TRAINING
from editloop.lab.simulation import Simulation, simulate
from editloop.offline import FitConfig, fit
from editloop.policy import Policy, RunFolder
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.users import get_user

__all__ = ["RealDemoResult", "RealDemoSettings", "run_real_demo"]


@dataclass(frozen=True)
class RealDemoSettings:
    """The settings of a demo on a real base.

    Attributes:
        rows: The number of rows of the rule user's log.
        responses: The number of contexts that every policy answers at the end.
        rounds: The number of rounds of the online phase.
        config: How the policies are trained.
        domain: The domain whose free texts are used.
        user: The user who edits.
        seed: The seed of the contexts, the drafts and the edits.
    """

    rows: int = 96
    responses: int = 16
    rounds: int = 24
    config: FitConfig = REAL_TRAINING
    domain: str = "email"
    user: str = "strong"
    seed: int = 0


@dataclass(frozen=True)
class RealDemoResult:
    """The result of a demo on a real base.

    Attributes:
        costs: For the base and each policy, its drafts of the contexts that are in no log, and their edits.
        online: The rounds of the online phase; None on a log of one's own, whose users cannot be asked.
        seconds: The duration of the demo.
    """

    costs: Mapping[str, Evaluation]
    online: Simulation | None
    seconds: float

    @property
    def best(self) -> str:
        """The trained policy whose drafts cost least."""
        return min((name for name in self.costs if name != "base"), key=lambda name: self.costs[name].mean)


def run_real_demo(
    base: Policy,
    out: Path,
    settings: RealDemoSettings | None = None,
    *,
    log: Iterable[Record] | None = None,
    callback: ProgressCallback | None = None,
) -> RealDemoResult:
    """Run the demo.

    Args:
        base: The base.
        out: The folder for the log, the drafts and the run folder. An interrupted demo in it goes on.
        settings: How large the demo is.
        log: A log of edits that people made, in place of the rule user's.
        callback: Receives decisions and progress.

    Raises:
        ConfigError: The log has too few contexts to keep some back.
        RunError: The folder holds another demo.
    """
    started = time.monotonic()
    settings, callback = settings or RealDemoSettings(), callback or WarningCallback()
    about = {name: getattr(settings, name) for name in ("rows", "domain", "user", "seed")}
    claim(out, "demo", {**about, "base": base.fingerprint, "own_log": log is not None})
    if log is not None:
        training, held_out = _kept_back(log, settings.responses)
        run = fit(training, base, out / "run", settings.config, callback=callback)
        found = {
            name: _distances(writer, held_out, run.manifest().config.max_new_tokens, callback, name)
            for name, writer in _writers(run, base, out)
        }
        return RealDemoResult(found, None, time.monotonic() - started)
    world = free_texts(settings.domain)
    run = fit(
        _log(world, base, out, settings, callback), base, out / "run", settings.config, callback=callback
    )
    found = {
        name: evaluate_on_users(
            writer,
            world,
            [get_user(settings.user, world, seed=settings.seed + 1)],
            settings.responses,
            settings.seed + 1,
            cost=get_cost(),
            progress=counter(callback, f"drafts of {name}", settings.responses),
        )[0]
        for name, writer in _writers(run, base, out)
    }
    online = _rounds(run, base, world, out, settings, callback)
    return RealDemoResult(found, online, time.monotonic() - started)


def _log(
    world: FreeTexts, base: Policy, out: Path, settings: RealDemoSettings, callback: ProgressCallback
) -> Log:
    """The rule user's log; drafts that an interrupted demo has drawn are not drawn again."""
    path = out / "log.jsonl"  # written whole or not at all
    if not path.is_file():
        writer = KeptDrafts(base, out / "drafts.jsonl", _name(base))
        editor = get_user(settings.user, world, seed=settings.seed)
        made = stream_log(world, editor, settings.rows, settings.seed, policy=writer)
        write_log(_counted(made, settings.rows, callback), path)
    log = read_log(path)
    cut = sum(record.metadata.get("finished") is False for record in log)
    if cut:
        callback.message(f"{cut} of {settings.rows} drafts were cut at {world.max_new_tokens} tokens.")
    return log


def _counted(records: Iterable[Record], rows: int, callback: ProgressCallback) -> Iterator[Record]:
    for done, record in enumerate(records, 1):
        callback.progress("drafts and their edits", done, rows)
        yield record


def _writers(run: RunFolder, base: Policy, out: Path) -> Iterator[tuple[str, KeptDrafts]]:
    """The base and the policies of a run, each loaded while it is used."""
    identity = run.manifest().identity
    for name in ("base", *run.policy_names()):
        with run.policy(name, base) as policy:
            yield name, KeptDrafts(policy, out / "drafts.jsonl", f"{_name(base)} {identity} {name}")


def _name(base: Policy) -> str:
    return f"{base.fingerprint} {base.generation}"


def _rounds(
    run: RunFolder,
    base: Policy,
    world: FreeTexts,
    out: Path,
    settings: RealDemoSettings,
    callback: ProgressCallback,
) -> Simulation:
    """Play the online phase: LateEnsemble chooses, and the user edits."""
    seed = settings.seed + 1
    contexts = list(islice(world.contexts(seed, stream="online"), settings.rounds))
    editor = get_user(settings.user, world, seed=seed)
    return simulate(
        run,
        base,
        contexts,
        editor,
        out / "rounds",
        arms=["base", *run.policy_names()],
        seed=seed,
        max_new_tokens=world.max_new_tokens,
        callback=callback,
    )


def _kept_back(log: Iterable[Record], n: int) -> tuple[list[Record], list[Record]]:
    """The rows to learn from, and one row of each of the last n contexts, of which none is learned from."""
    rows = [record for record in log if record.edit is not None]
    contexts = list(dict.fromkeys(record.context for record in rows))
    if len(contexts) < 2 * n:
        raise ConfigError("the log has too few contexts", seen=len(contexts), do=f"give at least {2 * n}")
    held_out = set(contexts[-n:])
    chosen = {record.context: record for record in rows if record.context in held_out}
    return [record for record in rows if record.context not in held_out], list(chosen.values())


def _distances(
    writer: KeptDrafts, rows: Sequence[Record], limit: int, callback: ProgressCallback, name: str
) -> Evaluation:
    """A policy's drafts beside what people made of another draft: the cost of turning one into the other."""
    contexts = tuple(context_text(record.context) for record in rows)
    edits = tuple(record.edit or "" for record in rows)
    samples = writer.sample(
        [record.context for record in rows],
        seed=0,
        max_new_tokens=limit,
        progress=counter(callback, f"drafts of {name}", len(rows)),
    )
    drafts = tuple(sample.text for sample in samples)
    finished = np.array([sample.finished for sample in samples])
    return Evaluation(contexts, drafts, edits, get_cost()(drafts, edits), finished)
