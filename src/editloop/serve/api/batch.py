"""`/v1/edits:batch`: thousands of edits in one request, as lines of JSON (NDJSON).

The body is read and recorded piece by piece, and what became of its rows waits in a temporary file until the
body has ended: most clients read no answer before they have sent everything, and both sides would wait for
each other. So the memory that a batch takes does not grow with it.
"""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import IO, Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.requests import ClientDisconnect

from editloop.serve.api.edit_tokens import MAX_REVISIONS, admitted_for
from editloop.serve.api.recording import edit_command, receipt
from editloop.serve.api.schemas import EditRow, check_texts, documented, parse
from editloop.serve.api.state import ServerState, get_state
from editloop.serve.loop.edit_commands import RecordEdit
from editloop.serve.problem import Problem

__all__ = ["router"]

router = APIRouter()

GROUP_ROWS = 64
"""Rows that are recorded together, at most. A decision that arrives meanwhile waits for one group."""

KEPT_IN_MEMORY = 2**20
"""Bytes of results beyond which they are on the disk."""

NDJSON = "application/x-ndjson"


class _Rows:
    """The rows of a batch, and what became of them.

    Args:
        request: The request.
        results: Receives a line of JSON for each row.
    """

    def __init__(self, request: Request, results: IO[bytes]) -> None:
        self.count = 0
        self._request, self._results = request, results
        self._state = get_state(request)
        self._group: list[tuple[int, RecordEdit | Problem]] = []
        self._bytes = 0

    async def add(self, line: bytes) -> None:
        """Take a line; record those that have come so far if they are enough."""
        self.count += 1
        if not line.strip():
            return
        try:
            command: RecordEdit | Problem = await self._command(line)
        except Problem as problem:
            command = problem
        self._group.append((self.count, command))
        self._bytes += len(line)
        if len(self._group) >= GROUP_ROWS or self._bytes >= self._state.limits.body:
            await self.record()

    async def _command(self, line: bytes) -> RecordEdit:
        if len(line) > self._state.limits.body:
            raise too_long(self._state)
        row = parse(EditRow, line)
        only = admitted_for(self._request, row, self._state.tokens)
        check_texts(row, self._state.limits.text)
        moment = time.time() if row.time is None else row.time.timestamp()
        limit = MAX_REVISIONS if only else None
        return await edit_command(self._state, row, key=row.key, moment=moment, limit=limit)

    async def record(self) -> None:
        """Record the rows that have come since the last time.

        Raises:
            Problem: 503, the store is down.
        """
        group, self._group, self._bytes = self._group, [], 0
        commands = [command for _, command in group if isinstance(command, RecordEdit)]
        recorded = iter(await self._state.loop.edits(commands))
        for number, command in group:
            result = next(recorded) if isinstance(command, RecordEdit) else command
            about = result.body() if isinstance(result, Problem) else receipt(result)
            line: dict[str, Any] = {"row": number, **about}
            self._results.write(json.dumps(line, allow_nan=False).encode() + b"\n")


def too_long(state: ServerState) -> Problem:
    """The problem of a row that is longer than a request may be."""
    return Problem(413, f"the row is longer than {state.limits.body} bytes", code="request_too_large")


# OpenAPI has no words for lines of JSON; one row is a batch, too.
@router.post("/v1/edits:batch", tags=["edits"], openapi_extra=documented(EditRow), response_class=Response)
async def record_batch(request: Request) -> Response:
    """Record many edits, a line of JSON each; the answer has a line for each row, in their order."""
    state = get_state(request)
    with ExitStack() as closing:
        results = closing.enter_context(SpooledTemporaryFile(KEPT_IN_MEMORY))
        rows = _Rows(request, results)
        try:
            async for line in _lines(request, state.limits.body):
                await rows.add(line)
            await rows.record()
        except Problem as problem:
            return _broken_off(problem)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it; what was recorded stays
        closing.pop_all()  # it is closed when it has been sent
    results.seek(0)
    return StreamingResponse(_sent(results), media_type=NDJSON)


def _broken_off(problem: Problem) -> Response:
    """The answer to a batch of which only a part was recorded."""
    body = problem.body()
    body["error"]["message"] += "; rows before this were recorded: sent again, they count once"
    # What is left of the body must not be read as the next request.
    return JSONResponse(body, problem.status, {**problem.headers(), "Connection": "close"})


async def _lines(request: Request, longest: int) -> AsyncIterator[bytes]:
    """The lines of a body. Of a line that is too long only the beginning is kept."""
    kept = b""
    async for piece in request.stream():
        *lines, rest = piece.split(b"\n")
        for line in lines:
            yield kept + line
            kept = b""
        kept += rest[: longest + 1 - len(kept)]
    if kept:
        yield kept


def _sent(results: IO[bytes]) -> Iterator[bytes]:
    with results:
        while piece := results.read(2**16):
            yield piece
