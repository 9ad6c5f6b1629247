"""Load for a server: requests at a fixed rate, each counted from the moment at which it was due.

A load that waits for answers before it asks again hides how long others would have waited (coordinated
omission). This one asks when it is time; a request that had to wait for its turn was late, and that counts.
Run as `python -m benchmarks.load PLAN`, it prints what it saw as JSON. It knows no more of HTTP than
its servers need.
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
    """What a server answers; names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        """The body."""
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
            self.waiting.set_exception(ConnectionResetError("the server has gone"))


class Client:
    """Connections to a server on this machine, kept and opened as they are needed.

    Args:
        port: Of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._idle: list[_Connection] = []

    async def ask(self, method: str, path: str, body: Any = None, *, timeout: float = 30.0) -> Answer:
        """The answer to a request.

        Raises:
            OSError: The server is not there, or went before it answered.
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
            raise ConnectionResetError("the server has gone")
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
        """Let go of the connections."""
        for connection in self._idle:
            if connection.transport is not None:
                connection.transport.abort()
        self._idle.clear()


@dataclass(frozen=True)
class Plan:
    """A load.

    Attributes:
        port: Of the server.
        rate: Completions asked for per second.
        seconds: For which it is measured.
        warm_up: Seconds before that.
        edits: Share of the completions that are followed by an edit, at once.
        probes: Whether it is asked after some edits when the server's statistics know them.
        most: Requests under way at a time; more wait for their turn.
        patience: Seconds after the last request was due in which answers are waited for.
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
    """What was seen of a load; times in milliseconds.

    Attributes:
        planned: Completions that were due after the warm-up.
        latencies: Of those that were answered, from when they were due.
        in_time: How many were answered before the load's end.
        lateness: How much later than due the load itself asked.
        edits: Latencies of edits, from when they were sent.
        learned: From an edit's acknowledgement until GET /v1/arms counts it.
        failed: Answers other than 200, and how many there were none to.
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
    """A request for a completion."""
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
        """A completion, and its edit."""
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
            # Until all that were sent so far are counted, this one among them: longer than it takes.
            wanted = self.sent_edits
            while await self._observed() < wanted:
                await asyncio.sleep(0.002)
            self.seen.learned.append(1000 * (loop.time() - acknowledged))

    async def _observed(self) -> int:
        """How many edits the server's statistics know."""
        arms = (await self.client.ask("GET", "/v1/arms")).json()["data"]
        return round(sum(float(arm["observed"]) for arm in arms))


async def load(plan: Plan) -> Seen:
    """Put a load on a server."""
    return await _Load(plan).run()


def _main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    gc.disable()  # its pauses would be the server's
    # select() waits to the microsecond, epoll to the millisecond.
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        print(json.dumps(asdict(runner.run(load(plan)))))


if __name__ == "__main__":
    _main()
