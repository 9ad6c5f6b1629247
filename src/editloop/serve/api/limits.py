"""The limits on requests."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Limits"]


@dataclass(frozen=True)
class Limits:
    """How much one request, one key, and all keys together may use. All numbers are maxima.

    Attributes:
        body: Bytes of a request.
        batch: Bytes of a batch of edits, which is read row by row.
        text: Characters of one text.
        rate: Requests per second of one key, on average; None sets no limit.
        burst: Requests of one key that may arrive at once.
        concurrency: Requests that are being answered, over all keys. A request counts once its body has
            arrived.
        waiting: Requests whose body has not arrived yet, over all keys. Beyond it, a new request ends the one
            that has waited longest, of the key with the most.
        held: Bytes of bodies in memory, over all keys.
        share: Share of `concurrency` and of `held` that one key may have, so that whatever it does, the
            others can go on.
        head_seconds: Seconds in which the line and the headers of a request must arrive.
        body_seconds: Seconds in which its body must arrive; of a batch, each `body` bytes.
        answer_seconds: Seconds in which a request must be answered, or its stream must begin, however many
            arms are tried; None sets no limit.
    """

    body: int = 2 * 2**20
    batch: int = 256 * 2**20
    text: int = 200_000
    rate: float | None = None
    burst: int = 100
    concurrency: int = 512
    waiting: int = 2048
    held: int = 256 * 2**20
    share: float = 0.75
    head_seconds: float = 10.0
    body_seconds: float = 30.0
    answer_seconds: float | None = 120.0
