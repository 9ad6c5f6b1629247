"""The origins of web pages that may use this server; the pages of all others are kept out by the browser.

An origin is the scheme, the host and the port of a page's address. A browser sends it with a request, and
lets the page read the answer only if that names the same origin (CORS, https://fetch.spec.whatwg.org).
Cookies play no part in it: who may do what is decided by keys and edit tokens.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import partial

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from editloop.errors import ConfigError
from editloop.serve.api.authentication import origin_problem
from editloop.serve.problem import answer_problem, internal_error

__all__ = ["CrossOriginMiddleware", "allowed_origins"]

ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://([a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(:[0-9]{1,5})?")
USUAL_PORTS = re.compile(r"http://[^/]*:80|https://[^/]*:443")

EXPOSED = ("X-EditLoop-Policy", "X-EditLoop-Response-Id", "X-EditLoop-Edit-Token", "Retry-After")
"""The headers of an answer that a page of an allowed origin may read."""


def allowed_origins(given: Iterable[str]) -> frozenset[str]:
    """The origins as browsers write them: in lower case.

    Raises:
        ConfigError: One is not an origin. A wildcard is none either, nor `null`, which stands for many pages.
    """
    found = set()
    for text in given:
        origin = text.lower()
        if not ORIGIN.fullmatch(origin):
            raise ConfigError(
                "not an origin", seen=text, do="give scheme, host and port alone, as in https://app.example"
            )
        if USUAL_PORTS.fullmatch(origin):
            raise ConfigError("browsers leave out this port", seen=text, do="leave it out, too")
        found.add(origin)
    return frozenset(found)


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's middleware for CORS, which tells other origins nothing, and answers all errors itself.

    It stands in front of the middleware that asks for a key, because a browser sends no key with the request
    by which it asks for permission, and because a page has to be able to read why it was refused.

    Args:
        app: The application behind it.
        origins: From `allowed_origins`.
    """

    def __init__(self, app: ASGIApp, origins: Collection[str]) -> None:
        # Any header, because OpenAI's client sends a dozen of its own. `allow_private_network` lets a page of
        # the internet ask a server in a private network, which browsers refuse unless the server agrees.
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Answer the request by which a browser asks for permission."""
        origin = request_headers["origin"]
        if self.is_allowed_origin(origin):
            return super().preflight_response(request_headers)
        problem = origin_problem(origin)
        return JSONResponse(problem.body(), problem.status, {"Vary": "Origin"})

    @staticmethod
    def allow_explicit_origin(headers: MutableHeaders, origin: str) -> None:
        """Add the headers by which a page of an allowed origin may read an answer."""
        CORSMiddleware.allow_explicit_origin(headers, origin)
        headers["Access-Control-Expose-Headers"] = ", ".join(EXPOSED)

    async def simple_response(
        self, scope: Scope, receive: Receive, send: Send, request_headers: Headers
    ) -> None:
        """Pass a request on, and answer it if the application fails.

        Starlette's own answer to an unexpected error comes from outside of all middleware, and no page of
        another origin could read it.
        """
        has_begun = False

        async def watched(message: Message) -> None:
            nonlocal has_begun
            has_begun = True
            await send(message)

        try:
            await super().simple_response(scope, receive, watched, request_headers)
        except Exception:
            if not has_begun:
                await answer_problem(
                    internal_error(), partial(self.send, send=send, request_headers=request_headers)
                )
            raise  # to be logged
