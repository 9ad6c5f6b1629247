"""An LLM that says which of two drafts for the same context is better."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.errors import BudgetError, UserError
from editloop.users.ledger import Ledger, LLMSettings

__all__ = ["LLMJudge"]

COMPARE = (
    "Two drafts were written for the same task. Which one would you rather send, after as little editing as "
    "possible?{wish}\n\nThe task was:\n{context}\n\nDraft A:\n{a}\n\nDraft B:\n{b}\n\n"
    "Answer with one word: A, B or tie."
)


class LLMJudge:
    """An LLM that says which of two drafts is better.

    Each pair is judged twice, with the drafts in both orders, because a model may prefer what it reads
    first; if the two verdicts contradict each other, it is a tie.

    Args:
        settings: Which LLM is asked, and how.
        wish: What the reader of the drafts wants, in words, or a function that returns it for a context;
            empty if the judge is to decide by itself.
        transcript: The file for answers; None keeps them in memory only.

    Raises:
        ConfigError: The `openai` package or the key is missing.
        UserError: The transcript is damaged.
    """

    def __init__(
        self,
        settings: LLMSettings,
        wish: str | Callable[[str], str] = "",
        *,
        transcript: Path | str | None = None,
    ) -> None:
        self.settings, self._wish = settings, wish
        self._ledger = Ledger(settings, Path(transcript) if transcript else None)

    def wins(self, context: str, draft: str, other: str) -> float:
        """Return 1 if the draft is better than the other one, 0 if it is worse, and 1/2 for a tie.

        Raises:
            UserError: The endpoint is down, refuses, or answers with something that is no verdict; or the
                budget is spent.
        """
        if draft == other:
            return 0.5
        wish = self._wish(context) if callable(self._wish) else self._wish
        wanted = f" The reader wants: {wish}." if wish else ""
        first = COMPARE.format(wish=wanted, context=context, a=draft, b=other)
        second = COMPARE.format(wish=wanted, context=context, a=other, b=draft)
        forward = _verdict(self._ledger.ask(first, 0, _verdict))
        backward = 1 - _verdict(self._ledger.ask(second, 0, _verdict))
        return forward if forward == backward else 0.5

    def wins_many(
        self, contexts: Sequence[str], drafts: Sequence[str], others: Sequence[str]
    ) -> tuple[NDArray[np.float64], list[str]]:
        """Return the verdict on each pair, and why there is none where there is none.

        Args:
            contexts: What was asked for [n].
            drafts: The drafts [n].
            others: The drafts that they are compared with [n].

        Returns:
            1, 0 or 1/2 for each pair, NaN where the judge gave no verdict, float64 [n]; and a line for each
            of those.

        Raises:
            BudgetError: The budget of requests is spent. What was answered is in the transcript.
        """

        def judged(each: tuple[str, str, str]) -> float | str:
            try:
                return self.wins(*each)
            except BudgetError:  # it would come back for every pair
                raise
            except UserError as error:
                return str(error)

        with ThreadPoolExecutor(self.settings.concurrency) as pool:
            found = list(pool.map(judged, zip(contexts, drafts, others, strict=True)))
        values = np.array([np.nan if isinstance(each, str) else each for each in found], np.float64)
        return values, [each for each in found if isinstance(each, str)]


def _verdict(answer: str) -> float:
    """Return 1 for A, 0 for B and 1/2 for a tie.

    Raises:
        UserError: The answer is none of them.
    """
    words = " ".join(re.findall(r"[a-z]+", answer.lower())).removeprefix("draft ")
    verdicts = {"a": 1.0, "b": 0.0, "tie": 0.5, "a tie": 0.5}
    if words not in verdicts:
        raise UserError("the judge's verdict is neither A, B nor tie", seen=answer, do="use another model")
    return verdicts[words]
