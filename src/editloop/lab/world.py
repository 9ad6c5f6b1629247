"""What everything that contexts come from has in common, and what a domain of the lab has beside that."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self, runtime_checkable

from editloop.users import Draft

if TYPE_CHECKING:
    from editloop.lab.free import FreeTexts
    from editloop.lab.grammar import Source
    from editloop.policy import Sample

__all__ = ["LabDomain", "Shifting", "World"]


class World(Protocol):
    """Where contexts come from: a domain of the lab, its free texts, or real texts of the hub."""

    @property
    def name(self) -> str:
        """The world's name."""
        ...

    @property
    def max_new_tokens(self) -> int:
        """The most tokens of a response."""
        ...

    @property
    def cost(self) -> str:
        """The name of the cost of an edit."""
        ...

    @property
    def chunk(self) -> int:
        """The contexts that are answered at a time for a log."""
        ...

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Yield contexts, the same for the same seed and stream."""
        ...

    def kind(self, context: str) -> str:
        """Return the kind of a context's source text, on which the hidden style depends."""
        ...

    def describe(self, context: str) -> str:
        """Return the style that a user wants for this context, in words."""
        ...

    def is_well_formed(self, sample: Sample) -> bool:
        """Return whether a response is what it should be, whatever its style: parsed, or ended."""
        ...

    def outcomes(self, context: str, response: str) -> Mapping[str, Any]:
        """Return what is known of a response beside its edit, which a log keeps as metadata: a CI's
        verdict."""
        ...


@runtime_checkable
class Shifting(Protocol):
    """A world whose users can change what they want."""

    def shifted(self) -> World:
        """Return the world in which they want something else."""
        ...


class LabDomain(World, Protocol):
    """A domain of the lab: its users can take responses apart, and a base for it can be made.

    Those that are made from tables of templates are `editloop.lab.Domain`s.
    """

    @property
    def plural(self) -> str:
        """What its responses are called in tables; by default its name."""
        ...

    @property
    def base(self) -> Path | None:
        """The folder of its base model, if it comes with one."""
        ...

    @property
    def pretraining(self) -> Mapping[str, Any]:
        """How its base is made, where that differs from the defaults of `Recipe`."""
        ...

    @property
    def tuned(self) -> Mapping[str, Mapping[str, Any]]:
        """For each method, the hyperparameters that policies are trained with."""
        ...

    @property
    def styles(self) -> Mapping[str, Mapping[str, str]]:
        """For each kind, the hidden style that users want: a value for each part of style."""
        ...

    @property
    def task(self) -> str:
        """What a context from a real text says; `{text}` is the text."""
        ...

    @property
    def hub(self) -> Mapping[str, Source]:
        """For each kind, where real texts come from; nothing if the domain has none."""
        ...

    @property
    def free(self) -> FreeTexts | None:
        """Its contexts and wishes for a real base; None if it has none."""
        ...

    @property
    def piece(self) -> str:
        """The pattern of a token of its texts, which joined are the text again."""
        ...

    @property
    def pieces(self) -> list[str]:
        """Every token of its texts, sorted."""
        ...

    @property
    def fingerprint(self) -> str:
        """A hash over what its texts depend on, and so its base."""
        ...

    def read(self, context: str) -> Any:
        """Return what a context says; `redraw` takes it."""
        ...

    def wanted(self, context: str) -> Draft:
        """Return the parts of the response that a user wants."""
        ...

    def parse(self, response: str) -> Draft | None:
        """Return the parts of a response; None if it is not of this domain."""
        ...

    def render(self, draft: Draft) -> str:
        """Return the response of these parts."""
        ...

    def redraw(
        self, notes: Any, diversity: float, generator: random.Random, *, awareness: float = 0.0
    ) -> Draft:
        """Return a draft as the base model writes it."""
        ...

    def spoiled(self, context: str, draft: Draft, generator: random.Random) -> Draft:
        """Return a draft with one part worse than it was, as somebody leaves it who edits wrongly."""
        ...

    def shifted(self) -> Self:
        """Return the domain with other wishes, for users who drift."""
        ...
