"""The domains of the lab that are made from tables of templates, whose tables some benchmarks change."""

from __future__ import annotations

from editloop.lab import Domain, get_domain


def text_domain(name: str) -> Domain:
    """Return a domain of texts.

    Raises:
        TypeError: The domain is of another kind.
    """
    world = get_domain(name)
    if not isinstance(world, Domain):
        raise TypeError(f"{name} is no domain of templates")
    return world
