"""Notices: a webhook that answers, one that hangs, and one that is not there."""

from __future__ import annotations

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from editloop.autopilot import notices
from editloop.autopilot.notices import Notices
from editloop.autopilot.stages import Stage, Transition

MOVED = Transition("early@1", Stage.SHADOW, Stage.CANARY, 5.0, reason="not worse", evidence={"n": 60})


@pytest.fixture
def hook():
    """A webhook that keeps what it gets."""
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/hook", got
    server.shutdown()
    server.server_close()


def test_a_transition_is_posted_as_json_with_a_sentence(hook, caplog):
    url, got = hook
    caplog.set_level("INFO", "editloop.autopilot")
    sender = Notices(url)
    sender.send(MOVED)
    sender.close()
    (row,) = got
    assert row["text"] == "early@1: shadow → canary (not worse)" and row["evidence"] == {"n": 60}
    assert (row["subject"], row["before"], row["stage"]) == ("early@1", "shadow", "canary")
    assert "early@1: shadow → canary (not worse)" in caplog.text


def test_without_a_webhook_a_transition_is_only_logged(caplog):
    caplog.set_level("INFO", "editloop.autopilot")
    sender = Notices(None)
    sender.send(MOVED)
    sender.close()
    assert "shadow → canary" in caplog.text


def test_a_webhook_that_hangs_holds_up_nothing(monkeypatch, caplog):
    monkeypatch.setattr(notices, "SECONDS", 0.3)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(10)
        sender = Notices(f"http://127.0.0.1:{silent.getsockname()[1]}/secret-token")
        began = time.monotonic()
        for _ in range(notices.WAITING + 50):
            sender.send(MOVED)
        assert time.monotonic() - began < 5
        assert "only logged" in caplog.text
        sender.close(seconds=1.0)
    assert "secret-token" not in caplog.text


def test_a_webhook_that_is_not_there_is_tried_three_times(caplog):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    sender = Notices(f"http://127.0.0.1:{port}/hook")
    sender.send(MOVED)
    sender.close()
    assert [f"attempt {n}" in caplog.text for n in (1, 2, 3, 4)] == [True, True, True, False]
