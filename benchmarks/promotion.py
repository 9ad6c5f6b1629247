"""How often a canary promotes a policy that is no better, and how often one that is: simulated teams.

Costs of a user lie around the user's own mean, as with real people, of whose costs more than half of the
variance lies between people. The champion is played, and then a canary of 400 rounds, which is judged every
few rounds by the autopilot's own code. No policy's costs are known to it but by its users.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.autopilot.assignment import Unit
from editloop.autopilot.config import AutopilotConfig
from editloop.autopilot.decisions import canary_of, canary_terms, judge_canary
from editloop.autopilot.stages import Stage, Stages, Transition
from editloop.autopilot.watch import Canary, Round, Watch
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result

__all__ = ["TEAMS", "Outcome", "Team", "play", "run"]

MEAN, BETWEEN, WITHIN = 0.30, 0.187, 0.166
"""The mean cost of the champion, and the standard deviations of users' means and of costs around them: .25 in
all, of whose square 56% lies between users."""

GAIN = 0.1
"""How much less a better policy costs, as a share of the champion's cost."""

LOOK_EVERY = 40
CHAMPION, NEW = "champion", "new"


class Team(NamedTuple):
    """Users of a server.

    Attributes:
        name: What it is called in the table.
        users: How many they are.
        past: Costs of each, on average, before the canary.
        taste: The standard deviation, over users, of what they think of the new policy.
        unit: Whether users or requests are drawn.
        share: The share that is drawn.
        rounds: The costs of the new policy after which the canary ends.
    """

    name: str
    users: int
    past: int
    taste: float = 0.0
    unit: Unit = "user"
    share: float = 0.2
    rounds: int = 400


TEAMS = (
    Team("200 users, 20 costs each before", 200, 20),
    Team("50 users, 40 costs each before", 50, 40),
    Team("20 users, 100 costs each before", 20, 100),
    Team("50 users without a past", 50, 0),
    Team("50 users whose tastes differ by .05", 50, 40, taste=0.05),
    Team("50 users, 40 costs each before, by request", 50, 40, unit="request"),
    Team("5 users, by request", 5, 40, unit="request"),
    Team("50 users, 40 costs each before, 800 rounds", 50, 40, rounds=800),
)


class Outcome(NamedTuple):
    """How a canary ended.

    Attributes:
        stage: `arm` or `rejected`.
        rounds: The costs of the new policy until then.
        worse: Whether it was called worse.
    """

    stage: str
    rounds: int
    worse: bool


def play(team: Team, gain: float, seed: int) -> Outcome:
    """Return how one canary ends; `gain` is what the new policy costs less."""
    generator = np.random.default_rng([seed, round(1000 * gain) + 1000, team.users])
    level = np.clip(MEAN + BETWEEN * generator.standard_normal(team.users), 0.03, 0.95)
    taste = team.taste * generator.standard_normal(team.users)
    activity = generator.gamma(2.0, 1.0, team.users)
    activity /= activity.sum()
    names = [f"{seed}:{u}" for u in range(team.users)]
    rounds: list[Round] = []
    canary: Canary | None = None

    def add(n: int, start: int) -> int:
        """Play rounds, and return how many had the new policy."""
        askers = generator.choice(team.users, n, p=activity)
        ids = [f"{seed}:{start + i}" for i in range(n)]
        if canary is None:
            has = np.zeros(n, dtype=bool)
        elif team.unit == "user":
            drawn = np.array([canary.takes(name, "") for name in names])
            has = drawn[askers]
        else:
            has = np.array([canary.takes("", name) for name in ids])
        costs = _costs(generator, level[askers] + has * (taste[askers] - gain))
        for i, (u, is_new, cost) in enumerate(zip(askers, has, costs.tolist(), strict=True)):
            arm = NEW if is_new else CHAMPION
            rounds.append(Round(ids[i], names[u], arm, arm, float(start + i), "edited", cost))
        return int(has.sum())

    add(team.users * team.past, -(10**9))
    config = AutopilotConfig(canary_rounds=team.rounds, canary_unit=team.unit, canary_share=team.share)
    stages = _in_canary(Watch(rounds), config)
    canary, played, start = canary_of(stages), 0, 0
    while True:
        played += add(int(LOOK_EVERY / team.share), start)
        start += int(LOOK_EVERY / team.share)
        found = judge_canary(stages, Watch(rounds), config, 1.0)
        if found is not None:
            return Outcome(str(found.stage), played, "more than" in found.reason)


def _in_canary(watch: Watch, config: AutopilotConfig) -> Stages:
    """Stages with the new policy in a canary that begins now."""
    terms = canary_terms(watch, config, CHAMPION, NEW)
    stages = Stages()
    for subject, stage in (
        (CHAMPION, Stage.ARM),
        (CHAMPION, Stage.CHAMPION),
        (NEW, Stage.SHADOW),
        (NEW, Stage.CANARY),
    ):
        stages.apply(Transition(subject, stages.of(subject), stage, 0.0, evidence=terms))
    return stages


def _costs(generator: np.random.Generator, means: NDArray[np.float64]) -> NDArray[np.float64]:
    """Costs in [0, 1] of these means [n], from Beta distributions; wide where costs of 0 are frequent."""
    means = np.clip(means, 0.02, 0.97)
    strength = np.maximum(means * (1 - means) / WITHIN**2 - 1, 0.3)
    return generator.beta(means * strength, (1 - means) * strength)


def run(
    out: str | Path, *, pairs: int = 1000, better: int = 400, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure, and write `promotion.json` and `promotion.md`.

    Args:
        out: The folder for the results.
        pairs: The canaries of each team with an equal policy.
        better: Those with a better one.
        callback: Receives progress.
    """
    kinds = ((0.0, pairs), (GAIN * MEAN, better))
    parts = [(team, gain, part, n) for team in TEAMS for gain, n in kinds for part in range(10)]
    played = dict(in_parallel(_job, parts, "canaries", callback or WarningCallback()))
    results = []
    for team in TEAMS:
        row: dict[str, Any] = {"team": team._asdict()}
        for name, gain in (("equal", 0.0), ("better", GAIN * MEAN)):
            found = [each for part in parts if part[:2] == (team, gain) for each in played[part]]
            row[name] = _summary(found)
        results.append(row)
    data = {
        "pairs": pairs,
        "better": better,
        "look_every": LOOK_EVERY,
        "gain": GAIN,
        "results": results,
    }
    data |= {"mean": MEAN, "between": BETWEEN, "within": WITHIN}
    write_result("promotion", data, _page(data), out)
    return data


def _job(job: tuple[Team, float, int, int]) -> list[Outcome]:
    team, gain, part, pairs = job
    return [play(team, gain, seed) for seed in range(part, pairs, 10)]


def _summary(found: list[Outcome]) -> dict[str, Any]:
    promoted: NDArray[np.float64] = np.array([each.rounds for each in found if each.stage == "arm"], float)
    return {
        "promoted": len(promoted) / len(found),
        "worse": float(np.mean([each.worse for each in found])),
        "median_rounds": float(np.median(promoted)) if len(promoted) else None,
    }


def _page(data: dict[str, Any]) -> str:
    rows = []
    for each in data["results"]:
        equal, better = each["equal"], each["better"]
        rounds = better["median_rounds"]
        cells = [f"{equal['promoted']:.1%}", f"{equal['worse']:.1%}", f"{better['promoted']:.0%}"]
        rows.append([each["team"]["name"], *cells, "–" if rounds is None else f"{rounds:.0f}"])
    heads = ["", "equal: promoted", "equal: called worse", "10% better: promoted", "in rounds (median)"]
    looks = f"looked at every {data['look_every']} rounds and judged after each fifth"
    text = (
        f"Canaries of 400 rounds where no number is named, {data['pairs']:,} with an equal policy and "
        f"{data['better']} with a better one, {looks}, with a fifth of the users (or of the requests). Costs "
        f"have the mean {data['mean']}, users' means differ by {data['between']} and costs around them by "
        f"{data['within']} (standard deviations). An equal policy should be promoted in at most 5%, and one "
        "that costs 10% less in at least 80%."
    )
    return f"{text}\n\n{markdown_table(heads, rows)}"
