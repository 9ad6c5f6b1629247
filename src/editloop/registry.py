"""Parts by name: those that are built in, those that a program registers, and those of installed packages.

Methods, domains, log formats, bandit algorithms, serving backends and costs are each found through one
`Registry`. A part is added in one of three ways, and nothing else has to know its name:

- in this package: its file, and a line in the registry's table of built-in parts;
- in a program: `registry.register(name, part)`;
- in another package: an entry point in the registry's group, whose name is the part's:

      [project.entry-points."editloop.bandits"]
      exp3 = "my_package.exp3:Exp3"
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar, cast

from editloop.errors import ConfigError, EditLoopError, MissingExtraError
from editloop.extras import load_module
from editloop.progress import EditLoopWarning

__all__ = ["Registry"]

Part = TypeVar("Part")


class Registry(Generic[Part]):
    """The parts of one kind, by name. Built-in and installed parts are imported when they are asked for.

    Iterating gives the names: built-in parts in the order of their table, then registered ones, then
    installed ones, the last two in alphabetical order. Where several parts have one name, a built-in part is
    found before a registered one, and a registered one before an installed one.

    Args:
        kind: What a part is called in messages, for example `method`.
        group: The entry point group in which other packages name their parts.
        built_in: Where each built-in part is, by name: `package.module:attribute`.
        attributes: The names of the attributes that every part must have. They are checked for parts from
            outside, because built-in ones are tested.
        error: The exception for a name that is unknown or taken, and for a part that cannot be used.
        hint: What can be used beside the names that exist, for the message about an unknown name.
    """

    def __init__(
        self,
        kind: str,
        group: str,
        built_in: Mapping[str, str],
        *,
        attributes: Sequence[str] = (),
        error: type[EditLoopError] = ConfigError,
        hint: str = "",
    ) -> None:
        self.kind, self.group = kind, group
        self.built_in = dict(built_in)
        self.registered: dict[str, Part] = {}
        self._attributes, self._error, self._hint = tuple(attributes), error, hint

    def __iter__(self) -> Iterator[str]:
        return iter(
            list(dict.fromkeys([*self.built_in, *sorted(self.registered), *sorted(self._installed())]))
        )

    def __contains__(self, name: object) -> bool:
        return name in self.built_in or name in self.registered or name in self._installed()

    def get(self, name: str) -> Part:
        """Return the part of that name.

        Raises:
            EditLoopError: The registry's `error`: no part has that name, or an installed part cannot be
                loaded or lacks an attribute.
            MissingExtraError: A built-in part needs a library that is not installed.
        """
        if name in self.built_in:
            module, _, attribute = self.built_in[name].partition(":")
            return cast("Part", getattr(load_module(module), attribute))
        if name in self.registered:
            return self.registered[name]
        # Installed packages are searched last, because reading their metadata takes about 10 ms.
        installed = self._installed()
        if name in installed:
            return self._load(installed[name])
        raise self._error(f"unknown {self.kind}", seen=name, do=self._choices())

    def parts(self) -> Iterator[Part]:
        """Yield every part, in the order of the names; each is loaded when it is reached.

        An installed part that cannot be loaded is left out with a warning: one broken package must not stop
        work that does not need it.

        Raises:
            MissingExtraError: A built-in part needs a library that is not installed.
        """
        for name in self:
            try:
                part = self.get(name)
            except MissingExtraError:  # a ConfigError, too, but not the fault of an installed package
                raise
            except self._error as error:
                warnings.warn(f"{error}", EditLoopWarning, stacklevel=2)
                continue
            yield part

    def register(self, name: str, part: Part) -> Part:
        """Add a part in this process, and return it. Registering the same part again changes nothing.

        Raises:
            EditLoopError: The registry's `error`: the name is empty or taken, or the part lacks an attribute.
        """
        if not name or name in self.built_in or self.registered.get(name, part) is not part:
            raise self._error(
                f"the {self.kind}'s name is empty or taken",
                seen=name,
                do="choose another name",
            )
        self.registered[name] = self._checked(name, part)
        return part

    def _installed(self) -> dict[str, EntryPoint]:
        return {each.name: each for each in _entry_points(self.group, tuple(sys.path))}

    def _load(self, entry: EntryPoint) -> Part:
        try:
            part = entry.load()
        except Exception as error:  # importing another package may raise anything
            raise self._error(
                f"the {self.kind} {entry.name} of {entry.value} cannot be loaded", seen=f"{error}"
            ) from error
        return self._checked(entry.name, part)

    def _checked(self, name: str, part: Any) -> Part:
        lacking = [each for each in self._attributes if not hasattr(part, each)]
        if lacking:
            raise self._error(
                f"the {self.kind} {name} lacks {', '.join(lacking)}",
                seen=part,
                do="see the protocol that such a part follows",
            )
        return cast("Part", part)

    def _choices(self) -> str:
        names = ", ".join(self)
        if not self._hint:
            return f"use one of {names}"
        return f"use {self._hint}, or one of {names}" if names else f"use {self._hint}"


@lru_cache(maxsize=32)
def _entry_points(group: str, path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Return the entry points of a group. They are read again when `path`, which is `sys.path`, changes."""
    return tuple(entry_points(group=group))
