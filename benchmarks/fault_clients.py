"""Clients of a server that fails: they retry as clients should, and keep account of what was acknowledged.

Each requests a completion under an id of its own, edits it under a key of its own, and goes on to the next.
What was acknowledged to them must be in the store at the end (`benchmarks.fault_check`).
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Answer, Client, question

__all__ = ["Account", "Clients", "KeptEdit"]

TRIES = 10
"""Maximum attempts of one request. A sample of the edits is sent this often even after an acknowledgement."""

TIMEOUT = 15.0
"""Seconds in which one answer must arrive."""


@dataclass
class KeptEdit:
    """An edit as a client knows it.

    Attributes:
        response_id: The response that is edited.
        text: The text of the edit; None if the response was accepted unchanged.
        receipt: Revision and cost in its first acknowledgement; None before that. The cost is None if the
            response's text was not in the store yet.
    """

    response_id: str
    text: str | None
    receipt: tuple[int, float | None] | None = None


@dataclass
class Account:
    """What clients have sent, and what was acknowledged.

    Attributes:
        asked: Ids of the completions that were requested.
        completions: Arm and text of the completions that were acknowledged, by id.
        edits: All edits that were sent, by key.
        answers: The number of attempts by result: `completion 200`, `edit 503`, `edit broken` ...
        disagreements: Acknowledgements of the same edit that differ.
        unhelpful: The number of answers 503 to an edit without a `Retry-After`.
    """

    asked: set[str] = field(default_factory=set)
    completions: dict[str, tuple[str, str]] = field(default_factory=dict)
    edits: dict[str, KeptEdit] = field(default_factory=dict)
    answers: Counter[str] = field(default_factory=Counter)
    disagreements: list[str] = field(default_factory=list)
    unhelpful: int = 0

    @property
    def requests(self) -> int:
        """The number of requests that were sent."""
        return sum(self.answers.values())

    @property
    def acknowledged(self) -> dict[str, KeptEdit]:
        """The edits that were acknowledged, by key."""
        return {key: edit for key, edit in self.edits.items() if edit.receipt is not None}


class Clients:
    """Clients that work at the same time, each on one completion after the other.

    Args:
        port: The port of the server.
        account: Where they record what was sent and acknowledged.
        number: The number of clients.
        pause: Mean seconds between two completions of a client.
        edits: Share of the completions that are edited; a tenth of these are accepted unchanged.
        repeated: Share of the edits that are sent `TRIES` times in any case.
        name: The beginning of the ids of their completions.
        mark: Returns a text that is added to the request of a number.
        seed: The seed of their random choices.
        others: The ports of further replicas of the server: each attempt goes to any of them.
    """

    def __init__(
        self,
        port: int,
        account: Account,
        *,
        number: int = 8,
        pause: float = 0.1,
        edits: float = 0.7,
        repeated: float = 0.05,
        name: str = "c",
        mark: Callable[[int], str] = lambda number: "",
        seed: int = 0,
        others: Sequence[int] = (),
    ) -> None:
        self.account, self.pause, self.edits, self.repeated = account, pause, edits, repeated
        self._clients, self._name, self._mark = [*map(Client, (port, *others))], name, mark
        self._random = random.Random(seed)
        self._stopping = asyncio.Event()
        self._number = 0
        self._tasks = [asyncio.create_task(self._work(each)) for each in range(number)]

    async def stop(self) -> None:
        """Let each client finish its current completion and edit."""
        self._stopping.set()
        await asyncio.gather(*self._tasks)
        for client in self._clients:
            client.close()

    async def _work(self, user: int) -> None:
        while not self._stopping.is_set():
            self._number += 1
            response_id = f"{self._name}-{self._number}"
            text = await self._complete(response_id, self._number, user)
            if text is not None and self._random.random() < self.edits:
                await self._edit(response_id, text)
            await self._rest(2 * self.pause * self._random.random())

    async def _rest(self, seconds: float) -> None:
        """Wait, but not after `stop` was called."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _try(self, what: str, path: str, body: Any) -> Answer | None:
        """The answer to one attempt; None without an answer."""
        try:
            client = self._random.choice(self._clients)
            answer = await client.ask("POST", path, body, timeout=TIMEOUT)
        except TimeoutError:
            self.account.answers[f"{what} timed out"] += 1
        except OSError:
            self.account.answers[f"{what} broken"] += 1
        else:
            self.account.answers[f"{what} {answer.status}"] += 1
            return answer
        return None

    async def _complete(self, response_id: str, number: int, user: int) -> str | None:
        """The text of a completion; None if the server gives none."""
        body = question(number, user) | {"id": response_id}
        body["messages"][0]["content"] += self._mark(number)
        self.account.asked.add(response_id)
        for count in range(TRIES):
            answer = await self._try("completion", "/v1/chat/completions", body)
            if answer is not None and answer.status == 200:
                found = answer.json()
                text = str(found["choices"][0]["message"]["content"])
                self.account.completions[response_id] = found["model"], text
                return text
            if answer is not None and answer.status < 500:
                return None
            await asyncio.sleep(_wait(count))
        return None

    async def _edit(self, response_id: str, text: str) -> None:
        """Send an edit until it is acknowledged; a sample is sent `TRIES` times in any case."""
        key = f"key-{response_id}"
        accepted, again = self._random.random() < 0.1, self._random.random() < self.repeated
        words = text.split(" ")
        wanted = None if accepted else " ".join([*words[: self._random.randrange(len(words))], response_id])
        edit = self.account.edits[key] = KeptEdit(response_id, wanted)
        body = {"response_id": response_id, "key": key}
        body |= {"accepted": True} if wanted is None else {"edit": wanted}  # type: ignore[dict-item]
        for count in range(TRIES):
            answer = await self._try("edit", "/v1/edits", body)
            if answer is None or answer.status != 200:
                if answer is not None and answer.status == 503:
                    self.account.unhelpful += "retry-after" not in answer.headers
                await asyncio.sleep(_wait(count))
                continue
            found = answer.json()
            receipt = int(found["revision"]), found["cost"]
            if edit.receipt is None:
                edit.receipt = receipt
            elif receipt != edit.receipt and edit.receipt[1] is not None:
                self.account.disagreements.append(f"{key}: {edit.receipt} and {receipt}")
            if not again:
                return


def _wait(count: int) -> float:
    """Seconds before the next attempt, which double each time up to 2."""
    return min(0.05 * 2.0**count, 2.0)
