"""Clients of the server, with a spool in which edits wait while the server is down.

A completion can be requested with any OpenAI client as well; what such a client lacks is a way to
send an edit back.
"""

from __future__ import annotations

import asyncio
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
        key: Bearer key; by default the environment's EDITLOOP_KEY.
        spool: File in which edits wait while the server is down; without one, sending an edit then raises.
        retry_missing: Seconds for which an edit is kept in the spool, and sent again, if the server does not
            know its response: another replica may have that in a spool of its own.
        timeout: Seconds for an answer; more than the 120 in which the server gives one.
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
        """Ask for a response; `options` are those of OpenAI's API, `user` and `id` among them.

        Raises:
            ServeError: The server rejects the request, or does not answer.
        """
        try:
            return self._draft(self.http.post("/v1/chat/completions", json=self._chat(messages, options)))
        except httpx.HTTPError as error:
            raise ServeError("the server does not answer", seen=str(error)) from error

    def edit(self, response_id: str, edit: str, *, revision: int | None = None) -> EditReceipt:
        """Send what the user made of a response; if the server does not answer, put it into the spool.

        Raises:
            ServeError: The server rejects the edit; or it does not answer, and there is no spool.
        """
        return self._send(self._edit(response_id, edit, revision))

    def accept(self, response_id: str) -> EditReceipt:
        """Say that the user accepted a response unchanged."""
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
        """Send the edits that wait in the spool, and return how many have left it.

        One that the server rejects is put into a file beside the spool, `.refused`; one whose response it
        does not know keeps waiting, for as long as `retry_missing` says.

        Raises:
            httpx.HTTPError: The server does not answer; what was not sent stays.
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
            finally:
                gone = self._end(spool_pass)
        return gone


class AsyncClient(ClientBase):
    """The same client for asyncio; see `Client`."""

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
