"""OpenAI's files for fine-tuning: chats, and preferences between two answers.

developers.openai.com/api/docs/guides/supervised-fine-tuning and .../direct-preference-optimization. A chat
holds only the text that was kept, so it is an accepted draft; of a preference the other answer is the draft.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from editloop.edits.formats.messages import context_of, text_of
from editloop.edits.formats.tool import LeftOut, Row, ToolFormat

__all__ = ["CHAT", "PREFERENCE"]


class _Chat(ToolFormat):
    name, title = "openai-chat", "OpenAI's chats for fine-tuning"

    def is_row(self, row: Row) -> bool:
        return isinstance(row.get("messages"), list) and row.keys() <= {
            "messages",
            "tools",
            "parallel_tool_calls",
            "functions",
        }

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        messages = row["messages"]
        last = messages[-1] if messages and isinstance(messages[-1], dict) else {}
        answer = text_of([last]) if last.get("role") == "assistant" else None
        if row.get("tools") or row.get("functions"):
            yield LeftOut("it has tools")
        elif not answer or last.get("tool_calls") or last.get("function_call"):
            yield LeftOut("the last message is no text of the assistant")
        elif last.get("weight") == 0:
            yield LeftOut("the last message has the weight 0")
        else:
            yield {
                "context": _prompt(messages[:-1]),
                "response": answer,
                "edit": answer,
                "status": "accepted",
            }


class _Preference(ToolFormat):
    name, title = "openai-preference", "OpenAI's preferences for fine-tuning"

    def is_row(self, row: Row) -> bool:
        return {"input", "preferred_output", "non_preferred_output"} <= row.keys()

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        given = row["input"]
        chosen, rejected = (text_of(row[key]) for key in ("preferred_output", "non_preferred_output"))
        if not isinstance(given, dict) or not isinstance(given.get("messages"), list):
            yield LeftOut("the input has no messages")
        elif given.get("tools"):
            yield LeftOut("it has tools")
        elif chosen is None or rejected is None:
            yield LeftOut("an output is no text of the assistant")
        else:
            yield {"context": _prompt(given["messages"]), "response": rejected, "edit": chosen}


def _prompt(messages: list[Any]) -> str | list[Row]:
    """The text alone of a single message by a user, as a server's log has it; a text was exported as that."""
    context = context_of(messages)
    if isinstance(context, list) and len(context) == 1 and context[0].keys() == {"role", "content"}:
        (message,) = context
        return message["content"] if message["role"] == "user" else context
    return context


CHAT, PREFERENCE = _Chat(), _Preference()
