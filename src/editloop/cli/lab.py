"""`editloop lab pretrain` and `editloop lab log`: base models and logs of the embedded world."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from editloop.cli.configured import SectionedCommand, configured
from editloop.cli.console import console, shown_progress
from editloop.cli.flags import Config, Device
from editloop.cli.places import Place, guarded
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
    writing_base,
)
from editloop.errors import ConfigError
from editloop.io import guard_outputs
from editloop.lab.text_recipe import TextRecipe
from editloop.progress import ProgressCallback

if TYPE_CHECKING:
    from editloop.edits import Record

lab = typer.Typer(help="The embedded world: base models and logs.", no_args_is_help=True)


@lab.command(
    cls=SectionedCommand, help="Train a domain's base model by its recipe, or a small base from plain text."
)
@guarded
@configured(TextRecipe, skip=("seed",))
def pretrain(
    given: dict[str, Any],
    out: Annotated[Path, typer.Option(help="Folder for the base."), Place.WRITTEN] = Path("lab-base"),
    domain: DomainName = "email",
    text: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A plain-text file instead of a domain; may be repeated."),
        Place.READ,
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Optimiser steps for a domain's base [as for the shipped one].")
    ] = None,
    seed: Annotated[int, typer.Option(help="The seed of the training.")] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.lab import get_domain, pretrain_text, shipped_recipe
    from editloop.lab import pretrain as pretrain_domain

    if text and steps is not None:
        raise ConfigError("--steps is for the base of a domain", seen=steps, do="give --epochs or --minutes")
    if given and not text:
        raise ConfigError("these flags are for a base from text", seen=", ".join(given), do="give --text")
    if text:
        # The names in `out` are not known yet, so any file there of an input's name may be replaced.
        guard_outputs(text, [out / each.name for each in text])
        recipe = TextRecipe(seed=seed, **given)
        with shown_progress() as callback:
            made = pretrain_text(text, out, recipe, progress=_step_reporter(callback))
    else:
        world = get_domain(domain)
        plan = shipped_recipe(world)
        plan = replace(plan, seed=seed, steps=plan.steps if steps is None else steps)
        with shown_progress() as callback:
            made = pretrain_domain(world, out, plan, progress=_step_reporter(callback))
    for key, value in made.items():
        console.print(f"{key}: {value}")
    console.print(f"Base written to {out}; use it with --base {out}")


@lab.command(help="Write a log: a policy answers the domain's contexts and a user edits.")
@guarded
def log(
    out: Annotated[
        Path, typer.Argument(help="The log to write; its suffix decides the format."), Place.WRITTEN
    ],
    rows: Annotated[int, typer.Option(help="How many rows.")] = 1500,
    user: UserName = "strong",
    domain: DomainName = "email",
    texts: Texts = "lab",
    base: Annotated[str | None, typer.Option(help="The base that writes the responses [lab:DOMAIN].")] = None,
    model: Model = None,
    base_url: BaseUrl = None,
    budget: Budget = None,
    max_answer: MaxAnswer = 1024,
    device: Device = "auto",
    seed: Annotated[int, typer.Option(help="The seed of contexts, responses and edits.")] = 0,
    config: Config = None,
) -> None:
    """Run the verb."""
    from editloop.edits import write_log
    from editloop.lab import stream_log
    from editloop.lab.drafts import KeptDrafts
    from editloop.policy import load_base

    world = get_world(domain, texts)
    editor = get_editor(
        user,
        world,
        LLM(model, base_url, budget, max_answer, out.with_suffix(".transcript.jsonl")),
        seed=seed,
    )
    writer = writing_base(domain, texts, base)
    with shown_progress() as callback:
        policy, cut = load_base(writer, device=device), list[str]()
        # A real base takes minutes. What it wrote is kept until the log is there, in case of a kill.
        drafts = KeptDrafts(policy, out.with_suffix(".drafts.jsonl"), policy.fingerprint)

        def counted() -> Iterator[Record]:
            made = stream_log(world, editor, rows, seed, policy=drafts)
            for done, record in enumerate(made, 1):
                cut.extend([record.id] if record.metadata.get("finished") is False else [])
                callback.progress("log", done, rows)
                yield record

        count = write_log(counted(), out)
        drafts.path.unlink(missing_ok=True)
    limit = f"; {len(cut)} drafts were cut at {world.max_new_tokens} tokens" if cut else ""
    console.print(f"{count} rows written to {out}{limit}")


def _step_reporter(callback: ProgressCallback) -> Callable[[int, int, float], None]:
    """Return the function that a pretraining calls with the steps done, their total and the loss."""
    return lambda done, total, loss: callback.progress("pretraining", done, total, f"loss {loss:.3f}")
