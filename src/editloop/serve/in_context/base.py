"""The protocol of a kind of in-context policy: which past edits it wants, and what it makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

__all__ = [
    "LONGEST_REQUEST",
    "InContextKind",
    "InContextOptions",
    "Messages",
    "PastEdit",
    "shortened",
    "with_paragraph",
]

Messages = Sequence[Mapping[str, Any]]
"""The messages of a request, as in OpenAI's API."""


LONGEST_REQUEST = 2000
"""The characters that are shown of what was asked for a past edit."""


class PastEdit(NamedTuple):
    """What a user once made of a draft.

    Attributes:
        response_id: The draft.
        revision: The number of the edit among those of the draft.
        time: When the draft was asked for, in seconds since 1970.
        asked: What was asked.
        text: What the user kept.
        changed: Whether the user changed the draft at all.
    """

    response_id: str
    revision: int
    time: float
    asked: str
    text: str
    changed: bool


@dataclass(frozen=True)
class InContextOptions:
    """What in-context policies have in common.

    Attributes:
        names: The names of those that are arms from the start.
        similarity: By what requests are compared, a name of `SIMILARITIES`.
        characters: The most characters of the past edits in a prompt.
    """

    names: Sequence[str] = ()
    similarity: str = "words"
    characters: int = 6000


class InContextKind(Protocol):
    """What is put into a prompt.

    Attributes:
        examples: How many past edits it takes by default.
        learns: Whether it takes what each edit says of the user's preferences (`preferences`) in place of
            the edit itself.
    """

    @property
    def examples(self) -> int:
        """See above."""
        ...

    @property
    def learns(self) -> bool:
        """See above."""
        ...

    def wants(self, edit: PastEdit) -> bool:
        """Return whether a past edit can be of use."""
        ...

    def write(self, messages: Messages, found: Sequence[Any]) -> list[dict[str, Any]]:
        """Return the messages of the prompt.

        Args:
            messages: What the application asks.
            found: Past edits, the most similar first; or preferences in words, if it `learns`. At least one.
        """
        ...


def shortened(text: str, longest: int) -> str:
    """Return a text of at most so many characters: its beginning and its end, where most of it is said."""
    if len(text) <= longest:
        return text
    half = (longest - 5) // 2
    return f"{text[:half]} ... {text[-half:]}"


def with_paragraph(messages: Messages, paragraph: str) -> list[dict[str, Any]]:
    """Return messages of which the user's last one ends with a further paragraph.

    It is no message of the system: some chat templates refuse one, and others put it in the place of one that
    the base was trained with. If the user says nothing, it is one, at the beginning.
    """
    changed = [dict(message) for message in messages]
    for message in reversed(changed):
        if message.get("role") == "user":
            content = message.get("content")
            if isinstance(content, list):
                message["content"] = [*content, {"type": "text", "text": f"\n\n{paragraph}"}]
            else:
                message["content"] = f"{content or ''}\n\n{paragraph}".lstrip("\n")
            return changed
    return [{"role": "system", "content": paragraph}, *changed]
