"""The flags about contexts and users, for the verbs that simulate edits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from editloop.errors import ConfigError
from editloop.lab.domains import DOMAINS

if TYPE_CHECKING:
    from editloop.lab import World
    from editloop.users import User

DomainName = Annotated[
    str,
    typer.Option(
        "--domain",
        help=f"A domain of the lab: {', '.join(DOMAINS.built_in)}, or one of an installed package.",
    ),
]
Texts = Annotated[
    str,
    typer.Option(
        help="lab: the domain's own texts; free: tasks for a real base, and users who edit free text; hub: "
        "real texts, which are downloaded, for the llm user."
    ),
]
UserName = Annotated[
    str, typer.Option("--user", help="strong, weak, light, medium, heavy, other; or llm, with --model.")
]
Model = Annotated[str | None, typer.Option(help="The model that plays the llm user, at --base-url.")]
BaseUrl = Annotated[str | None, typer.Option(help="An OpenAI-compatible endpoint, up to /v1.")]
Budget = Annotated[int | None, typer.Option(help="The most requests to the llm user.")]
MaxAnswer = Annotated[int, typer.Option(help="The longest answer of the llm user, in tokens.")]


class LLM(NamedTuple):
    """Which model plays the llm user, and where its answers are kept."""

    model: str | None
    base_url: str | None
    budget: int | None
    max_tokens: int
    transcript: Path


def get_world(domain: str, texts: str) -> World:
    """Return the world that the contexts come from.

    Raises:
        ConfigError: There are no such texts, or there is no such domain.
    """
    from editloop.lab import HubTexts, free_texts, get_domain

    worlds: dict[str, Callable[[str], World]] = {"lab": get_domain, "free": free_texts, "hub": HubTexts}
    if texts not in worlds:
        raise ConfigError("unknown texts", seen=texts, do=f"choose one of {', '.join(worlds)}")
    return worlds[texts](domain)


def writing_base(domain: str, texts: str, base: str | None) -> str:
    """Return the base that writes the drafts: by default that of the domain, which can read its texts only.

    Raises:
        ConfigError: The texts are others, and no base is given.
    """
    if base is None and texts != "lab":
        raise ConfigError(
            "the lab's bases can read the lab's texts only", seen=texts, do="give --base smollm2 or another"
        )
    return base or f"lab:{domain}"


def get_editor(name: str, world: World, llm: LLM, *, style: str | None = None, seed: int = 0) -> User:
    """Return the user who edits.

    Args:
        name: One of the named users, or `llm`.
        world: The world that knows which style is wanted for a context.
        llm: The model of the llm user.
        style: The style that the llm user wants in all contexts, instead of the world's.
        seed: The seed of a named user.

    Raises:
        ConfigError: There is no such user, or a flag is given that this user has no use for.
    """
    from editloop.users import LLMSettings, LLMUser, get_user

    if (name == "llm") != (llm.model is not None):
        raise ConfigError("--model is for the llm user, who needs one", do="give --user llm --model NAME")
    if llm.model is None:
        for flag, value in {"style": style, "base-url": llm.base_url, "budget": llm.budget}.items():
            if value is not None:
                raise ConfigError(
                    f"--{flag} is for the llm user", seen=value, do="give --user llm --model NAME"
                )
        return get_user(name, world, seed=seed)
    llm.transcript.parent.mkdir(parents=True, exist_ok=True)
    settings = LLMSettings(
        model=llm.model, base_url=llm.base_url, budget=llm.budget, max_tokens=llm.max_tokens
    )
    return LLMUser(settings, style or world.describe, transcript=llm.transcript)
