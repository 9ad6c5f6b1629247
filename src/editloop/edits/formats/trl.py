"""Preference data sets on the Hugging Face hub, as TRL reads them: prompt, chosen and rejected.

huggingface.co/docs/trl/dataset_formats. Each is a text or a list of messages; where there is no prompt, it is
what the two conversations have in common. The export of the same name writes them.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import takewhile
from typing import Any

from editloop.edits.formats.messages import context_of, text_of
from editloop.edits.formats.tool import LeftOut, Row, ToolFormat

__all__ = ["DPO"]


class _Preferences(ToolFormat):
    name, title = "trl-dpo", "preferences (prompt, chosen, rejected)"

    def is_row(self, row: Row) -> bool:
        return {"chosen", "rejected"} <= row.keys()

    def drafts(self, row: Row, corrections: list[Row]) -> Iterable[Row | LeftOut]:
        chosen, rejected, prompt = row["chosen"], row["rejected"], row.get("prompt")
        if isinstance(chosen, list) and isinstance(rejected, list):
            shared = _shared(chosen, rejected)
            # Some sets repeat the prompt in both conversations. What they share beyond the last turn of the
            # user would be the beginning of an answer, and is none in a list of messages.
            prompt, chosen, rejected = prompt or shared, chosen[len(shared) :], rejected[len(shared) :]
        elif prompt is None and isinstance(chosen, str) and isinstance(rejected, str):
            prompt, chosen, rejected = _split(chosen, rejected)
        texts = [_single(each) for each in (chosen, rejected)]
        if not prompt:
            yield LeftOut("no prompt, and none that both conversations begin with")
        elif texts[0] is None or texts[1] is None:
            yield LeftOut("chosen or rejected is not one answer of text")
        else:
            yield {"context": context_of(prompt), "response": texts[1], "edit": texts[0]}


def _shared(chosen: list[Any], rejected: list[Any]) -> list[Any]:
    """The messages that both conversations begin with, without the last one of either: that is the answer."""
    pairs = zip(chosen[:-1], rejected[:-1], strict=False)
    return [one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs)]


def _single(answer: Any) -> str | None:
    if isinstance(answer, list):
        said = answer[0] if len(answer) == 1 and isinstance(answer[0], dict) else {}
        return text_of(answer) if said.get("role") == "assistant" else None
    return answer if isinstance(answer, str) else None


ASSISTANT = "\n\nAssistant:"
"""Before each answer in conversations that are one text, as in Anthropic's hh-rlhf."""


def _split(chosen: str, rejected: str) -> tuple[str | None, str, str]:
    """Return prompt and answers of two conversations that are texts."""
    prompt, mark, answer = chosen.rpartition(ASSISTANT)
    other, _, alternative = rejected.rpartition(ASSISTANT)
    same = bool(mark) and prompt == other
    return (prompt + mark if same else None), answer.strip(), alternative.strip()


DPO = _Preferences()
