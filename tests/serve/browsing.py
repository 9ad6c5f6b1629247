"""The dashboard's pages in a browser: which there are, when each has loaded, and at which sizes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["LOADED", "PAGES", "SIZES", "Open"]

SIZES = {"desktop": (1280, 900), "phone": (375, 800)}
LOADED = {
    "overview": "svg .dot",
    "edits": ".edits-list .row",
    "users": "a.name",
    "try": ".beliefs table",
    "policies": ".promote button",
    "learning": ".empty-title",
    "access": "#key-name",
    "api": "details",
}
PAGES = tuple(LOADED)

Open = Callable[..., Any]
"""Opens a page by its name, a size of `SIZES`, and the pattern of what its console may say."""
