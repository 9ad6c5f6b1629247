"""`retrieval`: the most similar past edits of this user as turns of the chat, before what is asked now.

Each is what the user asked then, and the text that they kept, as if the assistant had written it. The draft
is left out, which takes as many tokens again and is what the user did not want. Turns are the strongest
delimiters that a chat has, because the model's template marks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editloop.serve.in_context.base import LONGEST_REQUEST, Messages, PastEdit, shortened

__all__ = ["RETRIEVAL", "Retrieval"]


@dataclass(frozen=True)
class Retrieval:
    """Past edits as turns; see `InContextKind`."""

    examples: int = 4
    learns: bool = False

    def wants(self, edit: PastEdit) -> bool:
        """See `InContextKind.wants`: a draft that was kept as it was shows what is liked, too."""
        return True

    def write(self, messages: Messages, found: Sequence[PastEdit]) -> list[dict[str, Any]]:
        """See `InContextKind.write`. They follow the system's messages; the most similar one comes last."""
        given = [dict(message) for message in messages]
        head = 0
        while head < len(given) and given[head].get("role") in ("system", "developer"):
            head += 1
        turns = []
        for edit in reversed(found):
            turns.append({"role": "user", "content": shortened(edit.asked, LONGEST_REQUEST)})
            turns.append({"role": "assistant", "content": edit.text})
        return [*given[:head], *turns, *given[head:]]


RETRIEVAL = Retrieval()
