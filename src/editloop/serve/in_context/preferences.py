"""What each edit says of a user's preferences, asked once of the base and kept with the edit.

A preference belongs to one revision of one edit. It is in the store's table `preferences`, from which it goes
with the texts that it was taken from. A later revision takes its place. What cannot be asked in time is asked
on in the background, and is there for the next request.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from editloop.errors import EditLoopError
from editloop.serve.backends.base import seconds_left
from editloop.serve.in_context.base import PastEdit, shortened
from editloop.serve.loop.appender import EventAppender
from editloop.serve.loop.commands import Command, of_response
from editloop.serve.loop.redaction import Redact, redact_text
from editloop.store import reads, writes
from editloop.store.database import Connection

__all__ = ["Preferences", "RecordPreference", "StoreLike", "cleaned_preference", "inference_request"]

log = logging.getLogger("editloop.serve")

T = TypeVar("T")

LONGEST_TEXT = 2000
"""The characters of a request, a draft and an edit that the base sees when it is asked for a preference."""

LONGEST_PREFERENCE = 300
"""The characters of a preference that are kept."""

MOST_TOKENS = 64
"""The tokens of a preference."""

LEARN_SECONDS = 10.0
"""Seconds for which a request waits for preferences that are not known yet."""

QUESTION = """A writer asked for a text and changed the draft. The request:

<request>
{asked}
</request>

The draft:

<draft>
{draft}
</draft>

The text after the writer's edits:

<edited>
{edited}
</edited>

Based on these edits, what does this writer prefer in style, form and content? Answer with one line of short \
phrases that hold for other texts, too."""
"""What the base is asked, after the words of CIPHER's prompt."""


class StoreLike(Protocol):
    """What is needed of the feedback loop."""

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Return what a query finds."""
        ...

    async def write(self, command: Command[T], *, hurry: bool = True) -> T:
        """Return what a command returns."""
        ...


AskArm = Callable[[str, Mapping[str, Any], str], Awaitable[tuple[str, int]]]
"""Asks an arm, by its name, a request under an identity; returns the answer and the tokens of both."""

Count = Callable[[int], None]
"""Called with the tokens of each question and its answer."""


@dataclass(frozen=True)
class RecordPreference:
    """What an edit says of its user's preferences.

    Attributes:
        response_id: The response that was edited.
        revision: The number of the edit.
        arm: The policy that was asked.
        text: The preference; empty if the policy said nothing.
        time: When, in seconds since 1970.
    """

    response_id: str
    revision: int
    arm: str
    text: str
    time: float

    @property
    def names(self) -> Collection[str]:
        """What it depends on."""
        return of_response(self.response_id)

    def apply(self, appender: EventAppender) -> None:
        """Write it, unless the texts that it was taken from were removed in the meantime."""
        if reads.response_text(appender.connection, self.response_id) is None:
            return
        row = {"response_id": self.response_id, "revision": self.revision, "arm": self.arm}
        writes.set_preference(appender.connection, row | {"text": self.text, "time": self.time})


class Preferences:
    """Finds what edits say of their users' preferences.

    Args:
        store: Reads and writes.
        ask: Asks an arm of the backend.
        redact: A function that is applied to each text before it is kept.
    """

    def __init__(self, store: StoreLike, ask: AskArm, redact: Redact) -> None:
        self._store, self._ask, self._redact = store, ask, redact
        self._asking: dict[tuple[str, int, str], asyncio.Task[str]] = {}

    async def of(self, edits: Sequence[PastEdit], arm: str, count: Count) -> list[str]:
        """Return the preferences of edits in their order; one that is empty, or there already, is left out.

        Args:
            edits: The edits.
            arm: The policy that is asked.
            count: Called with the tokens that were used.

        Raises:
            Problem: 503, the store is down.
        """
        ids = [edit.response_id for edit in edits]
        rows = await self._store.read(lambda c: reads.preferences_of(c, ids, arm))
        known = {(row.response_id, row.revision): row.text for row in rows}
        waiting = {
            (edit.response_id, edit.revision): self._begin(edit, arm, count)
            for edit in edits
            if (edit.response_id, edit.revision) not in known
        }
        if waiting:
            left = seconds_left()
            limit = LEARN_SECONDS if left is None else min(LEARN_SECONDS, left / 2)
            await asyncio.wait(waiting.values(), timeout=limit)  # it cancels none of them
            for key, task in waiting.items():
                if task.done() and not task.cancelled() and task.exception() is None:
                    known[key] = task.result()
        texts = [known.get((edit.response_id, edit.revision), "") for edit in edits]
        return list(dict.fromkeys(filter(None, texts)))

    async def stop(self) -> None:
        """End what is being asked."""
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _begin(self, edit: PastEdit, arm: str, count: Count) -> asyncio.Task[str]:
        """The task that asks about an edit; two requests that need it at the same time share one."""
        key = (edit.response_id, edit.revision, arm)
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.create_task(self._learn(edit, arm, count))
            task.add_done_callback(lambda done: self._finished(key, done))
        return task

    def _finished(self, key: tuple[str, int, str], task: asyncio.Task[str]) -> None:
        del self._asking[key]
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("%s: no preference is learned of its edit: %.500s", key[0], error)

    async def _learn(self, edit: PastEdit, arm: str, count: Count) -> str:
        """Ask about an edit, and keep what is said.

        Raises:
            EditLoopError: The policy cannot answer.
        """
        draft = await self._store.read(lambda c: reads.response_text(c, edit.response_id))
        if draft is None:  # its texts were removed in the meantime
            return ""
        answer, tokens = await self._ask(arm, inference_request(edit, draft), edit.response_id)
        count(tokens)
        text = cleaned_preference(redact_text(answer, self._redact))
        try:
            command = RecordPreference(edit.response_id, edit.revision, arm, text, time.time())
            await self._store.write(command)
        except EditLoopError as error:  # it is asked again by the next request
            log.warning("%s: the preference of its edit is not kept: %s", edit.response_id, error)
        return text


def inference_request(edit: PastEdit, draft: str) -> dict[str, Any]:
    """Return the request by which a policy is asked what an edit says of a user's preferences."""
    parts = {"asked": edit.asked, "draft": draft, "edited": edit.text}
    shown = {name: _delimited(shortened(text, LONGEST_TEXT)) for name, text in parts.items()}
    messages = [{"role": "user", "content": QUESTION.format_map(shown)}]
    return {"messages": messages, "max_tokens": MOST_TOKENS, "temperature": 0}


_MARKS = re.compile(r"<(?=\s*/?\s*(?:request|draft|edited)\b)", re.IGNORECASE)


def _delimited(text: str) -> str:
    """A text in which nothing looks like one of the marks around it."""
    return _MARKS.sub("[", text)


def cleaned_preference(text: str) -> str:
    """Return a preference as it is kept: in one line, without a list's mark, of limited length."""
    line = " ".join(text.replace("\0", "").split()).lstrip("-*• ")
    return shortened(line, LONGEST_PREFERENCE)
