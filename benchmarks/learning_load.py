"""Simulated users who write with a server: requests at a fixed rate, some of the drafts edited, until ended.

As in `benchmarks.load`, each request is sent when it is due, and its latency is measured from then. An edit
comes some seconds after its draft. `python -m benchmarks.learning_load PLAN` goes on until SIGTERM, and then
writes what it saw.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import selectors
import signal
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import Client
from editloop.lab import get_domain
from editloop.lab.grammar import MAX_NEW_TOKENS
from editloop.users import get_user

__all__ = ["Plan", "Seen", "read_seen"]

PATIENCE = 30.0
"""Seconds for which an answer is awaited."""


@dataclass(frozen=True)
class Plan:
    """A load by users.

    Attributes:
        port: The port of the server.
        out: The file for what was seen.
        rate: Requests per second.
        edited: The share of the drafts that their users edit.
        pause: Mean seconds from a draft to its edit.
        users: The number of users, who ask equally often.
        kind: What they do to drafts, as of `get_user`.
        domain: The domain of the lab that they write in.
        seed: The seed of requests, users and edits.
    """

    port: int
    out: str
    rate: float = 20.0
    edited: float = 0.25
    pause: float = 2.0
    users: int = 20
    kind: str = "strong"
    domain: str = "email"
    seed: int = 0


class Seen(NamedTuple):
    """A request.

    Attributes:
        due: When it was to be sent, in seconds since 1970.
        latency: Milliseconds from then to the answer; None if none came.
        status: The status of the answer; 0 if none came.
        arm: The policy that answered.
        response_id: The response.
    """

    due: float
    latency: float | None
    status: int
    arm: str = ""
    response_id: str = ""


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan, self.client = plan, Client(plan.port)
        self.seen: list[Seen] = []
        self.edits: Counter[int] = Counter()
        domain, self._draws = get_domain(plan.domain), random.Random(plan.seed)
        self._contexts = domain.contexts(plan.seed, stream="served")
        self._users = [get_user(plan.kind, domain, seed=plan.seed + i) for i in range(plan.users)]

    async def run(self) -> None:
        """Ask and edit until SIGTERM, and wait for the last answers."""
        loop, ending = asyncio.get_running_loop(), asyncio.Event()
        loop.add_signal_handler(signal.SIGTERM, ending.set)
        tasks: set[asyncio.Task[None]] = set()
        start, wall, number = loop.time() + 0.05, time.time() + 0.05, 0
        while not ending.is_set():
            since = number / self.plan.rate
            if (wait := start + since - loop.time()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._one(number, start + since, wall + since))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            number += 1
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE)
        self.client.close()

    async def _one(self, number: int, due: float, wall: float) -> None:
        """Send a request that is due, and perhaps an edit of the response."""
        loop, plan = asyncio.get_running_loop(), self.plan
        context, user = next(self._contexts), self._draws.randrange(plan.users)
        is_edited, pause = self._draws.random() < plan.edited, self._draws.expovariate(1 / plan.pause)
        body: dict[str, Any] = {"user": f"u{user}", "max_tokens": MAX_NEW_TOKENS}
        body |= {"model": "editloop", "messages": [{"role": "user", "content": context}]}
        try:
            answer = await self.client.ask("POST", "/v1/chat/completions", body, timeout=PATIENCE)
        except (OSError, TimeoutError):
            self.seen.append(Seen(wall, None, 0))
            return
        latency, headers = 1000 * (loop.time() - due), answer.headers
        arm, name = headers.get("x-editloop-policy", ""), headers.get("x-editloop-response-id", "")
        self.seen.append(Seen(wall, latency, answer.status, arm, name))
        if answer.status != 200 or not is_edited:
            return
        await asyncio.sleep(pause)
        draft = answer.json()["choices"][0]["message"]["content"] or "."
        # In a thread, so that a user who takes some milliseconds makes no request late.
        edit = await asyncio.to_thread(self._users[user].edit, context, draft, round=number)
        with suppress(OSError, TimeoutError):
            done = await self.client.ask("POST", "/v1/edits", {"response_id": name, "edit": edit})
            self.edits[done.status] += 1


def read_seen(path: Path) -> tuple[list[Seen], dict[str, int]]:
    """The requests of a load, and how many edits were answered with which status."""
    found = json.loads(path.read_text(encoding="utf-8"))
    return [Seen(*row) for row in found["seen"]], found["edits"]


def _main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    load = _Load(plan)
    gc.disable()  # a pause of the collector would be measured as latency of the server
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())  # as in `benchmarks.load`
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(load.run())
    text = json.dumps({"seen": load.seen, "edits": load.edits})
    Path(plan.out).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    _main()
