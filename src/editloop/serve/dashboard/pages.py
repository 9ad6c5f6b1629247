"""The routes of the dashboard: a page, its style sheet and its scripts, served as they are in the package.

They hold nobody's data, so they are open to anyone. What they show comes from the API, with the reader's key.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import RedirectResponse, Response

from editloop.serve.problem import Problem

__all__ = ["HEADERS", "router"]

router = APIRouter(include_in_schema=False)

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
"""Sent with each file. A page may load only files of this server, and no site may show it in a frame."""

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}

_FOLDER = files("editloop.serve.dashboard").joinpath("static")


def _file(name: str) -> Response:
    kind = TYPES.get(name[name.rfind(".") :])
    # Compared with the names in the folder, so that no name can lead out of it.
    known = {each.name for each in _FOLDER.iterdir()}
    if kind is None or name not in known:
        raise Problem(404, "no such page", code="not_found", seen=name)
    return Response(_FOLDER.joinpath(name).read_bytes(), media_type=kind, headers=HEADERS)


@router.get("/")
def page() -> Response:
    """The dashboard."""
    return _file("index.html")


@router.get("/docs")
def documentation() -> Response:
    """Redirect to the dashboard's page about the API."""
    return RedirectResponse("/#api")


@router.get("/dashboard/{name}")
def part(name: str) -> Response:
    """A further file of the dashboard."""
    return _file(name)
