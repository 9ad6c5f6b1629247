"""The LLM user: judges whether a response suits a style, and revises it if not.

Its answers are kept in a transcript (`editloop.users.ledger`). This module does not know where contexts and
styles come from.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from pathlib import Path
from typing import Any

from editloop.errors import UserError
from editloop.users.ledger import Ledger, LLMSettings

__all__ = ["LLMUser"]

JUDGE = (
    "You are a writer with fixed habits. You only ever use text in this style: {style}.\n\n"
    "The task was:\n{context}\n\nA draft:\n{response}\n\n"
    "Could you use this draft as it is? Answer with one word, yes or no."
)
REVISE = (
    "You are a writer with fixed habits. You only ever use text in this style: {style}.\n\n"
    "The task was:\n{context}\n\nA draft:\n{response}\n\n"
    "Revise the draft so that it has your style. Keep what is right word for word, change as little as you "
    "can, and answer with the revised text alone."
)


class LLMUser:
    """A user played by an LLM: q(y' | x, y) of the paper's experiments.

    Args:
        settings: Which LLM is asked, and how.
        style: The style that the user wants, in words; or a function that returns it for a context.
        transcript: The file for answers; None keeps them in memory only.
        name: The name under which the user's edits are logged.

    Raises:
        ConfigError: The `openai` package or the key is missing.
        UserError: The transcript is damaged.
    """

    def __init__(
        self,
        settings: LLMSettings,
        style: str | Callable[[str], str],
        *,
        transcript: Path | str | None = None,
        name: str = "llm",
    ) -> None:
        self.llm, self.name = settings, name
        self._style = style
        self._ledger = Ledger(settings, Path(transcript) if transcript else None)

    @property
    def settings(self) -> Mapping[str, Any]:
        """See `User.settings`: the model and how it is asked; not a style that depends on the context."""
        asked = {key: getattr(self.llm, key) for key in ("model", "base_url", "temperature", "max_tokens")}
        return asked | {"style": None if callable(self._style) else self._style}

    @property
    def requests(self) -> int:
        """The number of requests that were answered, those of earlier runs in the transcript included."""
        return len(self._ledger.answers)

    def with_style(self, style: str | Callable[[str], str]) -> LLMUser:
        """Return a user with another style, who shares the LLM, its transcript and its budget."""
        other = copy(self)
        other._style = style
        return other

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        """Return the response if it suits the style, else its revision.

        Args:
            context: What was asked for.
            response: The draft.
            round: The number of the round; the same draft is judged anew in another round.

        Raises:
            UserError: The endpoint is down, refuses, or gives an answer that cannot be used; or the budget
                is spent.
        """
        style = self._style(context) if callable(self._style) else self._style
        parts = {"style": style, "context": context, "response": response}
        verdict = self._ledger.ask(JUDGE.format(**parts), round, _verdict)
        if _verdict(verdict):
            return response
        return self._ledger.ask(REVISE.format(**parts), round, _revision).strip()

    def edit_many(self, contexts: Sequence[str], responses: Sequence[str], *, round: int = 0) -> list[str]:
        """Return the edits of many responses in their order, asking for `concurrency` at a time."""
        with ThreadPoolExecutor(self.llm.concurrency) as pool:
            return list(
                pool.map(lambda pair: self.edit(*pair, round=round), zip(contexts, responses, strict=True))
            )


def _verdict(answer: str) -> bool:
    """Return whether the draft suits the style.

    Raises:
        UserError: The answer is neither yes nor no.
    """
    word = answer.strip().lower().lstrip("*\"'")
    if not word.startswith(("yes", "no")):
        raise UserError("the user's verdict is neither yes nor no", seen=word, do="use another model")
    return word.startswith("yes")


def _revision(answer: str) -> None:
    if not answer.strip():
        raise UserError("the user's revision is empty", seen=answer)
