"""What both clients share: the requests that they make, and the spool in which edits outlive a server.

With several replicas, one may not know a response that another still has in its own spool. An edit of such a
response waits in the client's spool, and later edits of the same response wait behind it. So the last edit is
also the last one to be recorded.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from editloop.edits.contexts import context_json
from editloop.edits.record import Record
from editloop.errors import ServeError
from editloop.io import parse_json
from editloop.journal import append_rows, drop_rows, read_rows

__all__ = [
    "Batch",
    "ClientBase",
    "Draft",
    "EditReceipt",
    "Messages",
    "SpoolPass",
    "batches",
    "checked",
    "edit_row",
    "request_of",
]

REJECTIONS = (400, 404, 409, 410, 413, 422)
"""Statuses of a request that would be rejected again. After others it may pass: a key can be replaced."""

MAX_REASON, MAX_SECONDS = 1000, 1e7
"""The most characters of the reason of an edit, and the most seconds of work on it."""

MISSING_SINCE = "missing_since"
"""Field of a row of the spool: when the server first answered that it does not know the response."""

ID = r"[A-Za-z0-9._:\-]{1,128}"
"""What the identity of a response is made of."""

BATCH_ROWS, BATCH_BYTES = 2000, 8 * 2**20
"""Where a request with many edits ends, whichever comes first."""

Messages = str | Sequence[Mapping[str, Any]]


class Draft(NamedTuple):
    """A response.

    Attributes:
        response_id: The identity that its edits are sent with.
        text: What was generated.
        policy: The arm that generated it.
    """

    response_id: str
    text: str
    policy: str


class EditReceipt(NamedTuple):
    """What became of an edit that was sent.

    Attributes:
        response_id: The response that was edited.
        spooled: Whether it waits in the spool, because the server did not answer or does not know the
            response yet. Cost and revision are not known then.
        cost: The cost of the edit; None while it is not known.
        revision: The number of this edit among the edits of the response; None while it is not known.
    """

    response_id: str
    spooled: bool
    cost: float | None = None
    revision: int | None = None


class Batch(NamedTuple):
    """Many edits that are sent in one request.

    Attributes:
        body: A line of JSON for each.
        begin: How many rows were in the batches before.
    """

    body: bytes
    begin: int

    def results(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """Return what became of each row, which are counted over all batches.

        Raises:
            ServeError: The server refuses the batch.
            httpx.HTTPError: As in `checked`.
        """
        if answer.is_error:
            checked(answer)
        try:
            found = [parse_json(line) for line in answer.content.splitlines()]
            return [{**row, "row": self.begin + row["row"]} for row in found]
        except (ValueError, KeyError, TypeError) as error:
            raise httpx.DecodingError(
                "not the answer of an EditLoop server", request=answer.request
            ) from error


def batches(rows: Iterable[Mapping[str, Any]]) -> Iterator[Batch]:
    """Yield rows in batches of at most `BATCH_ROWS` rows and, but for a longer row, `BATCH_BYTES` bytes."""
    lines: list[bytes] = []
    size, begin = 0, 0
    for row in rows:
        line = json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
        if lines and (len(lines) == BATCH_ROWS or size + len(line) > BATCH_BYTES):
            yield Batch(b"".join(lines), begin)
            lines, size, begin = [], 0, begin + len(lines)
        lines.append(line)
        size += len(line)
    if lines:
        yield Batch(b"".join(lines), begin)


def edit_row(record: Record) -> dict[str, Any] | None:
    """Return a record as a row of a batch; None if no edit of it was seen: there is nothing to record.

    A propensity, a log-probability and earlier revisions are left behind: a server keeps its own.
    """
    if record.edit is None and record.status != "discarded":
        return None
    row: dict[str, Any] = {"context": context_json(record.context), "response": record.response}
    row |= {"discarded": True} if record.status == "discarded" else {"edit": record.edit}
    if re.fullmatch(ID, record.id):
        row["response_id"] = record.id
    metadata = {name: value for name, value in record.metadata.items() if name != "revisions"}
    # A server keeps these two with the edit; what it does not take as such stays in the metadata.
    if isinstance(reason := metadata.get("reason"), str) and 0 < len(reason) <= MAX_REASON:
        row["reason"] = metadata.pop("reason")
    seconds = metadata.get("edit_seconds")
    if isinstance(seconds, (int, float)) and 0 <= seconds <= MAX_SECONDS and seconds is not True:
        row["seconds"] = metadata.pop("edit_seconds")
    given = {"user": record.user, "policy": record.policy, "metadata": metadata or None}
    if record.time is not None:
        given["time"] = record.time.isoformat()
    return row | {name: value for name, value in given.items() if value is not None}


class _MissingResponseError(ServeError):
    """The server does not know the response; another replica may have it in its spool."""


class SpoolPass:
    """One pass through the spool, and what becomes of each row.

    Args:
        retry_missing: As in `Client`.

    Attributes:
        done: The number of rows that the pass has dealt with, from the beginning of the spool.
        rejected: Those of them that go into the file `.refused`.
        kept: Those of them that stay in the spool.
    """

    def __init__(self, retry_missing: float) -> None:
        self.retry_missing = retry_missing
        self.done = 0
        self.rejected: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self._waiting: set[str] = set()

    def waits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has to wait behind another row of the same response; if so, keep it."""
        waits = row["response_id"] in self._waiting
        if waits:
            self._keep(row)
        return waits

    def sent(self) -> None:
        """Count a row that the server has recorded."""
        self.done += 1

    def reject(self, row: Mapping[str, Any], error: ServeError) -> None:
        """Count a row that the server rejects: for good, or until it knows the response."""
        now = time.time()
        since = float(row.get(MISSING_SINCE, now))
        if isinstance(error, _MissingResponseError) and now - since < self.retry_missing:
            self._keep({**row, MISSING_SINCE: since})
        else:
            self.done += 1
            self.rejected.append(request_of(row))

    def _keep(self, row: Mapping[str, Any]) -> None:
        self.done += 1
        self.kept.append(dict(row))
        self._waiting.add(row["response_id"])


class ClientBase:
    """The address, the requests and the spool of a client; see `Client` for the arguments."""

    def __init__(
        self, base_url: str, key: str | None, spool: str | Path | None, retry_missing: float
    ) -> None:
        self.retry_missing = retry_missing
        key = key or os.environ.get("EDITLOOP_KEY")
        self.base_url = base_url.rstrip("/").removesuffix("/v1")
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}
        self.spool = None if spool is None else Path(spool)
        self._lock = Lock()

    def _chat(self, messages: Messages, options: Mapping[str, Any]) -> dict[str, Any]:
        """The request for a response.

        Raises:
            ServeError: It asks for several choices, of which all but the first would be lost.
        """
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        if options.get("n") not in (None, 1):
            raise ServeError("a draft is one choice", seen=options["n"], do="ask for n=1 several times")
        return {"model": "editloop", "messages": list(messages), **options}

    def _draft(self, answer: httpx.Response) -> Draft:
        body = checked(answer)
        return Draft(body["id"], body["choices"][0]["message"]["content"] or "", body["model"])

    def _edit(self, response_id: str, **what: Any) -> dict[str, Any]:
        """The request for an edit, with a key under which it counts once, however often it is sent."""
        given = {name: value for name, value in what.items() if value is not None}
        return {"response_id": response_id, "key": uuid4().hex, **given}

    def _taken(self, answer: httpx.Response) -> EditReceipt:
        body = checked(answer)
        return EditReceipt(body["response_id"], False, body["cost"], body["revision"])

    def _set_aside(self, body: Mapping[str, Any], error: Exception | None) -> EditReceipt:
        """Put an edit into the spool.

        Raises:
            ServeError: There is no spool.
        """
        if self.spool is None:
            what = "the server does not answer"
            raise ServeError(what, seen=str(error), do="give the client a spool=") from error
        if isinstance(error, _MissingResponseError):
            body = {**body, MISSING_SINCE: time.time()}
        with self._lock:
            self.spool.parent.mkdir(parents=True, exist_ok=True)
            append_rows(self.spool, [body], sync=True)
        return EditReceipt(body["response_id"], True)

    def waiting(self) -> list[dict[str, Any]]:
        """Return the edits that wait in the spool."""
        return [request_of(row) for row in self._rows()]

    def _rows(self) -> list[dict[str, Any]]:
        return [] if self.spool is None else list(read_rows(self.spool, ServeError))

    def _has_to_wait(self, body: Mapping[str, Any]) -> bool:
        """Whether an earlier edit of the same response waits in the spool."""
        return any(row["response_id"] == body["response_id"] for row in self._rows())

    def _waits_for_response(self, error: ServeError) -> bool:
        """Whether an edit that was rejected may be recorded later."""
        return isinstance(error, _MissingResponseError) and self.spool is not None and self.retry_missing > 0

    def _end(self, done: SpoolPass) -> int:
        """Drop from the spool what was sent, and return how many rows have left it.

        Rows that were rejected go into a file beside the spool, before they leave it: a kill between the two
        repeats them there, but loses none. Rows that still wait stay in front of the rest of the spool.
        """
        if self.spool is None or not done.done:
            return 0
        if done.rejected:
            append_rows(self.spool.with_suffix(".refused"), done.rejected, sync=True)
        # By their number from the beginning, because more rows may have been added to the end meanwhile.
        drop_rows(self.spool, done.done, instead=done.kept)
        return done.done - len(done.kept)


def request_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """The body of the request that a row of the spool stands for."""
    return {name: value for name, value in row.items() if name != MISSING_SINCE}


def checked(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer.

    Raises:
        ServeError: The server rejects the request because of its content.
        httpx.HTTPError: The request may succeed later: the server or a proxy in front of it does not answer,
            or the key is not valid.
    """
    if answer.is_error and answer.status_code not in REJECTIONS:
        answer.raise_for_status()
    try:
        body: dict[str, Any] = parse_json(answer.content)
        if answer.is_error:
            missing = body["error"].get("code") == "response_not_found"
            kind = _MissingResponseError if missing else ServeError
            raise kind(str(body["error"]["message"]), do=f"status {answer.status_code}")
        return body
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise httpx.DecodingError("not the answer of an EditLoop server", request=answer.request) from error
