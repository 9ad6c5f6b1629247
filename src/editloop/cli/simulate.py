"""`editloop simulate RUN`: the online phase, round by round, against a simulated user."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.live import Live
from rich.table import Table

from editloop.cli.console import console, show_table, shown, write_json
from editloop.cli.flags import Config, Device, Dtype
from editloop.errors import ConfigError

if TYPE_CHECKING:
    from editloop.lab import Domain, Round
    from editloop.users import User

SHOWN = 12
EVERY = 20


def simulate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")],
    user: Annotated[
        str, typer.Option(help="strong, weak, light, medium, heavy, other; or llm, with --model.")
    ] = "strong",
    rounds: Annotated[int, typer.Option(min=1, help="How many rounds.")] = 200,
    domain: Annotated[str, typer.Option(help="Domain of the lab whose contexts are asked.")] = "email",
    out: Annotated[
        Path | None, typer.Option(help="Folder for the rounds and the plot [RUN/rounds-USER].")
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="Policies to choose from [all of the run]: sft,dpo")
    ] = None,
    algorithm: Annotated[
        str, typer.Option(help="ucb, kl-ucb, thompson, uniform, fixed (the first arm).")
    ] = "ucb",
    alpha: Annotated[float | None, typer.Option(help="Of ucb, in the unit of the cost [0.45].")] = None,
    discount: Annotated[float, typer.Option(help="Weight an observation keeps per round.")] = 1.0,
    drift: Annotated[
        int | None, typer.Option(help="Round from which the user wants each kind of text as another kind.")
    ] = None,
    drift_over: Annotated[int, typer.Option(help="Rounds that this change takes.")] = 0,
    model: Annotated[str | None, typer.Option(help="Of the llm user, at --base-url.")] = None,
    base_url: Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint, up to /v1.")] = None,
    budget: Annotated[int | None, typer.Option(help="Most requests to the llm user.")] = None,
    seed: Annotated[int, typer.Option(help="Of contexts, responses and edits.")] = 0,
    device: Device = "auto",
    dtype: Dtype = "auto",
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.lab import get_domain, plot_rounds
    from editloop.lab import simulate as play
    from editloop.offline.report import figure_png, show_number
    from editloop.online import BanditConfig
    from editloop.policy import RunFolder
    from editloop.users import DriftingUser, LLMSettings, LLMUser, get_user

    world = get_domain(domain)
    out = out or run / f"rounds-{user}"
    bandit = BanditConfig(algorithm=algorithm, alpha=alpha, discount=discount, seed=seed)
    folder = RunFolder(run)
    folder.manifest()  # a wrong folder is told before anything is loaded
    if (user == "llm") != (model is not None):
        raise ConfigError("--model is for the llm user, who needs one", do="give --user llm --model NAME")

    def who(wishes: Domain) -> User:
        if model is None:
            return get_user(user, wishes, seed=seed)
        out.mkdir(parents=True, exist_ok=True)
        settings = LLMSettings(model=model, base_url=base_url, budget=budget)
        return LLMUser(settings, wishes.describe, transcript=out / "transcript.jsonl")

    someone = who(world)
    if drift is not None:
        someone = DriftingUser(someone, who(world.shifted()), start=drift, over=drift_over, seed=seed)
    contexts = list(islice(world.contexts(seed, stream="online"), rounds))
    with shown() as listener:
        base = folder.load_base(device=device, dtype=dtype)
    for line in base.decisions:
        console.print(line)
    console.print(f"{bandit.algorithm}, {bandit.make_algorithm()}, cost {bandit.cost}")
    with _Rounds() as table:
        result = play(
            folder,
            base,
            contexts,
            someone,
            out,
            arms=[name.strip() for name in arms.split(",")] if arms else None,
            config=bandit,
            seed=seed,
            listener=listener,
            told=table.add,
        )
    (out / "rounds.png").write_bytes(figure_png(plot_rounds(result)))
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


class _Rounds:
    """A table of the last rounds, renewed as they are played; without a terminal, a line now and then."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.total, self.counted = 0.0, 0
        self.live = Live(console=console, auto_refresh=False) if console.is_terminal else None

    def __enter__(self) -> _Rounds:
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def add(self, played: Round) -> None:
        """Show another round."""
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
