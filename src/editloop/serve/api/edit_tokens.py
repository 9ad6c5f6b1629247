"""Edit tokens: with one, a web page sends the edit of one response without a key, and can do nothing else.

    elt-SIGNATURE.END.RESPONSE_ID

The signature is the HMAC-SHA-256 (RFC 2104) of the rest, by a secret that the store has. So every replica
accepts a token of every other one, and nothing is looked up to make or to check one. The token holds the time
at which it ends and not the one at which it was made: replicas' clocks differ, and a token must not be from
the future for any of them.
"""

from __future__ import annotations

import hmac
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import Request
from prometheus_client import Counter

from editloop.serve.api.limits import Limits
from editloop.serve.api.quotas import RateLimit
from editloop.serve.api.schemas import EditRequest
from editloop.serve.problem import Problem

__all__ = ["EDIT_ROUTE", "MAX_REVISIONS", "EditTokens", "admitted_for"]

PREFIX = "elt-"
"""What a token begins with; a key begins with `el-`."""

EDIT_ROUTE = ("POST", "/v1/edits")
"""The only request that a token permits."""

MAX_REVISIONS = 100
"""The revisions of a response up to which a token adds others, so that its holder cannot fill the disk."""


class EditTokens:
    """Makes edit tokens, and checks them.

    Args:
        seconds: For how long a token is valid; None makes none and accepts none.
        limits: The limits on requests; the rate of a key is also that of a token.

    Attributes:
        secret: The key of the signatures. While it is empty, no token is made, and none is valid.
        refusals: Counts the requests with a token that were refused, by the code of the error.
    """

    def __init__(self, seconds: float | None, limits: Limits) -> None:
        self.seconds, self.secret = seconds, ""
        self._rate = RateLimit(limits.rate, limits.burst)
        self.refusals = Counter(
            "editloop_edit_token_refusals",
            "Requests with an edit token that were refused, by the code of the error.",
            ["code"],
            registry=None,
        )

    @property
    def are_on(self) -> bool:
        """Whether tokens are made and accepted."""
        return self.seconds is not None

    def issue(self, response_id: str) -> str | None:
        """A token for the edits of a response; None if there are none."""
        if self.seconds is None or not self.secret:
            return None
        return self._sign(f"{int(time.time() + self.seconds)}.{response_id}")

    def in_header(self, header: str | None) -> str | None:
        """The token of an Authorization header; None if it holds none."""
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        return token if self.are_on and scheme.lower() == "bearer" and token.startswith(PREFIX) else None

    def check(self, token: str) -> str:
        """The response whose edits a token permits.

        Raises:
            Problem: 401 if it is forged or has expired; 429 if it is used too often.
        """
        with self.counted():
            claim = token.partition(".")[2]
            is_ours = hmac.compare_digest(token.encode(), self._sign(claim).encode())
            if not (is_ours and self.are_on and self.secret):
                what = "not an edit token of this server"
                raise Problem(401, what, code="invalid_edit_token", param="token")
            end, _, response_id = claim.partition(".")
            if time.time() > int(end):
                what, do = "the edit token has expired", "let the page's server send the edit with its key"
                raise Problem(401, what, code="edit_token_expired", param="token", do=do)
            self._rate.take(response_id)
            return response_id

    def admit(self, token: str, route: tuple[str, str]) -> str:
        """The response whose edits a token permits, if the request is for an edit.

        Raises:
            Problem: As in `check`; or 403, the request is another one.
        """
        response_id = self.check(token)
        with self.counted():
            if route != EDIT_ROUTE:
                what = f"an edit token permits {' '.join(EDIT_ROUTE)} alone"
                raise Problem(403, what, code="permission_denied", do="use a key")
        return response_id

    def _sign(self, claim: str) -> str:
        text = f"edit token {claim}".encode()  # no other use of the secret begins so
        digest = hmac.digest(self.secret.encode(), text, "sha256")
        return f"{PREFIX}{urlsafe_b64encode(digest).rstrip(b'=').decode()}.{claim}"

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a problem that is raised in the block."""
        try:
            yield
        except Problem as problem:
            self.refusals.labels(problem.code).inc()
            raise


def admitted_for(request: Request, asked: EditRequest, tokens: EditTokens) -> str | None:
    """The response whose edits alone a request may send; None if it may send any.

    The token is in the header, where the middleware has checked it, or in the body. The latter is for pages
    that are being closed: without a header of its own, a request needs no permission, for which a browser
    would have to ask first.

    Raises:
        Problem: 401 for a token that is missing or not valid; 403 if it does not permit this edit.
    """
    response_id: str | None = request.state.edits_of
    if asked.token is not None:
        response_id = tokens.check(asked.token)
    if response_id is None:
        return None
    with tokens.counted():
        if not response_id:
            raise Problem(401, "no key and no edit token", code="invalid_api_key", do="send one of them")
        if asked.is_external or asked.response_id != response_id:
            what = "this edit token is for another response"
            raise Problem(403, what, code="edit_token_mismatch", param="response_id", seen=asked.response_id)
    return response_id
