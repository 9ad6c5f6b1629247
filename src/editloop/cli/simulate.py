"""`editloop simulate RUN`: the online phase, round by round, against a simulated user."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.live import Live
from rich.table import Table

from editloop.cli.configured import configured
from editloop.cli.console import console, show_table, shown_progress
from editloop.cli.flags import Config, Device, Dtype
from editloop.cli.places import Place
from editloop.cli.user_flags import (
    LLM,
    BaseUrl,
    Budget,
    DomainName,
    MaxAnswer,
    Model,
    Texts,
    UserName,
    get_editor,
    get_world,
)
from editloop.errors import ConfigError
from editloop.io import guard_outputs, write_bytes, write_json
from editloop.online import BanditConfig

if TYPE_CHECKING:
    from editloop.edits import Context, Log
    from editloop.lab import Round, Shifting, Simulation, World
    from editloop.policy.manifest import Manifest
    from editloop.users import User

SHOWN = 12
"""The number of rounds that the table on a terminal shows."""

EVERY = 20
"""Without a terminal, one round of so many is printed."""


@configured(BanditConfig, skip=("prior", "prior_strength", "memory", "seed"))
def simulate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder."), Place.READ],
    given: dict[str, Any],
    user: UserName = "strong",
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 200,
    domain: DomainName = "email",
    texts: Texts = "lab",
    contexts: Annotated[
        Path | None, typer.Option(help="A log whose contexts are used instead, in its order."), Place.READ
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the rounds and the plot [RUN/rounds-USER]."), Place.WRITTEN
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="The policies to choose from, such as sft,dpo [all of the run].")
    ] = None,
    prior: Annotated[
        bool,
        typer.Option("--prior", help="Start from the policies' validation costs, which count as 5 pulls."),
    ] = False,
    drift: Annotated[
        int | None, typer.Option(help="Round from which the user wants each kind of text as another kind.")
    ] = None,
    drift_over: Annotated[int, typer.Option(help="The number of rounds that this change takes.")] = 0,
    model: Model = None,
    base_url: BaseUrl = None,
    budget: Budget = None,
    max_answer: MaxAnswer = 1024,
    style: Annotated[str | None, typer.Option(help="The style that the llm user wants, in words.")] = None,
    seed: Annotated[int, typer.Option(help="The seed of contexts, responses and edits.")] = 0,
    best_of: Annotated[
        int,
        typer.Option(
            min=1,
            max=64,
            help="Drafts of a policy, of which the one with the least predicted cost is shown, where the "
            "run's cost model predicts the costs of new contexts.",
        ),
    ] = 1,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb. It is long because most of it is its flags."""
    from editloop.edits import context_text, read_log
    from editloop.lab import HubTexts, Shifting
    from editloop.lab import simulate as play
    from editloop.policy import RunFolder
    from editloop.users import DriftingUser

    world = get_world(domain, texts)
    out = out or run / f"rounds-{user}"
    if contexts is not None:  # a file of the rounds may have the same name
        guard_outputs([contexts], [out / contexts.name])
    folder = RunFolder(run)
    manifest = folder.manifest()  # a wrong folder is reported before anything is loaded
    llm = LLM(model, base_url, budget, max_answer, out / "transcript.jsonl")
    someone = get_editor(user, world, llm, style=style, seed=seed)
    if drift is not None:
        if not isinstance(world, Shifting) or style is not None:
            raise ConfigError(
                "users can change what they want only for the lab's texts and free texts", seen=style or texts
            )
        someone = DriftingUser(
            someone, _later(someone, user, world, llm, seed), start=drift, over=drift_over, seed=seed
        )
    log = read_log(contexts) if contexts else None
    if log is not None and isinstance(world, HubTexts):
        world.remember(log)
    asked = _asked(log, world, rounds, seed)
    if style is None:
        for context in asked:  # a foreign context is reported before anything is loaded
            world.describe(context_text(context))
    cost = given.pop("cost", manifest.config.cost)
    scale, why = _scale(cost, given.pop("scale", None), given.get("alpha"), log)
    costs = _validation_costs(manifest, cost) if prior else None
    bandit = BanditConfig(cost=cost, scale=scale, prior=costs, seed=seed, **given)
    real = log is not None or isinstance(world, HubTexts)
    with shown_progress() as callback:
        base = folder.load_base(device=device, dtype=dtype)
    for line in base.decisions:
        console.print(line)
    console.print(f"{bandit.algorithm}, {bandit.make_algorithm()}, cost {cost}; scale {scale:.3g}: {why}")
    with _Rounds() as table:
        result = play(
            folder,
            base,
            asked,
            someone,
            out,
            arms=[name.strip() for name in arms.split(",")] if arms else None,
            config=bandit,
            seed=seed,
            best_of=best_of,
            callback=callback,
            on_round=table.add,
            max_new_tokens=manifest.config.max_new_tokens if real else world.max_new_tokens,
        )
    _report(result, out)


def _later(someone: User, name: str, world: Shifting, llm: LLM, seed: int) -> User:
    """Return the same user after a drift: they want of each kind of text what they wanted of another kind."""
    from editloop.users import LLMUser

    if isinstance(someone, LLMUser):
        return someone.with_style(world.shifted().describe)
    return get_editor(name, world.shifted(), llm, seed=seed)


def _report(result: Simulation, out: Path) -> None:
    """Write the plot and the summary of the rounds, and print what each policy cost."""
    from editloop.lab import plot_rounds
    from editloop.offline.plots import figure_png
    from editloop.offline.report import show_number

    write_bytes(out / "rounds.png", figure_png(plot_rounds(result)))
    summary = {
        "rounds": len(result.rounds),
        "counted": len(result.costs),
        "mean": result.mean,
        "arms": {
            arm: {"share": result.share(arm), "mean": result.mean_of(arm)} for arm in result.bandit.arms
        },
    }
    write_json(out / "summary.json", summary)
    console.print()
    rows = [["policy", "share of rounds", "mean cost"]]
    for arm in result.bandit.arms:
        rows.append([arm, f"{result.share(arm):.0%}", show_number(result.mean_of(arm))])
    rows.append(["LateEnsemble", "", show_number(result.mean)])
    show_table(rows)
    console.print(f"\n{len(result.costs)} of {len(result.rounds)} rounds counted; written to {out}")


def _asked(log: Log | None, world: World, rounds: int, seed: int) -> list[Context]:
    """Return the contexts of the rounds, one for each.

    Raises:
        ConfigError: The log has too few distinct contexts.
    """
    found: list[Context]
    if log is None:
        found = list(islice(world.contexts(seed, stream="online"), rounds))
    else:
        found = list(islice(dict.fromkeys(record.context for record in log), rounds))
    if len(found) < rounds:
        raise ConfigError("fewer contexts than rounds", seen=len(found), do=f"give --rounds {len(found)}")
    return found


def _scale(cost: str, scale: float | None, alpha: float | None, log: Log | None) -> tuple[float, str]:
    """Return the scale of the cost, and where it comes from.

    A cost without a scale of its own takes it from the costs in the log of the contexts, or else from alpha.
    """
    from editloop.edits import costs, get_cost
    from editloop.edits.cost import describe_cost
    from editloop.online import resolve_scale
    from editloop.online.algorithms import ALPHA

    if scale is not None:
        return scale, "as asked"
    try:
        return resolve_scale(cost)
    except ConfigError:
        if log is not None and describe_cost(cost).unit != "token":
            return resolve_scale(cost, [each.cost for each in costs(log, get_cost(cost)).rows])
        if alpha is None or not alpha > 0:
            raise
        return alpha / ALPHA, "from alpha"


def _validation_costs(manifest: Manifest, cost: str) -> dict[str, float]:
    """Return the mean cost of each policy's responses on the validation part of the fit.

    Raises:
        ConfigError: They were measured by another cost, or not for every policy.
    """
    if cost != manifest.config.cost:
        raise ConfigError(
            "the run's validation costs are in another cost",
            seen=manifest.config.cost,
            do="omit --prior",
        )
    costs = {name: policy.best.validation_cost for name, policy in manifest.policies.items()}
    known = {name: mean for name, mean in costs.items() if mean is not None}
    if not known or len(known) < len(costs):
        do = "fit with --validation-samples above 0"
        raise ConfigError("the run has no validation costs", seen=costs, do=do)
    return known


class _Rounds:
    """A table of the last rounds, updated as they are played. Without a terminal it prints some of them."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.total, self.counted = 0.0, 0
        # Refreshed after each round, and not by a thread: between rounds nothing changes.
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> _Rounds:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def add(self, played: Round) -> None:
        """Show a round that was played."""
        from editloop.offline.report import show_number

        if played.cost is not None:
            self.total, self.counted = self.total + played.cost, self.counted + 1
        self.rounds = [*self.rounds, played][-SHOWN:]
        mean = show_number(self.total / self.counted if self.counted else None)
        if self.live:
            table = Table(box=None, pad_edge=False, header_style="bold")
            for heading in ("round", "policy", "cost", f"mean {mean}"):
                table.add_column(heading, justify="left" if heading == "policy" else "right")
            for each in self.rounds:
                table.add_row(str(each.number + 1), each.arm, show_number(each.cost))
            self.live.update(table, refresh=True)
        elif (played.number + 1) % EVERY == 0:
            cost = show_number(played.cost)
            console.print(f"  round {played.number + 1:>4}  {played.arm:<8} cost {cost}  mean {mean}")
