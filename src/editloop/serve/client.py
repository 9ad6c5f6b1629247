"""Clients of the server, with a spool in which edits wait while the server is down.

Completions can be requested with any OpenAI client as well, but such a client cannot send edits back.

What outlives a kill: an edit is in the spool, on the disk, before `edit` returns without the server's answer.
A row leaves the spool after the server has recorded it. A kill between the two sends it again, under the same
idempotency key, so that it counts once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import httpx

from editloop.errors import ServeError
from editloop.serve.client_base import (
    ClientBase,
    Draft,
    EditReceipt,
    Messages,
    SpoolPass,
    batches,
    checked,
    request_of,
)

__all__ = ["AsyncClient", "Client", "Draft", "EditReceipt"]


class Client(ClientBase):
    """A client of the server.

        client = Client("http://127.0.0.1:8040", spool="edits-to-send.jsonl")
        draft = client.complete("Invite Ada to the demo.", user="bob")
        client.edit(draft.response_id, "Hi Ada, ...")

    Args:
        base_url: The server's address.
        key: Bearer key; by default that of the environment variable EDITLOOP_KEY.
        spool: File in which edits wait while the server is down. Without one, sending an edit raises then.
        retry_missing: Seconds for which an edit is kept in the spool and sent again if the server does not
            know its response: another replica may have the response in a spool of its own.
        timeout: Maximum seconds until an answer; more than the 120 in which the server gives one.
        http: An httpx client to use; address, key and timeout are its own then.
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
        """Request a response; `options` are those of OpenAI's API, including `user` and `id`.

        Raises:
            ServeError: The server rejects the request, or does not answer.
        """
        try:
            return self._draft(self.http.post("/v1/chat/completions", json=self._chat(messages, options)))
        except httpx.HTTPError as error:
            raise ServeError("the server does not answer", seen=str(error)) from error

    def edit(
        self, response_id: str, edit: str, *, revision: int | None = None, reason: str | None = None
    ) -> EditReceipt:
        """Send what the user made of a response; if the server does not answer, put the edit into the spool.

        Args:
            response_id: The response.
            edit: The text as the user left it.
            revision: The number of the revision; by default the next one.
            reason: Why the user edited it, in words or as tags.

        Raises:
            ServeError: The server rejects the edit; or it does not answer, and there is no spool.
        """
        return self._send(self._edit(response_id, edit=edit, revision=revision, reason=reason))

    def accept(self, response_id: str, *, reason: str | None = None) -> EditReceipt:
        """Report that the user accepted a response unchanged; as `edit` otherwise."""
        return self._send(self._edit(response_id, accepted=True, reason=reason))

    def discard(self, response_id: str, *, reason: str | None = None) -> EditReceipt:
        """Report that the user threw a response away, wrote their own or asked again; as `edit` otherwise."""
        return self._send(self._edit(response_id, discarded=True, reason=reason))

    def edits(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Send many edits, and yield what became of each, as soon as the server has answered for it.

        Rows that were recorded before count once, so after an error all of them may be sent again.

        Args:
            rows: Each as in the body of `POST /v1/edits`, and with `time` if it was not made just now.

        Yields:
            The number of each row, from 1, with `response_id`, `status`, `cost` and `repeated`, or `error`.

        Raises:
            ServeError: The server refuses a batch, or does not answer. These rows are not put into the spool.
        """
        for batch in batches(rows):
            try:
                yield from batch.results(self.http.post("/v1/edits:batch", content=batch.body))
            except httpx.HTTPError as error:
                raise ServeError("the server does not answer", seen=str(error)) from error

    def _send(self, body: dict[str, Any]) -> EditReceipt:
        try:
            self.flush()  # first what waits, so that edits of one response arrive in their order
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
        """Send the edits that wait in the spool, and return how many have left it.

        An edit that the server rejects is put into a file beside the spool, `.refused`. An edit whose
        response the server does not know keeps waiting, for `retry_missing` seconds.

        Raises:
            httpx.HTTPError: The server does not answer. The edits that were not sent stay in the spool.
        """
        with self._lock:
            spool_pass = SpoolPass(self.retry_missing)
            try:
                for row in self._rows():
                    if spool_pass.waits(row):
                        continue
                    try:
                        checked(self.http.post("/v1/edits", json=request_of(row)))
                        spool_pass.sent()
                    except ServeError as error:
                        spool_pass.reject(row, error)
            finally:  # also when the server stops answering halfway: what it has recorded is dropped
                gone = self._end(spool_pass)
        return gone


class AsyncClient(ClientBase):
    """The same client for asyncio; see `Client` for its arguments and methods."""

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

    async def edit(
        self, response_id: str, edit: str, *, revision: int | None = None, reason: str | None = None
    ) -> EditReceipt:
        """See `Client.edit`."""
        return await self._send(self._edit(response_id, edit=edit, revision=revision, reason=reason))

    async def accept(self, response_id: str, *, reason: str | None = None) -> EditReceipt:
        """See `Client.accept`."""
        return await self._send(self._edit(response_id, accepted=True, reason=reason))

    async def discard(self, response_id: str, *, reason: str | None = None) -> EditReceipt:
        """See `Client.discard`."""
        return await self._send(self._edit(response_id, discarded=True, reason=reason))

    async def edits(self, rows: Iterable[Mapping[str, Any]]) -> AsyncIterator[dict[str, Any]]:
        """See `Client.edits`."""
        for batch in batches(rows):
            try:
                answer = await self.http.post("/v1/edits:batch", content=batch.body)
                for result in batch.results(answer):
                    yield result
            except httpx.HTTPError as error:
                raise ServeError("the server does not answer", seen=str(error)) from error

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
            spool_pass = SpoolPass(self.retry_missing)
            try:
                for row in self._rows():
                    if spool_pass.waits(row):
                        continue
                    try:
                        checked(await self.http.post("/v1/edits", json=request_of(row)))
                        spool_pass.sent()
                    except ServeError as error:
                        spool_pass.reject(row, error)
            finally:
                gone = self._end(spool_pass)
        return gone
