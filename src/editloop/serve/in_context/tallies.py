"""What in-context policies cost beside their drafts: how often prompts were extended, and by how much."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from editloop.serve.backends.base import PromptedRequest
from editloop.serve.loop.logged_text import token_count

__all__ = ["CHARACTERS_PER_TOKEN", "PromptTallies", "PromptTally", "added_tokens", "used_tokens"]

CHARACTERS_PER_TOKEN = 4
"""The characters of a token, where neither the backend nor its usage says how many tokens there are."""


@dataclass
class PromptTally:
    """What was counted of an arm since this process began.

    Attributes:
        requests: The requests that it got.
        extended: Those whose prompt was extended and answered.
        failed: Those for which there were past edits that could not be used, or that could not be read. The
            rest are of users without edits.
        prompt_tokens: By how many tokens the prompts were longer than what was asked.
        learning_tokens: The tokens, of prompts and answers, by which preferences were asked.
    """

    requests: int = 0
    extended: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    learning_tokens: int = 0


class PromptTallies:
    """Tallies by arm."""

    def __init__(self) -> None:
        self.by_arm: dict[str, PromptTally] = {}

    def of(self, arm: str) -> PromptTally:
        """The tally of an arm."""
        return self.by_arm.setdefault(arm, PromptTally())

    def figures(self, arm: str) -> dict[str, Any] | None:
        """The tally of an arm as JSON types; None for one that is no in-context policy, or got no request."""
        return asdict(self.by_arm[arm]) if arm in self.by_arm else None


def added_tokens(prompt: PromptedRequest, usage: Mapping[str, Any] | None, counted: int | None) -> int:
    """Return by how many tokens a prompt is longer than what was asked.

    Args:
        prompt: The prompt.
        usage: The counts of tokens that came with the answer. Of the prompt's, those that were added have the
            same share as of its characters.
        counted: How many the backend counts; None if it cannot.
    """
    if counted is not None:
        return counted
    whole, asked = characters(prompt["messages"]), characters(prompt.asked["messages"])
    tokens = token_count(usage, "prompt_tokens")
    if tokens is None or whole == 0:
        return round((whole - asked) / CHARACTERS_PER_TOKEN)
    return round(tokens * (whole - asked) / whole)


def used_tokens(messages: Any, answer: str | None, usage: Mapping[str, Any] | None) -> int:
    """Return the tokens of a prompt and its answer."""
    tokens = token_count(usage, "total_tokens")
    if tokens is not None:
        return tokens
    return round((characters(messages) + len(answer or "")) / CHARACTERS_PER_TOKEN)


def characters(messages: Any) -> int:
    """Return the characters of the texts of messages."""
    total = 0
    for message in messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"text": content}]
        texts = (part.get("text") for part in parts if isinstance(part, Mapping))
        total += sum(len(text) for text in texts if isinstance(text, str))
    return total
