"""The error with which a request is answered: an HTTP status, and a body as OpenAI's clients expect it."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from editloop.errors import ServeError

if TYPE_CHECKING:
    from starlette.types import Send

__all__ = ["Problem", "answer_problem", "internal_error", "store_unavailable"]


class Problem(ServeError):
    """A request that cannot be answered.

    Args:
        status: The HTTP status.
        what: What is wrong, as in `EditLoopError`.
        code: A word that programs can compare.
        param: The field of the request that is at fault.
        retry_after: Seconds after which the request may be sent again.
        seen: The value that was seen, as in `EditLoopError`.
        do: What to do, as in `EditLoopError`.
    """

    def __init__(
        self,
        status: int,
        what: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: float | None = None,
        seen: object = None,
        do: str | None = None,
    ) -> None:
        super().__init__(what, seen=seen, do=do)
        self.status, self.code, self.param, self.retry_after = status, code, param, retry_after

    def body(self) -> dict[str, Any]:
        """The body of the answer, in the form of OpenAI's API."""
        kind = {401: "authentication_error", 403: "permission_error", 404: "not_found_error"}.get(
            self.status,
            "rate_limit_error"
            if self.status == 429
            else "server_error"
            if self.status >= 500
            else "invalid_request_error",
        )
        # The name of a file may hold half of a surrogate pair, which has no UTF-8 form.
        message = str(self).encode(errors="replace").decode()
        error = {"message": message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    def headers(self) -> dict[str, str]:
        """The headers of the answer."""
        # The header holds whole seconds. Rounded down, it would let a client come back too early.
        return {} if self.retry_after is None else {"Retry-After": str(max(1, math.ceil(self.retry_after)))}


def store_unavailable(reason: object) -> Problem:
    """The problem of a request that needs the store while that is down."""
    return Problem(503, str(reason), code="store_unavailable", retry_after=2)


def internal_error() -> Problem:
    """The problem of a request that the server fails at."""
    return Problem(500, "an internal error of the server", code="internal_error")


async def answer_problem(problem: Problem, send: Send) -> None:
    """Answer a request with a problem."""
    body = json.dumps(problem.body(), allow_nan=False).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **problem.headers()}
    if problem.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if problem.status == 408:
        headers["Connection"] = "close"  # bytes of the body that arrive later must not be read as a request
    pairs = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body})
