"""Where policies run: the registry in which serving backends are found by name.

A backend is one class with the methods of `base.Backend`, in one file. Its class method `from_options` makes
one from those `BackendOptions` that it needs. Another package adds a backend by an entry point:

    [project.entry-points."editloop.backends"]
    triton = "my_package.triton:TritonBackend"

and `editloop serve --backend triton --backend-option url=...` runs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from editloop.registry import Registry

if TYPE_CHECKING:
    from editloop.serve.backends.base import Backend, BackendOptions

__all__ = ["BACKENDS", "BackendFactory", "make_backend"]


class BackendFactory(Protocol):
    """The type of what is registered: a backend's class."""

    def from_options(self, options: BackendOptions) -> Backend:
        """Make a backend.

        Raises:
            ConfigError: An option is missing or has a wrong value.
        """
        ...


BACKENDS: Registry[BackendFactory] = Registry(
    "serving backend",
    "editloop.backends",
    {
        "local": "editloop.serve.backends.local:LocalBackend",
        "upstream": "editloop.serve.backends.upstream:UpstreamBackend",
    },
    attributes=("from_options", "prepare", "retire", "check", "complete", "stream"),
)
"""Serving backends by name."""


def make_backend(name: str, options: BackendOptions) -> Backend:
    """Make the backend of that name.

    Raises:
        ConfigError: There is no such backend, or it cannot be made with these options.
    """
    return BACKENDS.get(name).from_options(options)
