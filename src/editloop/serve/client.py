"""Clients of the server, and a spool so that an edit outlives a server that is down.

A completion is asked for through any OpenAI client as well; what that lacks is how to send an edit back.

With several replicas, one may not know a response yet that another has in its own spool. An edit of it waits
in the client's, and those of the same response behind it, so that the last is the last.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple
from uuid import uuid4

import httpx

from editloop.errors import ServeError
from editloop.io import parse_json
from editloop.journal import append_rows, drop_rows, read_rows

__all__ = ["AsyncClient", "Client", "Draft", "EditReceipt"]

REFUSALS = (400, 404, 409, 410, 413, 422)
"""Statuses of a request that will not be better for being sent again."""

MISSING_SINCE = "missing_since"
"""In a row of the spool: when a server first said that it knows no such response, in seconds since 1970."""

Messages = str | Sequence[Mapping[str, Any]]


class Draft(NamedTuple):
    """A response, and the key for its edits."""

    response_id: str
    text: str
    policy: str


class EditReceipt(NamedTuple):
    """What became of an edit.

    Attributes:
        response_id: Of what.
        spooled: Whether it waits in the spool, as the server did not answer or does not know the response
            yet; the rest is not known then.
        cost: What it costs; None while that is not known.
        revision: Its number.
    """

    response_id: str
    spooled: bool
    cost: float | None = None
    revision: int | None = None


class _MissingResponseError(ServeError):
    """The server that was asked knows no such response: another replica may have it in its spool."""


class _Flush:
    """One passage through the spool, and what becomes of each row."""

    def __init__(self, retry_missing: float) -> None:
        self.retry_missing = retry_missing
        self.done = 0
        self.refused: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        self._waiting: set[str] = set()

    def waits(self, row: Mapping[str, Any]) -> bool:
        """Whether a row has to wait behind another of the same response; it is kept then."""
        waits = row["response_id"] in self._waiting
        if waits:
            self._keep(row)
        return waits

    def sent(self) -> None:
        """The server has taken the row, or knew it."""
        self.done += 1

    def refuse(self, row: Mapping[str, Any], error: ServeError) -> None:
        """The server refuses the row: for good, or for a time in which it may come to know the response."""
        now = time.time()
        since = float(row.get(MISSING_SINCE, now))
        if isinstance(error, _MissingResponseError) and now - since < self.retry_missing:
            self._keep({**row, MISSING_SINCE: since})
        else:
            self.done += 1
            self.refused.append(_body(row))

    def _keep(self, row: Mapping[str, Any]) -> None:
        self.done += 1
        self.kept.append(dict(row))
        self._waiting.add(row["response_id"])


class _Base:
    """What both clients share: addresses, bodies, and the spool."""

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
        if isinstance(messages, str):
            messages = [{"role": "user", "content": messages}]
        return {"model": "editloop", "messages": list(messages), **options}

    def _draft(self, answer: httpx.Response) -> Draft:
        body = _checked(answer)
        return Draft(body["id"], body["choices"][0]["message"]["content"] or "", body["model"])

    def _edit(self, response_id: str, edit: str | None, revision: int | None) -> dict[str, Any]:
        what: dict[str, Any] = {"accepted": True} if edit is None else {"edit": edit}
        if revision is not None:
            what["revision"] = revision
        return {"response_id": response_id, "key": uuid4().hex, **what}

    def _taken(self, answer: httpx.Response) -> EditReceipt:
        body = _checked(answer)
        return EditReceipt(body["response_id"], False, body["cost"], body["revision"])

    def _set_aside(self, body: Mapping[str, Any], error: Exception | None) -> EditReceipt:
        if self.spool is None:
            raise ServeError("the server does not answer", seen=str(error), do="give a spool=") from error
        if isinstance(error, _MissingResponseError):
            body = {**body, MISSING_SINCE: time.time()}
        with self._lock:
            self.spool.parent.mkdir(parents=True, exist_ok=True)
            append_rows(self.spool, [body], sync=True)
        return EditReceipt(body["response_id"], True)

    def waiting(self) -> list[dict[str, Any]]:
        """Edits that wait in the spool."""
        return [_body(row) for row in self._rows()]

    def _rows(self) -> list[dict[str, Any]]:
        return [] if self.spool is None else list(read_rows(self.spool, ServeError))

    def _has_to_wait(self, body: Mapping[str, Any]) -> bool:
        """Whether an earlier edit of the same response waits in the spool."""
        return any(row["response_id"] == body["response_id"] for row in self._rows())

    def _waits_for_response(self, error: ServeError) -> bool:
        """Whether an edit that was refused may be taken later."""
        return isinstance(error, _MissingResponseError) and self.spool is not None and self.retry_missing > 0

    def _end(self, done: _Flush) -> int:
        """Take out of the spool what was sent; returns how many rows are there no more.

        What was refused is kept beside the spool, and what waits on stays before the rest of it.
        """
        if self.spool is None or not done.done:
            return 0
        if done.refused:
            append_rows(self.spool.with_suffix(".refused"), done.refused, sync=True)
        drop_rows(self.spool, done.done, instead=done.kept)  # some may have come meanwhile
        return done.done - len(done.kept)


def _body(row: Mapping[str, Any]) -> dict[str, Any]:
    """The request that a row of the spool stands for."""
    return {name: value for name, value in row.items() if name != MISSING_SINCE}


def _checked(answer: httpx.Response) -> dict[str, Any]:
    """The body of an answer.

    Raises:
        ServeError: The server refuses the request for what it says.
        httpx.HTTPError: It does not answer it, be it for a key that was revoked or a proxy before it.
    """
    if answer.is_error and answer.status_code not in REFUSALS:
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


class Client(_Base):
    """A client.

        client = Client("http://127.0.0.1:8040", spool="edits-to-send.jsonl")
        draft = client.complete("Invite Ada to the demo.", user="bob")
        client.edit(draft.response_id, "Hi Ada, ...")

    Args:
        base_url: Of the server.
        key: Bearer key; by default of the environment, EDITLOOP_KEY.
        spool: File in which edits wait while the server is down; without one they raise.
        retry_missing: Seconds for which an edit of a response that the server does not know is kept in the
            spool, and sent again: another replica may have it in its own.
        timeout: Seconds; more than the 120 in which the server answers.
        http: An httpx client to use.
    """

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8040",
        *,
        key: str | None = None,
        spool: str | Path | None = None,
        retry_missing: float = 3600.0,
        timeout: float = 150.0,
        http: httpx.Client | None = None,
    ) -> None:
        super().__init__(base_url, key, spool, retry_missing)
        self.http = http or httpx.Client(base_url=self.base_url, headers=self.headers, timeout=timeout)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def complete(self, messages: Messages, **options: Any) -> Draft:
        """A response; `options` are those of OpenAI's API, `user` and `id` among them.

        Raises:
            ServeError: The server refuses, or does not answer.
        """
        try:
            return self._draft(self.http.post("/v1/chat/completions", json=self._chat(messages, options)))
        except httpx.HTTPError as error:
            raise ServeError("the server does not answer", seen=str(error)) from error

    def edit(self, response_id: str, edit: str, *, revision: int | None = None) -> EditReceipt:
        """Send what the user made of a response; into the spool if the server does not answer.

        Raises:
            ServeError: The server refuses the edit; or does not answer, and there is no spool.
        """
        return self._send(self._edit(response_id, edit, revision))

    def accept(self, response_id: str) -> EditReceipt:
        """Say that the user took a response as it was."""
        return self._send(self._edit(response_id, None, None))

    def _send(self, body: dict[str, Any]) -> EditReceipt:
        try:
            self.flush()
            if self._has_to_wait(body):
                return self._set_aside(body, None)
            return self._taken(self.http.post("/v1/edits", json=body))
        except httpx.HTTPError as error:
            return self._set_aside(body, error)
        except ServeError as error:
            if not self._waits_for_response(error):
                raise
            return self._set_aside(body, error)

    def flush(self) -> int:
        """Send what waits in the spool; returns how many were sent.

        One that the server refuses is put into a file beside the spool, `.refused`; one whose response it
        does not know waits on, for as long as `retry_missing` says.

        Raises:
            httpx.HTTPError: The server does not answer; what was not sent stays.
        """
        with self._lock:
            passage = _Flush(self.retry_missing)
            try:
                for row in self._rows():
                    if passage.waits(row):
                        continue
                    try:
                        _checked(self.http.post("/v1/edits", json=_body(row)))
                        passage.sent()
                    except ServeError as error:
                        passage.refuse(row, error)
            finally:
                gone = self._end(passage)
        return gone


class AsyncClient(_Base):
    """The same for asyncio: see `Client`."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8040",
        *,
        key: str | None = None,
        spool: str | Path | None = None,
        retry_missing: float = 3600.0,
        timeout: float = 150.0,
        http: httpx.AsyncClient | None = None,
    ) -> None:
        super().__init__(base_url, key, spool, retry_missing)
        self.http = http or httpx.AsyncClient(base_url=self.base_url, headers=self.headers, timeout=timeout)
        self._flushing = asyncio.Lock()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.http.aclose()

    async def complete(self, messages: Messages, **options: Any) -> Draft:
        """See `Client.complete`."""
        try:
            body = self._chat(messages, options)
            return self._draft(await self.http.post("/v1/chat/completions", json=body))
        except httpx.HTTPError as error:
            raise ServeError("the server does not answer", seen=str(error)) from error

    async def edit(self, response_id: str, edit: str, *, revision: int | None = None) -> EditReceipt:
        """See `Client.edit`."""
        return await self._send(self._edit(response_id, edit, revision))

    async def accept(self, response_id: str) -> EditReceipt:
        """See `Client.accept`."""
        return await self._send(self._edit(response_id, None, None))

    async def _send(self, body: dict[str, Any]) -> EditReceipt:
        try:
            await self.flush()
            if self._has_to_wait(body):
                return self._set_aside(body, None)
            return self._taken(await self.http.post("/v1/edits", json=body))
        except httpx.HTTPError as error:
            return self._set_aside(body, error)
        except ServeError as error:
            if not self._waits_for_response(error):
                raise
            return self._set_aside(body, error)

    async def flush(self) -> int:
        """See `Client.flush`."""
        async with self._flushing:
            passage = _Flush(self.retry_missing)
            try:
                for row in self._rows():
                    if passage.waits(row):
                        continue
                    try:
                        _checked(await self.http.post("/v1/edits", json=_body(row)))
                        passage.sent()
                    except ServeError as error:
                        passage.refuse(row, error)
            finally:
                gone = self._end(passage)
        return gone
