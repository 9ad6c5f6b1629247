"""Rules for responses that do not do what was asked."""

from __future__ import annotations

import pytest

from editloop.edits.non_answers import LONGEST, NON_ANSWERS, find_non_answer
from editloop.errors import ConfigError

FOUND = {
    "": "empty",
    " …\n": "empty",
    "I'm sorry, but I can't help with that.": "refusal",
    "I’m sorry, but I can’t assist you.": "refusal",
    "Sorry, I cannot do this.": "refusal",
    "Unfortunately, I am unable to assist.": "refusal",
    "I cannot write this email.": "refusal",
    "As an AI language model, I cannot have opinions.": "refusal",
    # Two that SmolLM2-135M wrote after DPO on letters.
    "I am so sorry to mention it, but I am unable to provide the requested information.": "refusal",
    "I'm sorry for any inconvenience, but as a text-based AI, I'm unable to respond.": "refusal",
    "Could you tell me more about the recipient? What tone do you want?": "question",
    "Sure! Please provide the text you would like me to summarize.": "question",
    "I can do that. Which of your friends is it for?": "question",
}
ANSWERS = [
    "Hi Ada,\n\nCan you send me the report by Friday?\n\nThanks,\nBob",
    "Dear Bob,\n\nI'm sorry I can't come on Friday. I have a cold and will stay at home.\n\nBest,\nAda",
    "What are scientific revolutions, and what is their role?",  # a translation of a question
    "The meeting is on Friday. It is about the demo. Any questions?",
    "I cannot recommend this restaurant enough.",
    "Unfortunately the shop is closed.",
    "Done.",
    "Here is a draft. " * 40 + "Would you like me to change it?",
    "I'm sorry, but I can't help. " + "However, here is a long letter about it. " * 20,
]


@pytest.mark.parametrize("text", FOUND)
def test_what_is_no_answer(text: str) -> None:
    assert find_non_answer(text) == FOUND[text]


@pytest.mark.parametrize("text", ANSWERS)
def test_what_is_an_answer(text: str) -> None:
    assert find_non_answer(text) is None


def test_a_long_text_is_looked_at_quickly() -> None:
    assert find_non_answer("Could you " * 1_000_000 + "?") is None
    assert find_non_answer("sorry " + "i" * 1_000_000) is None
    assert find_non_answer("sorry, i " * (LONGEST // 2)) is None


def test_a_rule_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NON_ANSWERS.registered, "todo", lambda text: text.strip() == "TODO")
    assert find_non_answer("TODO\n") == "todo"
    with pytest.raises(ConfigError, match="rule for non-answers"):
        NON_ANSWERS.get("nonsense")
