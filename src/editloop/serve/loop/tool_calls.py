"""Tool calls of a streamed response: the parts in which they arrive, put together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from editloop.serve.backends.base import BackendUnavailableError

__all__ = ["ToolCalls"]


class ToolCalls:
    """The tool calls of one response, as in OpenAI's API: parts of a call have its index."""

    def __init__(self) -> None:
        self._calls: dict[int, dict[str, Any]] = {}

    def add(self, parts: Sequence[Mapping[str, Any]]) -> None:
        """Add the `tool_calls` of a delta, or those of a whole message, which have no index.

        Raises:
            BackendUnavailableError: They have another form than that of the API.
        """
        try:
            for place, part in enumerate(parts):
                call = self._calls.setdefault(
                    int(part.get("index", place)),
                    {"id": "", "type": "function", "function": {"name": "", "arguments": ""}},
                )
                call["id"] = part.get("id") or call["id"]
                function = part.get("function") or {}
                call["function"]["name"] += function.get("name") or ""
                call["function"]["arguments"] += function.get("arguments") or ""
        except (AttributeError, TypeError, ValueError) as error:
            raise BackendUnavailableError("error", "not the parts of tool calls") from error

    @property
    def whole(self) -> list[dict[str, Any]]:
        """The calls so far, in the order of their indices."""
        return [self._calls[index] for index in sorted(self._calls)]
