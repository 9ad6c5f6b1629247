"""An OpenAI-compatible endpoint on loopback, whose answers a test decides."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[str], "str | tuple[int, dict[str, str]]"]


class Server:
    """Answers chat completions by a function of the prompt: a text, or a status with headers."""

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.most_at_once = self.at_once = 0
        self.answer: Answer = by_style
        self.reason = "stop"
        lock, server = threading.Lock(), self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                prompt = body["messages"][-1]["content"]
                with lock:
                    server.prompts.append(prompt)
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                answer = server.answer(prompt)
                with lock:
                    server.at_once -= 1
                if isinstance(answer, tuple):
                    self.send_response(answer[0])
                    for key, value in answer[1].items():
                        self.send_header(key, value)
                    content = b"{}"
                else:
                    self.send_response(200)
                    content = answer.encode() if answer.startswith("<") else completion(answer, server.reason)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


def completion(text: str, reason: str) -> bytes:
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return json.dumps({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage}).encode()


def by_style(prompt: str) -> str:
    """Wants text that begins with Dear."""
    draft = prompt.split("A draft:\n")[1].split("\n\n")[0]
    if "yes or no" in prompt:
        return "Yes." if draft.startswith("Dear") else "No."
    return f"Dear {draft}"
