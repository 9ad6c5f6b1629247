"""A request that is answered in this process: its text is sent part by part as its tokens are drawn."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from editloop.policy.continuous import Row
from editloop.policy.drawing import NOT_FINITE, not_finite_error
from editloop.policy.encode import Encoder
from editloop.serve.backends.base import BackendUnavailableError, Chunk

__all__ = ["Job"]


@dataclass(eq=False, kw_only=True)
class Job(Row):
    """A request, and where its text goes.

    The event loop's thread makes a job, reads its `parts` and may set `done`; the thread that generates does
    everything else.

    Attributes:
        whole: The arm, if it is a whole model; None for an adapter on the base, or the base itself.
        stops: Texts that end the response.
        event_loop: The event loop that waits for it.
        parts: The chunks so far, or the error that ended them.
        sent: The text that was sent so far.
    """

    whole: str | None = None
    stops: tuple[str, ...] = ()
    event_loop: asyncio.AbstractEventLoop
    parts: asyncio.Queue[Chunk | Exception] = field(default_factory=asyncio.Queue)
    sent: str = ""

    def send(self, part: Chunk | Exception) -> None:
        """Send a part to the event loop that waits for it."""
        with suppress(RuntimeError):  # the event loop has ended
            self.event_loop.call_soon_threadsafe(self.parts.put_nowait, part)

    def fail(self, error: Exception) -> None:
        """End the response with an error, unless it has ended already."""
        if self.done is None:
            self.done = "error"
            self.send(BackendUnavailableError("error", str(error) or type(error).__name__))

    def take(self, token: int, encoder: Encoder) -> None:
        """Send what the newest token, the last of `ids`, makes certain of the text; end at the last one."""
        if token == NOT_FINITE:
            self.fail(not_finite_error())
            return
        ended = token in encoder.ends
        # All tokens are decoded each time, because a token's text depends on those before it: it may be a
        # part of a character, or lose a leading blank. 400 tokens take .1 ms, a thousandth of a forward.
        text = encoder.decode(self.ids[:-1] if ended else self.ids)
        found = [at for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            text, ended = text[: min(found)], True
        full = len(self.ids) >= self.max_tokens
        if not (ended or full):
            # What the next tokens may still change is held back: the beginning of a stop text or of a
            # character. The latter is decoded as one U+FFFD or, by some tokenizers, as one for each byte.
            held = max((_overlap(text, stop) for stop in self.stops), default=0)
            text = text.rstrip("\ufffd")
            text = text[: len(text) - held] if held else text
        if text.startswith(self.sent) and len(text) > len(self.sent):
            role = {} if self.sent else {"role": "assistant"}
            self.send(Chunk(role | {"content": text[len(self.sent) :]}))
            self.sent = text
        if ended or full:
            self.done = "stop" if ended else "length"
            usage = {"prompt_tokens": len(self.prompt), "completion_tokens": len(self.ids)}
            usage["total_tokens"] = sum(usage.values())
            # A text that ends before a stop text is not what its tokens say.
            self.send(Chunk({}, self.done, usage, logprob=None if found else self.logprob))


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of a text may be the beginning of a stop text."""
    return max((n for n in range(1, len(stop)) if text.endswith(stop[:n])), default=0)
