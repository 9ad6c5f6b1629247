"""How soon a policy is found that asks back instead of writing, while the bandit plays it more and more.

One of five policies asks back in 70% of its drafts, and such a draft is accepted as it is, at cost 0. All
other drafts cost on average .3. Where nothing is priced, the bandit learns that this policy is the best one.
Each draft is examined as the server does it. Other populations, in which all policies are alike, show how
often one is named that is like the others.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from editloop.online import Bandit, BanditConfig
from editloop.parallel import in_parallel
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.loop.non_answers import NonAnswers

__all__ = ["Population", "play", "run"]

ARMS, ROUNDS = 5, 200
MEAN = 0.3
QUESTION = "Could you tell me more about what you need?"
LETTER = "Dear Ada, the demo moves to Friday at two, because the room was taken. Best regards, Bob"


class Population(NamedTuple):
    """Five policies, and what a non-answer costs.

    Attributes:
        name: What it is called in the table.
        shares: How often each policy asks back.
        least: The least cost of a non-answer.
    """

    name: str
    shares: tuple[float, ...]
    least: float = 0.0


POPULATIONS = (
    Population("one asks back in 70%", (0.7, 0.0, 0.0, 0.0, 0.0)),
    Population("the same, priced at .6", (0.7, 0.0, 0.0, 0.0, 0.0), 0.6),
    Population("one asks back in 70%, the others in 5%", (0.7, 0.05, 0.05, 0.05, 0.05)),
    Population("all ask back in 20%", (0.2,) * ARMS),
    Population("none asks back", (0.0,) * ARMS),
)


class Outcome(NamedTuple):
    """What happened in the rounds of one seed.

    Attributes:
        found: The round in which the first policy was named; None if it was not.
        accused: Whether any other policy was named.
        share: How often the first policy was played in the last quarter of the rounds.
    """

    found: int | None
    accused: bool
    share: float


def play(population: Population, seed: int) -> Outcome:
    """Return what happens in 200 rounds."""
    generator = np.random.default_rng([seed, ROUNDS])
    bandit, watch = Bandit(map(str, range(ARMS)), BanditConfig(seed=seed)), NonAnswers()
    found, accused, played = None, False, []
    for t in range(ROUNDS):
        arm = int(bandit.decide(str(t)).arm)
        asks = generator.random() < population.shares[arm]
        cost = population.least if asks else float(generator.beta(5 * MEAN, 5 * (1 - MEAN)))
        watch.examine(str(arm), QUESTION if asks else LETTER, 40)
        bandit.edited(str(t), cost)
        played.append(arm)
        named = {each for each in range(ARMS) if watch.suspicion(str(each))}
        if found is None and 0 in named:
            found = t + 1
        accused = accused or bool(named - {0})
    return Outcome(found, accused, played[-ROUNDS // 4 :].count(0) / (ROUNDS // 4))


def run(out: str | Path, *, seeds: int = 500, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Measure, and write `refuser.json` and `refuser.md`.

    Args:
        out: The folder for the results.
        seeds: The number of seeds.
        callback: Receives progress.
    """
    jobs = [(population, seeds) for population in POPULATIONS]
    played = dict(in_parallel(_job, jobs, "populations", callback or WarningCallback()))
    results = [{"population": job[0].name, **_summary(played[job])} for job in jobs]
    data = {"rounds": ROUNDS, "seeds": seeds, "results": results}
    write_result("refuser", data, _page(data), out)
    return data


def _job(job: tuple[Population, int]) -> list[Outcome]:
    logging.getLogger("editloop.serve").setLevel(logging.ERROR)  # each find would be a line
    return [play(job[0], seed) for seed in range(job[1])]


def _summary(outcomes: list[Outcome]) -> dict[str, Any]:
    rounds = [each.found for each in outcomes if each.found is not None]
    return {
        "found": len(rounds) / len(outcomes),
        "median_round": float(np.median(rounds)) if rounds else None,
        "p95_round": float(np.quantile(rounds, 0.95)) if rounds else None,
        "accused": float(np.mean([each.accused for each in outcomes])),
        "share": float(np.mean([each.share for each in outcomes])),
    }


def _page(data: dict[str, Any]) -> str:
    rows = [
        [
            each["population"],
            f"{each['found']:.1%}",
            "–" if each["median_round"] is None else f"{each['median_round']:.0f} ({each['p95_round']:.0f})",
            f"{each['accused']:.1%}",
            f"{each['share']:.0%}",
        ]
        for each in data["results"]
    ]
    heads = ["", "first one named", "in round (95%)", "another one named", "its share at the end"]
    text = (
        f"Five policies, {data['rounds']} rounds with EditLoop's default, {data['seeds']} seeds. A draft "
        "that asks back is accepted as it is; the others cost .3 on average. The share at the end is that of "
        "the first policy in the last quarter of the rounds. Where all policies are alike, to name one is "
        "wrong."
    )
    return f"{text}\n\n{markdown_table(heads, rows)}"
