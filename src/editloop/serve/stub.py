"""A stub model server: it has no model and answers at once, so that what is in front of it can be tested.

`python -m editloop.serve.stub` prints its port and runs; `editloop.serve.testing.stub_server` does that. It
implements only what its clients need of HTTP; what it says is in `stub_answers`. A request with a mark such
as `[hang 7]` in its text is never answered when it arrives for the first time, as if the server had been
killed in the meantime. `/v1/received` shows the last requests for completions, so that a test sees what a
model would have got.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections import deque
from contextlib import suppress
from typing import cast

from editloop.serve.stub_answers import body_of

__all__: list[str] = []

HANG = re.compile(rb"\[hang \d+\]")


class _Models:
    """What connections share: the models' names, marks of requests left hanging, bodies of the last ones."""

    def __init__(self) -> None:
        self.names = ["stub"]
        self.hanging: set[bytes] = set()
        self.received: deque[bytes] = deque(maxlen=100)

    def answer(self, path: bytes, body: bytes) -> bytes | None:
        """The body of an answer; None leaves the request hanging."""
        if path.endswith(b"/received"):
            return b"[" + b",".join(self.received) + b"]"
        if path.endswith(b"/chat/completions"):
            self.received.append(body)
            for mark in HANG.findall(body):
                if mark not in self.hanging:
                    self.hanging.add(mark)
                    return None
            return body_of(body)
        if path.endswith(b"/models"):
            return json.dumps({"data": [{"id": name, "object": "model"} for name in self.names]}).encode()
        if path.endswith(b"/load_lora_adapter"):
            self.names.append(json.loads(body)["lora_name"])
        return b"{}"


class _Connection(asyncio.Protocol):
    def __init__(self, models: _Models) -> None:
        self._models = models
        self._buffer = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        self._buffer += data
        while (end := self._buffer.find(b"\r\n\r\n")) >= 0:
            head = self._buffer[:end]
            found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            whole = end + 4 + (int(found[1]) if found else 0)
            if len(self._buffer) < whole:
                return
            body, self._buffer = self._buffer[end + 4 : whole], self._buffer[whole:]
            answer = self._models.answer(head.split(b" ", 2)[1], body)
            if answer is not None:
                self._transport.write(
                    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                    % (len(answer), answer)
                )


async def _serve() -> None:
    models = _Models()
    server = await asyncio.get_running_loop().create_server(lambda: _Connection(models), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def _main() -> None:
    factory = None
    with suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner, suppress(KeyboardInterrupt):
        runner.run(_serve())


if __name__ == "__main__":
    _main()
