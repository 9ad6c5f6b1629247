"""A load on a server: requests at a fixed rate. A latency is measured from the time when the request was due.

A load that waits for an answer before it sends the next request hides how long other users would have waited
(coordinated omission). This one sends each request when it is due; if the request has to wait for its turn,
that time counts as latency. `python -m benchmarks.load PLAN` prints the measurements as JSON. The module
implements only what its servers need of HTTP.
"""

from __future__ import annotations

import asyncio
import gc
import json
import selectors
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, cast

__all__ = ["Answer", "Client", "Plan", "Seen", "load"]


class Answer(NamedTuple):
    """An answer of a server; the names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body as a JSON value."""
        return json.loads(self.body)


class _Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self.waiting: asyncio.Future[Answer] | None = None
        self.transport: asyncio.Transport | None = None
        self._buffer = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0 or self.waiting is None or self.waiting.done():
            return
        first, *lines = bytes(self._buffer[:end]).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        whole = end + 4 + int(headers.get("content-length", 0))
        if len(self._buffer) >= whole:
            body = bytes(self._buffer[end + 4 : whole])
            del self._buffer[:whole]
            self.waiting.set_result(Answer(int(first.split(" ", 2)[1]), headers, body))

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(ConnectionResetError("the server has closed the connection"))


class Client:
    """Connections to a server on this machine, which are opened as needed and kept.

    Args:
        port: The port of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[_Connection] = []

    async def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 30.0) -> Answer:
        """The answer to a request.

        Raises:
            OSError: The server cannot be reached, or it has closed the connection before it answered.
            TimeoutError: It did not answer in time.
        """
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        )
        loop = asyncio.get_running_loop()
        connection = next((c for c in iter(self._take, None) if c.transport is not None), None)
        if connection is None:
            _, connection = await loop.create_connection(_Connection, "127.0.0.1", self.port)
        if connection.transport is None:
            raise ConnectionResetError("the server has closed the connection")
        connection.waiting = loop.create_future()
        connection.transport.write(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
        try:
            async with asyncio.timeout(timeout):
                answer = await connection.waiting
        except BaseException:
            if connection.transport is not None:
                connection.transport.abort()
            raise
        if answer.headers.get("connection") != "close":
            self._idle.append(connection)
        return answer

    def _take(self) -> _Connection | None:
        return self._idle.pop() if self._idle else None

    def close(self) -> None:
        """Close the idle connections."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.abort()
        self._idle.clear()


@dataclass(frozen=True)
class Plan:
    """A load.

    Attributes:
        port: The port of the server.
        rate: Completions requested per second.
        seconds: How long the load is measured.
        warm_up: Seconds of load before that.
        edits: Share of the completions that are followed by an edit, at once.
        probes: Whether some edits are followed by polls, until the server's statistics count them.
        most: Maximum number of requests under way; further ones wait for their turn.
        patience: Seconds for which answers are awaited after the last request was due.
    """

    port: int
    rate: float
    seconds: float
    warm_up: float = 0.0
    edits: float = 0.0
    probes: bool = False
    most: int = 256
    patience: float = 5.0


@dataclass
class Seen:
    """The measurements of a load; times in milliseconds.

    Attributes:
        planned: The number of completions that were due after the warm-up.
        latencies: Latencies of those that were answered, from the time at which they were due.
        in_time: The number of those that were answered before the end of the load.
        lateness: How much later than due each request was sent, which is the load's own delay.
        edits: Latencies of edits, from the time at which they were sent.
        learned: Times from the acknowledgement of an edit until `GET /v1/arms` counts it.
        failed: The number of failures by reason: a status other than 200, or no answer.
    """

    planned: int
    latencies: list[float]
    in_time: int
    lateness: list[float]
    edits: list[float]
    learned: list[float]
    failed: dict[str, int]


QUESTION = (
    "Write an e-mail to Ada, who leads the documentation team, and invite her to the demo of the new editor "
    "on Friday at ten. Mention that it takes half an hour, that there is time for questions, and that a seat "
    "has to be reserved. Keep it short and friendly, and sign as Bob. This is request number"
)
USERS = 20


def question(number: int, user: int) -> dict[str, Any]:
    """The body of a request for a completion."""
    return {
        "model": "editloop",
        "messages": [{"role": "user", "content": f"{QUESTION} {number}."}],
        "user": f"user-{user}",
        "max_tokens": 128,
    }


class _Load:
    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.client = Client(plan.port)
        self.count = round((plan.warm_up + plan.seconds) * plan.rate)
        self.first = self.count - round(plan.seconds * plan.rate)
        self.end = 0.0
        self.sent_edits = 0
        self.seen = Seen(self.count - self.first, [], 0, [], [], [], {})
        self.failed: Counter[str] = Counter()

    async def run(self) -> Seen:
        loop, plan = asyncio.get_running_loop(), self.plan
        if plan.probes:
            self.sent_edits = await self._observed()
        room = asyncio.Semaphore(plan.most)
        start = loop.time() + 0.05
        self.end = start + self.count / plan.rate
        tasks: set[asyncio.Task[None]] = set()
        for number in range(self.count):
            due = start + number / plan.rate
            if (wait := due - loop.time()) > 0:
                await asyncio.sleep(wait)
            try:
                async with asyncio.timeout_at(self.end + plan.patience):
                    await room.acquire()
            except TimeoutError:
                self.failed["not sent"] += self.count - max(number, self.first)
                break
            if number >= self.first:
                self.seen.lateness.append(1000 * max(loop.time() - due, 0.0))
            task = asyncio.create_task(self._one(number, due))
            tasks.add(task)
            task.add_done_callback(lambda _: room.release())
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks, timeout=max(self.end + plan.patience - loop.time(), 0.1))
        for task in tasks:
            task.cancel()
        self.client.close()
        self.seen.failed = dict(self.failed)
        return self.seen

    async def _one(self, number: int, due: float) -> None:
        """Send one request for a completion, and perhaps an edit of the response."""
        loop, counts = asyncio.get_running_loop(), number >= self.first
        patience = self.plan.patience + max(self.end - loop.time(), 0.0)
        try:
            body = question(number, number % USERS)
            answer = await self.client.ask("POST", "/v1/chat/completions", body, timeout=patience)
            now = loop.time()
            if counts and answer.status == 200:
                self.seen.latencies.append(1000 * (now - due))
                self.seen.in_time += now <= self.end
            elif counts:
                self.failed[f"status {answer.status}"] += 1
            if answer.status == 200 and (number * self.plan.edits) % 1 + self.plan.edits >= 1 - 1e-9:
                await self._edit(number, answer.headers["x-editloop-response-id"])
        except (OSError, TimeoutError) as error:
            if counts:
                self.failed[type(error).__name__] += 1

    async def _edit(self, number: int, response_id: str) -> None:
        loop = asyncio.get_running_loop()
        body = {"response_id": response_id, "edit": f"Dear Ada, please come to demo {number} on Friday. Bob"}
        self.sent_edits += 1
        sent = loop.time()
        answer = await self.client.ask("POST", "/v1/edits", body)
        acknowledged = loop.time()
        if answer.status != 200:
            self.failed[f"edit: status {answer.status}"] += 1
            return
        if number < self.first:
            return
        self.seen.edits.append(1000 * (acknowledged - sent))
        if self.plan.probes and len(self.seen.edits) % max(round(self.plan.rate * self.plan.edits), 1) == 1:
            # Until all edits that were sent so far are counted, including this one. That takes at least as
            # long as for this one alone, so the time is never too short.
            wanted = self.sent_edits
            while await self._observed() < wanted:
                await asyncio.sleep(0.002)
            self.seen.learned.append(1000 * (loop.time() - acknowledged))

    async def _observed(self) -> int:
        """The number of edits that the server's statistics count."""
        arms = (await self.client.ask("GET", "/v1/arms")).json()["data"]
        return round(sum(float(arm["observed"]) for arm in arms))


async def load(plan: Plan) -> Seen:
    """Put a load on a server, and return the measurements."""
    return await _Load(plan).run()


def _main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    gc.disable()  # a pause of the collector would be measured as latency of the server
    # select() takes its timeout in microseconds, epoll only in milliseconds, which would make requests late.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        print(json.dumps(asdict(runner.run(load(plan)))))


if __name__ == "__main__":
    _main()
