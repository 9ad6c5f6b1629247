"""What a response says: its output items, which grow with the chunks, and the events that tell of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from editloop.serve.api.responses.earlier import item_id
from editloop.serve.backends.base import BackendUnavailableError, Chunk

__all__ = ["Event", "Output", "status_of", "usage_of"]

Event = tuple[str, dict[str, Any]]
"""The type of an event, and what it says beside its number. It is to be used before the next one is taken."""

PARTS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "output_text": ("text", {"annotations": [], "logprobs": []}),
    "refusal": ("refusal", {}),
}
"""The types of parts of a message: the field that holds the text, and the other fields."""


class Output:
    """The output items of one response.

    Args:
        response_id: The response.

    Attributes:
        items: The items so far; all but the last one are complete.
    """

    def __init__(self, response_id: str) -> None:
        self._response_id = response_id
        self.items: list[dict[str, Any]] = []
        self._call: int | None = None  # the index of the call that is open, as chunks have it
        self._is_open = False

    def add(self, chunk: Chunk) -> Iterator[Event]:
        """Add a chunk of a chat completion, and yield the events of what it adds.

        Raises:
            BackendUnavailableError: Its tool calls have another form than that of the API, or alternate.
        """
        delta = chunk.delta
        if isinstance(text := delta.get("content"), str) and text:
            entries = chunk.logprobs.get("content") if isinstance(chunk.logprobs, dict) else None
            yield from self._text("output_text", text, {"logprobs": entries or []})
        if isinstance(text := delta.get("refusal"), str) and text:
            yield from self._text("refusal", text, {})
        for part in _calls(delta.get("tool_calls") or []):
            yield from self._arguments(*part)

    def end(self, status: str) -> Iterator[Event]:
        """Complete the last item, and yield its events. A response that says nothing has an empty message."""
        if not self.items:
            yield from self._begin_message("output_text")
        yield from self._close("completed" if status == "completed" else "incomplete")

    # Messages

    def _text(self, kind: str, text: str, more: dict[str, Any]) -> Iterator[Event]:
        if not self._is_open or self.items[-1]["type"] != "message":
            yield from self._close()
            yield from self._begin_message(kind)
        elif self.items[-1]["content"][-1]["type"] != kind:
            yield from self._end_part()
            yield from self._begin_part(kind)
        part = self.items[-1]["content"][-1]
        part[PARTS[kind][0]] += text
        if kind == "output_text":
            part["logprobs"] += more["logprobs"]
        yield f"response.{kind}.delta", self._place() | {"delta": text} | more

    def _begin_message(self, kind: str) -> Iterator[Event]:
        yield from self._begin({"type": "message", "role": "assistant", "content": []}, "msg")
        yield from self._begin_part(kind)

    def _begin_part(self, kind: str) -> Iterator[Event]:
        field, more = PARTS[kind]
        part = {"type": kind, field: ""} | {name: list(each) for name, each in more.items()}
        self.items[-1]["content"].append(part)
        yield "response.content_part.added", self._place() | {"part": part}

    def _end_part(self) -> Iterator[Event]:
        part = self.items[-1]["content"][-1]
        kind = part["type"]
        whole = {name: each for name, each in part.items() if name not in ("type", "annotations")}
        yield f"response.{kind}.done", self._place() | whole
        yield "response.content_part.done", self._place() | {"part": part}

    def _place(self) -> dict[str, Any]:
        """Where the last item is, and the last part in it."""
        item = self.items[-1]
        place = {"item_id": item["id"], "output_index": len(self.items) - 1}
        return place | ({"content_index": len(item["content"]) - 1} if item["type"] == "message" else {})

    # Calls of functions

    def _arguments(self, index: int, call_id: str, name: str, arguments: str) -> Iterator[Event]:
        if self._call is not None and index < self._call:
            raise BackendUnavailableError("error", "tool calls whose parts alternate")
        if not self._is_open or self._call != index:
            yield from self._close()
            item = {"type": "function_call", "call_id": call_id, "name": name, "arguments": ""}
            yield from self._begin(item, "fc")
            self._call = index
        if arguments:
            self.items[-1]["arguments"] += arguments
            yield "response.function_call_arguments.delta", self._place() | {"delta": arguments}

    # Items

    def _begin(self, item: dict[str, Any], kind: str) -> Iterator[Event]:
        number = len(self.items)
        item |= {"id": item_id(kind, self._response_id, number), "status": "in_progress"}
        self.items.append(item)
        self._is_open = True
        yield "response.output_item.added", {"output_index": number, "item": item}

    def _close(self, status: str = "completed") -> Iterator[Event]:
        if not self._is_open:
            return
        item = self.items[-1]
        if item["type"] == "message":
            yield from self._end_part()
        else:
            whole = {"name": item["name"], "arguments": item["arguments"]}
            yield "response.function_call_arguments.done", self._place() | whole
        item["status"], self._is_open = status, False
        yield "response.output_item.done", {"output_index": len(self.items) - 1, "item": item}


def _calls(parts: Any) -> list[tuple[int, str, str, str]]:
    """The index, the id, the name and the arguments of each part; those of a whole message have no index.

    Raises:
        BackendUnavailableError: They have another form than that of the API.
    """
    try:
        found = []
        for place, part in enumerate(parts):
            function = part.get("function") or {}
            texts = [part.get("id") or "", function.get("name") or "", function.get("arguments") or ""]
            found.append((int(part.get("index", place)), "" + texts[0], "" + texts[1], "" + texts[2]))
        return found
    except (AttributeError, TypeError, ValueError) as error:
        raise BackendUnavailableError("error", "not the parts of tool calls") from error


def status_of(finish: str) -> tuple[str, dict[str, Any] | None]:
    """The status of a response, and why it is incomplete, by the reason why its completion ended."""
    if finish == "length":
        return "incomplete", {"reason": "max_output_tokens"}
    if finish == "content_filter":
        return "incomplete", {"reason": "content_filter"}
    return "completed", None


def usage_of(usage: Mapping[str, Any] | None) -> dict[str, Any]:
    """The counts of tokens in the words of this API; 0 where they are not known, as in a chat completion."""

    def tokens(name: str, below: str | None = None) -> int:
        found: Any = usage if below is None else (usage or {}).get(below)
        value = found.get(name) if isinstance(found, dict) else None
        return value if isinstance(value, int) else 0

    prompt, written = tokens("prompt_tokens"), tokens("completion_tokens")
    cached = tokens("cached_tokens", "prompt_tokens_details")
    thought = tokens("reasoning_tokens", "completion_tokens_details")
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached},
        "output_tokens": written,
        "output_tokens_details": {"reasoning_tokens": thought},
        "total_tokens": tokens("total_tokens") or prompt + written,
    }
