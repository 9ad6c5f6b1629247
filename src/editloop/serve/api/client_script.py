"""`/client.js`: the script by which a page sends what its user makes of a response.

It is built from `clients/js`, and holds nobody's data, so it is open to anyone.
"""

from __future__ import annotations

from importlib.resources import files

from fastapi import APIRouter
from fastapi.responses import Response

__all__ = ["router"]

router = APIRouter(include_in_schema=False)

HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "public, max-age=3600"}


@router.get("/client.js")
def client() -> Response:
    """The script, as an ECMAScript module."""
    script = files("editloop.serve.api").joinpath("static", "client.js").read_bytes()
    return Response(script, media_type="text/javascript", headers=HEADERS)
