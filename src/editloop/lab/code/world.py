"""A domain of the lab whose contexts are requests of a code agent and whose responses are functions."""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from editloop.lab.code.behaviour import passes
from editloop.lab.code.faults import faulty
from editloop.lab.code.language import (
    BEHAVIOUR,
    GATHERED,
    GUARDS,
    NONE,
    OPERANDS,
    SHAPES,
    STYLE,
    canonical,
    operations,
    parse,
    render,
)
from editloop.lab.code.tasks import NAMES, STRATA, Task, draw_task, read_task, write_request
from editloop.lab.templates import moved
from editloop.users import Draft

if TYPE_CHECKING:
    from editloop.lab.free import FreeTexts
    from editloop.lab.grammar import Source
    from editloop.policy import Sample

__all__ = ["CodeDomain"]

FINGERPRINTED = 300
"""The contexts over which a domain's hash is made."""

FACTS = ("name", "signature", "shape")
"""What a draft has from its context: the function's name, its parameters, and what it walks over."""


@dataclass(frozen=True)
class CodeDomain:
    """A world of small functions; see `editloop.lab.grammar.Domain` for what it has in common with the
    others.

    Attributes:
        name: The domain's name, as in the base `lab:NAME`.
        styles: For each kind of repository, the style that is wanted there: a value for each part of style.
        cost: The cost of an edit, in tokens of code.
        base: The folder of its base model, if it comes with one.
        pretraining: How its base is made, where that is not as for other domains (`Recipe`).
        missed: How often the base leaves a bug as it is.
        slips: How often it puts in another one.
        tuned: For each method, the hyperparameters that policies are trained with.
        plural: What its responses are called in tables.
    """

    name: str
    styles: Mapping[str, Mapping[str, str]]
    cost: str
    base: Path | None = None
    pretraining: Mapping[str, Any] = field(default_factory=dict)
    missed: float = 0.4
    slips: float = 0.15
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plural: str = "functions"

    max_new_tokens: ClassVar[int] = 120
    chunk: ClassVar[int] = 250
    piece: ClassVar[str] = r"\n *| ?\w+| ?[^\w\s]"
    task: ClassVar[str] = "{text}"
    hub: ClassVar[Mapping[str, Source]] = {}
    free: ClassVar[FreeTexts | None] = None
    behaviour: ClassVar[tuple[str, ...]] = (*FACTS, *BEHAVIOUR)

    def contexts(self, seed: int, *, stream: str = "log") -> Iterator[str]:
        """Yield contexts without end, drawn uniformly over repositories, strata and functions.

        Args:
            seed: The same seed gives the same contexts.
            stream: What they are used for. The streams of one seed are independent.
        """
        # Seeded by the text of `repr`, because `hash` differs between processes.
        generator = random.Random(repr((self.name, stream, seed)))
        while True:
            yield draw_task(self.styles, generator)[1]

    def read(self, context: str) -> Task:
        """Return what a context asks, with the style that is wanted.

        Raises:
            ConfigError: The context is not of this domain.
        """
        task = read_task(context, tuple(self.styles))
        return replace(task, wanted=canonical({**task.wanted, **self.styles[task.kind]}))

    def kind(self, context: str) -> str:
        """Return the stratum and the kind of repository, as `modify/api`."""
        task = self.read(context)
        return f"{task.stratum}/{task.kind}"

    def wanted(self, context: str) -> Draft:
        """Return the function that a user wants."""
        return self.read(context).wanted

    def describe(self, context: str) -> str:
        """Return the style that a user wants for this context, in words."""
        style = self.styles[self.read(context).kind]
        return ", ".join(f"{part} {value}" for part, value in style.items())

    def is_well_formed(self, sample: Sample) -> bool:
        """Return whether a response is a function of the language."""
        return parse(sample.text) is not None

    def passes(self, context: str, draft: Draft) -> bool:
        """Return whether a function passes the tests of what a context asks."""
        return passes(draft, self.read(context).wanted)

    def outcomes(self, context: str, response: str) -> dict[str, bool]:
        """Return what a CI would say of a response: whether it passes the tests.

        Only functions of the language are run, in the head (`behaviour`); another text counts as one that
        fails. The benchmark `code` runs every text in the sandbox.
        """
        draft = parse(response)
        return {"pass": draft is not None and self.passes(context, draft)}

    def shifted(self) -> CodeDomain:
        """Return a domain where each kind of repository has the style of the one after the next."""
        return replace(self, styles=moved(self.styles, 2))

    def redraw(
        self, task: Task, diversity: float, generator: random.Random, *, awareness: float = 0.0
    ) -> dict[str, str]:
        """Return a draft as the base model writes it.

        Its behaviour is right, or with probability `missed` that of the code as it is, and with probability
        `slips` it has a bug of its own. Each part of style is that of the code as it is, or with probability
        `diversity` any, or with probability `awareness` that of the next kind of repository. So the base sees
        what is asked and in which repository, but does not know what is wanted there.
        """
        habits = moved(self.styles, 1)[task.kind]
        draft = dict(task.current if generator.random() < self.missed else task.wanted)
        if generator.random() < self.slips:
            draft = faulty(draft, generator)
        for part, values in STYLE.items():
            drawn = generator.random()
            if drawn < diversity:
                draft[part] = generator.choice(values)
            else:
                draft[part] = (habits if drawn < diversity + awareness else task.current)[part]
        return canonical(draft)

    def spoiled(self, context: str, draft: Draft, generator: random.Random) -> dict[str, str]:
        """Return a draft with one part worse than it was, as somebody leaves it who edits wrongly."""
        wanted, text = self.wanted(context), self.render(draft)
        worse = [
            made
            for part, values in STYLE.items()
            for value in values
            if draft[part] == wanted[part] != value
            # A part may not show: how often a function without a guard returns, for example.
            and render(made := canonical({**draft, part: value})) != text
        ]
        if worse and generator.random() < 0.5:
            return generator.choice(worse)
        broken = faulty(wanted, generator)
        return canonical({**draft, **{part: broken[part] for part in BEHAVIOUR}})

    def render(self, draft: Draft) -> str:
        """Return the text of a function."""
        return render(canonical(draft))

    def parse(self, response: str) -> Draft | None:
        """Return the parts from which `render` makes exactly this text; None if it is not of the language."""
        return parse(response)

    @cached_property
    def pieces(self) -> list[str]:
        """Every token of the domain's texts, sorted."""
        return sorted({piece for text in self._texts() for piece in re.findall(self.piece, text)})

    @cached_property
    def fingerprint(self) -> str:
        """A hash over texts of the domain, which shows whether a base model was trained on the same ones."""
        generator, digest = random.Random(0), hashlib.sha256()
        for context in islice(self.contexts(0, stream="fingerprint"), FINGERPRINTED):
            draft = self.redraw(self.read(context), 0.5, generator, awareness=0.25)
            digest.update(f"{context}\0{self.render(self.wanted(context))}\0{self.render(draft)}\0".encode())
        return digest.hexdigest()

    def _texts(self) -> Iterator[str]:
        """Texts that have every token: each part beside those on which it depends what stands around it."""
        kinds, verbs = itertools.cycle(self.styles), itertools.cycle(itertools.chain(*STRATA.values()))
        names, signatures = itertools.cycle(NAMES), ("", ", limit", ", limit, step")
        switches = itertools.cycle(("no", "yes"))
        for shape, gather in itertools.product(SHAPES, GATHERED):
            styled = itertools.product(STYLE["names"], STYLE["form"], STYLE["exits"], _choices(shape))
            for naming, form, exits, chosen in styled:
                for signature in signatures:
                    draft = dict.fromkeys(BEHAVIOUR, NONE) | {"shape": shape, "gather": gather, **chosen}
                    draft |= {"names": naming, "form": form, "exits": exits, "signature": signature}
                    draft |= dict.fromkeys(("docstring", "hints"), next(switches))
                    draft |= {"name": next(names)}
                    draft = canonical(draft)
                    yield write_request(next(kinds), next(verbs), draft, draft)


def _choices(shape: str) -> list[dict[str, str]]:
    """Each guard, and each operation of a shape with each of its operands, beside nothing else."""
    found = [{"guard": guard} for guard in GUARDS]
    for name, templates in operations(SHAPES[shape]).items():
        found += [{name: each, f"{name}_by": by} for each in templates for by in OPERANDS]
    # A condition in a loop under a guard is indented most.
    return found + [{"guard": guard, **each} for guard in GUARDS for each in found if "keep" in each]
