"""`preference`: what the nearest past edits say of the user's preferences, in words, below what is asked.

That is CIPHER (Gao et al. 2024, arXiv 2404.15269): a preference is inferred from each edit, and those of the
k nearest contexts are aggregated. Here they are listed, each once. CIPHER asks the model to merge them, which
is a further call for each request, before its answer can begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from editloop.serve.in_context.base import Messages, PastEdit, with_paragraph

__all__ = ["PREFERENCE", "Preference"]


@dataclass(frozen=True)
class Preference:
    """Preferences in words; see `InContextKind`."""

    examples: int = 5
    learns: bool = True

    def wants(self, edit: PastEdit) -> bool:
        """See `InContextKind.wants`: a draft that was kept as it was says nothing new."""
        return edit.changed

    def write(self, messages: Messages, found: Sequence[str]) -> list[dict[str, Any]]:
        """See `InContextKind.write`."""
        listed = "\n".join(f"- {text}" for text in found)
        paragraph = f"I changed earlier drafts. From that, my preferences seem to be:\n{listed}"
        return with_paragraph(messages, f"{paragraph}\nPlease write accordingly.")


PREFERENCE = Preference()
