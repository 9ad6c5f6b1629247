"""Ten generations of 300 rounds: does a loop that fits again and again compound, and what do its gates save?

Twenty users of a domain of the lab ask in random order. In the first 300 rounds the base writes. Then:

- `autopilot`: after each generation a policy is fitted on all rows so far, and goes through gates, shadow and
  canary by the autopilot's own decisions; the bandit chooses among the arms;
- `one-shot`: the paper's way: SFT, DPO and EarlyEnsemble are fitted once, on the first 300 rows, and
  LateEnsemble chooses among them from then on;
- `replace`: after each generation a policy is fitted on all rows, and replaces the last one, without gates.

The oracle plays, in each generation, whichever of the autopilot's policies would cost least in it. In a
poisoned run the edits of the fourth fit are shuffled among its rows.
"""

from __future__ import annotations

import json
import math
import random
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks import WORK
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import (
    ShadowPair,
    adopt,
    canary_of,
    crown,
    judge_alarms,
    judge_arms,
    judge_canary,
    judge_shadow,
)
from editloop.autopilot.gates import FittedPolicy, gate_objections
from editloop.autopilot.stages import PLAYED, Lineage, Stage, Stages, Transition
from editloop.autopilot.triggers import EARLY_SHARE
from editloop.autopilot.watch import Round, Watch
from editloop.edits import Record, get_cost
from editloop.io import write_json
from editloop.lab import LabDomain, base_path, fit_settings, get_domain
from editloop.lab.folder import claim
from editloop.lab.grammar import MAX_NEW_TOKENS
from editloop.lab.settings import COST
from editloop.offline import FitConfig, fit
from editloop.online import Bandit, BanditConfig
from editloop.online.events import Arms
from editloop.parallel import in_parallel
from editloop.policy import Policy, RunFolder, load_base
from editloop.policy.catalog import validation
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.users import get_user

__all__ = ["POPULATIONS", "STRATEGIES", "Game", "Settings", "play", "run"]

POPULATIONS = {
    "weak": ("weak",),
    "medium": ("medium",),
    "strong": ("strong",),
    "mixed": ("strong", "medium", "light", "weak"),
}
STRATEGIES = ("autopilot", "one-shot", "replace")
USERS, GENERATIONS, ROUNDS = 20, 10, 300
POISONED = 4
"""The fit whose edits are shuffled in a poisoned run."""

STEPS, BATCH = 150, 16
"""The most optimiser steps of a fit, and the contexts of each: a generation takes about half a minute."""


class Settings(NamedTuple):
    """How large the games are; tests play small ones.

    Attributes:
        folder: Where games are kept.
        generations: The number of generations, the base's included.
        rounds: The rounds of each.
        steps: As `STEPS`.
        changes: Further changes of the configuration of the fit.
    """

    folder: Path = WORK / "generations"
    generations: int = GENERATIONS
    rounds: int = ROUNDS
    steps: int = STEPS
    changes: tuple[tuple[str, Any], ...] = ()

    def config(self, domain: str, rows: int, methods: Sequence[str], seed: int) -> FitConfig:
        """The configuration of a fit on so many rows."""
        epochs = min(8.0, self.steps * BATCH / rows)
        changes = {"methods": tuple(methods), "epochs": epochs, "batch_size": BATCH, "mixture": "none"}
        changes |= {"validation_samples": 32, **dict(self.changes)}
        return fit_settings(domain, seed=seed).changed(changes)

    @property
    def autopilot(self) -> AutopilotConfig:
        """What the autopilot does: its canary fits into the rounds of a generation."""
        return AutopilotConfig(
            shadow_share=0.5,
            shadow_rounds=min(20, self.rounds // 4),
            canary_share=0.4,
            canary_rounds=max(20, self.rounds * 2 // 5),
            canary_unit="user",
        )


class Game(NamedTuple):
    """A strategy that is played with a population.

    Attributes:
        domain: Name of the domain.
        population: Name of the population.
        seed: The seed of everything.
        strategy: One of `STRATEGIES`.
        poisoned: Whether the edits of one fit are shuffled.
    """

    domain: str
    population: str
    seed: int
    strategy: str
    poisoned: bool = False

    @property
    def folder(self) -> str:
        """The game's folder in that of all games."""
        poison = "-poisoned" if self.poisoned else ""
        return f"{self.domain}-{self.population}-{self.seed}-{self.strategy}{poison}"


class _Table:
    """A game under way: the rounds so far, the policies and their drafts."""

    def __init__(self, game: Game, settings: Settings, folder: Path) -> None:
        self.game, self.settings, self.folder = game, settings, folder
        self.domain: LabDomain = get_domain(game.domain)
        self.base = load_base(f"lab:{game.domain}")
        self.cost = get_cost(COST)
        kinds = POPULATIONS[game.population]
        self.users = {
            f"u{i}": get_user(kinds[i % len(kinds)], self.domain, seed=100 * game.seed + i)
            for i in range(USERS)
        }
        self.draws = random.Random(game.seed)
        self.activity = [self.draws.gammavariate(2.0, 1.0) for _ in self.users]
        self.contexts = self.domain.contexts(game.seed, stream="generations")
        self.runs: dict[str, tuple[Path, str]] = {}
        self.records: list[Record] = []
        self.rounds: list[Round] = []
        self.costs: list[float] = []
        self.oracle: list[float] = []
        self.fits = 0

    # The rounds of a generation

    def deal(self) -> None:
        """Choose who asks what in the next generation."""
        n = self.settings.rounds
        self.asked = list(islice(self.contexts, n))
        self.askers = self.draws.choices(list(self.users), self.activity, k=n)
        self._drafts: dict[tuple[str, int], list[Any]] = {}

    def drafts(self, arm: str, draw: int = 0) -> list[Any]:
        """A draft of a policy for each request of the generation; another draw gives others."""
        if (arm, draw) not in self._drafts:
            seed = 1_000_003 * self.game.seed + len(self.rounds) // self.settings.rounds * 10 + draw
            with self._policy(arm) as policy:
                made = policy.sample(self.asked, seed=seed, max_new_tokens=MAX_NEW_TOKENS)
            self._drafts[arm, draw] = made
        return self._drafts[arm, draw]

    def _policy(self, arm: str) -> AbstractContextManager[Policy]:
        if arm == "base@0":
            return nullcontext(self.base)
        path, name = self.runs[arm]
        return RunFolder(path).policy(name, self.base)

    def edit(self, i: int, draft: str) -> tuple[str, float]:
        """What the user of a request makes of a draft, and what that costs, at most 1."""
        text = draft if draft.strip() else "."
        edit = self.users[self.askers[i]].edit(self.asked[i], text, round=len(self.rounds))
        return edit, min(1.0, float(self.cost([text], [edit])[0]))

    def play(self, i: int, arm: str) -> float:
        """Play a round."""
        draft = self.drafts(arm)[i].text or "."
        edit, cost = self.edit(i, draft)
        number, user = len(self.rounds), self.askers[i]
        self.rounds.append(Round(f"r{number}", user, arm, arm, float(number), "edited", cost))
        self.records.append(
            Record(id=f"r{number}", context=self.asked[i], response=draft, edit=edit, user=user, policy=arm)
        )
        self.costs.append(cost)
        return cost

    # Fits

    def fit(self, methods: Sequence[str]) -> list[str]:
        """Fit on all rows so far, and return the arms of the run."""
        self.fits += 1
        rows = self.records
        if self.game.poisoned and self.fits == POISONED:
            edits = [row.edit for row in rows]
            random.Random(self.game.seed).shuffle(edits)
            rows = [row.model_copy(update={"edit": each}) for row, each in zip(rows, edits, strict=True)]
        config = self.settings.config(self.game.domain, len(rows), methods, self.game.seed)
        run = fit(
            rows,
            self.base,
            self.folder / f"fit-{self.fits}",
            config,
            report=False,
            callback=WarningCallback(),
        )
        arms = []
        for name in run.manifest().policies:
            arm = f"{name}@{self.fits}"
            self.runs[arm] = (run.path, name)
            arms.append(arm)
        return arms

    def passes(self, arm: str) -> bool:
        """Whether a policy passes the offline gates."""
        path, name = self.runs[arm]
        return not gate_objections(FittedPolicy(arm, name, str(path), validation(path, name)))

    def ask_oracle(self) -> None:
        """What the best of all policies would have cost in this generation."""
        means = []
        for arm in ("base@0", *self.runs):
            costs = [self.edit(i, draft.text or ".")[1] for i, draft in enumerate(self.drafts(arm))]
            means.append(float(np.mean(costs)))
        self.oracle.append(min(means))


def play(game: Game, settings: Settings) -> dict[str, Any]:
    """Play a game, or read what is kept of it; returns the costs of its rounds, and what happened."""
    folder = settings.folder / game.folder
    claim(folder, "game", {"game": list(game), "generations": settings.generations, "rounds": settings.rounds,
                           "steps": settings.steps, "base": base_path(game.domain).name})  # fmt: skip
    kept = folder / "costs.json"
    if kept.is_file():
        return dict(json.loads(kept.read_text(encoding="utf-8")))
    table = _Table(game, settings, folder)
    table.deal()
    for i in range(settings.rounds):
        table.play(i, "base@0")
    happened = _PLAYERS[game.strategy](table)
    found = {"costs": table.costs, "oracle": table.oracle, "happened": happened}
    write_json(kept, found)
    return found


def _one_shot(table: _Table) -> list[str]:
    arms = table.fit(("sft", "dpo", "early"))
    bandit = Bandit(arms, BanditConfig(seed=table.game.seed))
    for _ in range(1, table.settings.generations):
        table.deal()
        for i in range(table.settings.rounds):
            name = f"r{len(table.rounds)}"
            arm = str(bandit.decide(name, user=table.askers[i], context=table.asked[i]).arm)
            bandit.edited(name, table.play(i, arm))
    return []


def _replace(table: _Table) -> list[str]:
    for _ in range(1, table.settings.generations):
        (arm,) = table.fit(("early",))
        table.deal()
        for i in range(table.settings.rounds):
            table.play(i, arm)
    return []


class _Pilot:
    """The autopilot's own decisions, on the rounds of a game."""

    def __init__(self, table: _Table) -> None:
        self.table, self.config = table, table.settings.autopilot
        self.stages = Stages()
        self.bandit = Bandit(("base@0",), BanditConfig(seed=table.game.seed))
        self.shadow: list[ShadowPair] = []
        self.fitted = 0  # the rounds when the last fit began
        for each in table.rounds:
            self.bandit.state.apply(self.bandit.choose(each.response_id))
            self.bandit.edited(each.response_id, each.cost or 0.0)
        self.write(adopt(self.stages, ("base@0",), 0.0))

    def write(self, transitions: Sequence[Transition | None]) -> bool:
        """Apply transitions, and begin the epoch of arms that follows."""
        for each in filter(None, transitions):
            self.stages.apply(each)
            if each.stage is Stage.SHADOW:
                self.shadow = []
        state = self.bandit.state
        arms = tuple(self.stages.having(*PLAYED))
        canaries = tuple(self.stages.having(Stage.CANARY))
        if (arms, canaries) != (state.arms, state.canaries):
            heirs = {arm: heir for arm in arms if (heir := self.stages.heir(arm)) is not None}
            state.apply(Arms(state.epoch + 1, arms, canaries, heirs))
        return any(transitions)

    def judge(self) -> None:
        """Take all steps that are due."""
        while self._step():
            pass

    def _step(self) -> bool:
        stages, watch, now = self.stages, Watch(self.table.rounds), float(len(self.table.rounds))
        arms = self.bandit.arms
        first = (
            judge_alarms(stages, watch, arms, now)
            or crown(stages, watch, arms, now)
            or judge_canary(stages, watch, self.config, now)
            or judge_shadow(stages, watch, self.shadow, self.config, now)
        )
        return self.write([first] if first else judge_arms(stages, watch, arms, self.config, now))

    def refit(self, rounds: int = 0) -> None:
        """Fit unless a policy is under way, if there were so many rounds since the last fit."""
        stages, now = self.stages, len(self.table.rounds)
        if stages.the(Stage.SHADOW) or stages.the(Stage.CANARY) or now - self.fitted < rounds:
            return
        (arm,) = self.table.fit(("early",))
        self.fitted = now
        self.add(arm)

    def add(self, arm: str) -> None:
        """Put a policy that was fitted into the shadow, or reject it."""
        stage = Stage.SHADOW if self.table.passes(arm) else Stage.REJECTED
        lineage = Lineage(self.table.fits)
        self.write([Transition(arm, None, stage, float(len(self.table.rounds)), lineage=lineage)])

    def round(self, i: int) -> None:
        """Play a round: the canary's users get its drafts, the bandit chooses for the others."""
        table, state = self.table, self.bandit.state
        name, user = f"r{len(table.rounds)}", table.askers[i]
        canary = canary_of(self.stages)
        decision = self.bandit.choose(name, features=self.bandit.features_of(table.asked[i], user))
        if canary is not None and canary.takes(user, name):
            decision = decision._replace(arm=canary.arm, propensity=None)
        state.apply(decision)
        self.bandit.edited(name, table.play(i, decision.arm))
        last, champion = self.stages.the(Stage.SHADOW), self.stages.champion
        if last is not None and champion is not None and i % 2:
            edit = table.records[-1].edit
            texts = [table.drafts(arm, 1)[i].text or "." for arm in (last.subject, champion)]
            assert edit is not None, "every user of the lab edits"
            own, other = (min(1.0, float(each)) for each in table.cost(texts, [edit, edit]))
            self.shadow.append(ShadowPair(user, own, other))


def _autopilot(table: _Table) -> list[str]:
    pilot = _Pilot(table)
    pilot.judge()
    table.ask_oracle()
    for _ in range(1, table.settings.generations):
        pilot.refit()
        table.deal()
        for i in range(table.settings.rounds):
            pilot.round(i)
            if i % 10 == 9:
                pilot.judge()
                if pilot.stages.was_lost:
                    pilot.refit(math.ceil(EARLY_SHARE * table.settings.rounds))
        table.ask_oracle()
    return [f"{each.time:.0f} {each.sentence}" for each in pilot.stages.history]


_PLAYERS = {"autopilot": _autopilot, "one-shot": _one_shot, "replace": _replace}


def games(domains: Sequence[str], seeds: Sequence[int]) -> list[Game]:
    """All games, the poisoned ones with medium users of emails."""
    clean = [
        Game(domain, population, seed, strategy)
        for seed in seeds
        for domain in domains
        for population in POPULATIONS
        for strategy in STRATEGIES
    ]
    poisoned = [
        Game("email", "medium", seed, strategy, poisoned=True)
        for seed in seeds
        for strategy in ("autopilot", "replace")
    ]
    return clean + [each for each in poisoned if "email" in domains]


def run(
    out: str | Path,
    *,
    domains: Sequence[str] = ("email", "summary"),
    seeds: Sequence[int] = (1, 2, 3),
    settings: Settings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Play all games, and write `generations.json` and `generations.md`.

    Args:
        out: The folder for the results.
        domains: The domains.
        seeds: The seeds.
        settings: How large the games are.
        callback: Receives progress.
    """
    settings, callback = settings or Settings(), callback or WarningCallback()
    jobs = [(game, settings) for game in games(domains, seeds)]
    played = {job[0]: found for job, found in in_parallel(_job, jobs, "games", callback)}
    data = summary(played, settings, domains, seeds)
    write_result("generations", data, page(data), out)
    return data


def _job(job: tuple[Game, Settings]) -> dict[str, Any]:
    warnings.simplefilter("ignore")  # alarms of fits: the gates look at them
    return play(*job)


def summary(
    played: dict[Game, dict[str, Any]], settings: Settings, domains: Sequence[str], seeds: Sequence[int]
) -> dict[str, Any]:
    """The mean cost by generation of each strategy, over the seeds, with all seeds beside it."""
    rows = []
    for domain in domains:
        for population in POPULATIONS:
            for poisoned in (False, True):
                for strategy in STRATEGIES:
                    games = [Game(domain, population, seed, strategy, poisoned) for seed in seeds]
                    found = [played[game] for game in games if game in played]
                    if found:
                        about = {"domain": domain, "population": population, "strategy": strategy}
                        rows.append({**about, "poisoned": poisoned, **_curve(found, settings)})
    return {
        "users": USERS,
        "generations": settings.generations,
        "rounds": settings.rounds,
        "steps": settings.steps,
        "seeds": list(seeds),
        "rows": rows,
    }


def _curve(found: Sequence[dict[str, Any]], settings: Settings) -> dict[str, Any]:
    by_seed = [np.reshape(each["costs"], (settings.generations, -1)).mean(axis=1) for each in found]
    oracle = [each["oracle"] for each in found if each["oracle"]]
    return {
        "cost": np.mean(by_seed, axis=0).tolist(),
        "by_seed": [each.tolist() for each in by_seed],
        "oracle": np.mean(oracle, axis=0).tolist() if oracle else None,
        "happened": [each["happened"] for each in found],
    }


def page(data: dict[str, Any]) -> str:
    """The page: the cost by generation, then the last generation side by side, then the poison."""
    heads = ["", *(f"{i}" for i in range(data["generations"]))]
    parts = [
        f"{data['users']} users, {data['generations']} generations of {data['rounds']} rounds, seeds "
        f"{', '.join(map(str, data['seeds']))}; a fit takes at most {data['steps']} steps of {BATCH} "
        "contexts. Mean cost of a round (Levenshtein by word over the response, at most 1) by generation; in "
        "generation 0 the base writes for all."
    ]
    groups: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for row in data["rows"]:
        groups.setdefault((row["domain"], row["population"], row["poisoned"]), []).append(row)
    for (domain, population, poisoned), rows in groups.items():
        table = [[row["strategy"], *(f"{cost:.3f}" for cost in row["cost"])] for row in rows]
        table += [["oracle", *(f"{c:.3f}" for c in row["oracle"])] for row in rows if row["oracle"]]
        poison = f", the edits of fit {POISONED} shuffled" if poisoned else ""
        parts.append(f"**{domain}, {population} users{poison}**\n\n{markdown_table(heads, table)}")
    parts.append(_last(groups))
    return "\n\n".join(parts)


def _last(groups: dict[tuple[str, str, bool], list[dict[str, Any]]]) -> str:
    """The last generation of the autopilot beside the others, and what the poison costs."""
    heads = ["last generation", *STRATEGIES, "autopilot less one-shot", "each seed"]
    rows = []
    for (domain, population, poisoned), each in groups.items():
        by = {row["strategy"]: row for row in each}
        if poisoned or "one-shot" not in by:
            continue
        pairs = zip(by["autopilot"]["by_seed"], by["one-shot"]["by_seed"], strict=True)
        changes = [f"{100 * (a[-1] / b[-1] - 1):+.0f}%" for a, b in pairs]
        mean = by["autopilot"]["cost"][-1] / by["one-shot"]["cost"][-1] - 1
        cells = [f"{by[name]['cost'][-1]:.3f}" for name in STRATEGIES]
        rows.append([f"{domain}, {population}", *cells, f"{100 * mean:+.0f}%", " ".join(changes)])
    text = markdown_table(heads, rows)
    clean = {key[:2]: {row["strategy"]: row for row in each} for key, each in groups.items() if not key[2]}
    lines = []
    for (domain, population, poisoned), each in groups.items():
        for row in each if poisoned else ():
            without = clean[domain, population][row["strategy"]]
            more = np.sum(row["cost"]) / np.sum(without["cost"]) - 1
            lines.append(f"{row['strategy']}: {100 * more:+.1f}% over all rounds")
    return text + (f"\n\nWith a poisoned fit users pay: {'; '.join(lines)}." if lines else "")
