"""Notices: each transition as a line of the log, and as JSON to a webhook."""

from __future__ import annotations

import json
import logging
import queue
import threading
from contextlib import suppress
from typing import Any

from editloop.autopilot.stages import Transition

__all__ = ["Notices"]

log = logging.getLogger("editloop.autopilot")

SECONDS = 5.0
"""Seconds in which a webhook has to answer."""

ATTEMPTS = 3
"""How often a notice is sent before it is given up."""

WAITING = 1000
"""Notices that wait at most; further ones are only logged."""


class Notices:
    """Sends transitions. A webhook that hangs, or is down, holds up nothing but the notices.

    Args:
        url: Where they are posted to; None only logs them.
    """

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._thread: threading.Thread | None = None
        self._is_closed = False

    def send(self, transition: Transition) -> None:
        """Log a transition, and post it soon."""
        log.info("%s", transition.sentence)
        if self._url is None:
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="notices", daemon=True)
            self._thread.start()
        try:
            self._queue.put_nowait({**json.loads(transition.to_text()), "text": transition.sentence})
        except queue.Full:
            log.warning("too many notices wait for the webhook; this one is only logged")

    def close(self, seconds: float = SECONDS) -> None:
        """Wait a limited time for the notices that are under way."""
        if self._thread is not None:
            with suppress(queue.Full):
                self._queue.put_nowait(None)
                self._thread.join(seconds)
        self._is_closed = True  # a thread that still waits for an answer gives up after it

    def _run(self) -> None:
        while (row := self._queue.get()) is not None:
            for attempt in range(1, ATTEMPTS + 1):
                if self._is_closed:
                    return
                if self._post(row, attempt):
                    break

    def _post(self, row: dict[str, Any], attempt: int) -> bool:
        import httpx

        assert self._url is not None
        try:
            httpx.post(self._url, json=row, timeout=SECONDS).raise_for_status()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Without the address, which may hold a secret.
            if not self._is_closed:
                log.warning("the webhook cannot be reached (attempt %d): %s", attempt, type(error).__name__)
            return False
        return True
