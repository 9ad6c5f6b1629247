"""The fields of configurations in the reference: their descriptions stand once, at the fields themselves.

A pydantic model has them in `model_fields`. They become the `Attributes` of its docstring, as mkdocstrings
reads it (an extension of griffe, named in mkdocs.yml).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import griffe
from pydantic import BaseModel


class Fields(griffe.Extension):
    """Adds to the docstring of each model the fields that it does not describe itself."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **kwargs: Any) -> None:
        """Look at every class of a package that was read."""
        self._look(pkg)

    def _look(self, scope: griffe.Object) -> None:
        for member in scope.members.values():
            if member.is_alias:
                continue
            if member.is_class:
                self._describe(member)
            elif member.is_module:
                self._look(member)

    def _describe(self, found: griffe.Class) -> None:
        if found.docstring is None or "Attributes:\n" in found.docstring.value:
            return
        kind = getattr(import_module(found.module.path), found.name, None)
        if not isinstance(kind, type) or not issubclass(kind, BaseModel):
            return
        lines = []
        for name, field in kind.model_fields.items():
            default = (
                "" if field.is_required() or field.default_factory else f" By default `{field.default!r}`."
            )
            if field.description and name in found.members:
                lines.append(f"    {name}: {field.description.rstrip('.')}.{default}")
        if lines:
            found.docstring.value += "\n\nAttributes:\n" + "\n".join(lines)
