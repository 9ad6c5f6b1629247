"""`editloop estimate LOG`: what other rules of choice would have cost, from a log of decisions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.configured import configured
from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, LogPath
from editloop.cli.places import Place, stem
from editloop.cli.reading import Reading, reads
from editloop.io import write_json
from editloop.online import BanditConfig

if TYPE_CHECKING:
    from editloop.online.counterfactual import LogEstimates


@reads
@configured(BanditConfig, skip=("algorithm", "prior", "prior_strength", "memory", "seed"))
def estimate(
    log: LogPath,
    reading: Reading,
    given: dict[str, Any],
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A rule of choice: fixed:ARM, or an algorithm, which is replayed; repeatable "
            "[each arm, uniform and rand-ucb]."
        ),
    ] = None,
    by_user: Annotated[
        bool, typer.Option("--by-user", help="Replay a bandit for each user, not one that knows who asks.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="The JSON file to write [LOG-estimate.json]."), Place.WRITTEN
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the bootstrap.", min=0)] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.online.counterfactual import estimate_rules

    file = out or Path(f"{stem(log)}-estimate.json")
    with shown_progress() as callback:
        # Two decisions with the same texts are two decisions.
        records = replace(reading, keep_duplicates=True).read(log, file, callback)
        found = estimate_rules(records, policy, config=BanditConfig(**given), by_user=by_user, seed=seed)
    print_estimates(found)
    write_json(file, found.to_json())
    console.print(f"\nWritten to {file}")


def print_estimates(found: LogEstimates) -> None:
    """Print what rules would have cost, as wide as the terminal."""
    left_out = "".join(f", {n} {reason}" for reason, n in found.dropped.most_common())
    console.print(f"{found.rows} decisions with a cost{left_out}; mean cost as logged {found.logged:.3f}\n")
    names = list(next(iter(found.rules.values())))  # the one to read first at the beginning
    rows = [["rule", "cost", "95%", "less than logged", "effective rows"]]
    for rule, by_name in found.rules.items():
        best = by_name[names[0]]
        low, high = best.interval
        rows.append(
            [
                rule,
                f"{best.value:.3f}",
                f"{low:.3f} to {high:.3f}",
                f"{found.logged - best.value:+.3f}",
                f"{best.effective:.0f}",
            ]
        )
    show_table(rows)
    for rule, why in found.refused.items():
        console.print(f"{rule}: no estimate, {why}")
    console.print(f"\nCosts are by the doubly robust estimate; predictions by {found.predicted_by}. All:\n")
    table = [["rule", *names]]
    for rule, by_name in found.rules.items():
        table.append([rule, *(f"{by_name[name].value:.3f} ± {by_name[name].error:.3f}" for name in names)])
    show_table(table)
