"""A store that a verb opens beside a server that may be running."""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.extras import requires

if TYPE_CHECKING:
    from editloop.store import Store

__all__ = ["opened_store"]


def opened_store(address: str) -> Store:
    """Open a store without claiming it, so that its server goes on."""
    requires("serve")
    from editloop.store import Store

    opened = Store(address)
    opened.open(claim=False)
    return opened
