"""Rules over plain text: what each changes by hand, and that each leaves its own result alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.users.text_rules import (
    Rule,
    at_most,
    bullets,
    closing,
    contracted,
    greeting,
    right_facts,
    spelled_out,
    without_phrases,
    without_subject,
)

FACTS = {
    "name": "Ada",
    "topic": "trains",
    "first": "plan",
    "first_state": "ready",
    "second": "report",
    "second_state": "late",
    "day": "Friday",
}
DEAR, HEY = greeting("Dear {name},"), greeting("Hey {name}!")
CHEERS, NONE = closing("Cheers,\nAlex"), closing("")
SHORT = at_most(2)
PLAIN = without_phrases(["I hope this email finds you well", "do not hesitate to contact me"])
LETTER = (
    "Dear Ada,\n\nI hope this email finds you well. The plan is ready. The report is late.\n\n"
    "Please do not hesitate to contact me.\n\nBest regards,\nAlex"
)


@pytest.mark.parametrize(
    ("rule", "text", "expected"),
    [
        (DEAR, "Dear Ada,\n\nAll is well.", "Dear Ada,\n\nAll is well."),
        (DEAR, "Hi Bea, the plan is ready.", "Dear Ada, the plan is ready."),
        (DEAR, "Hello\n\nThe plan is ready.", "Dear Ada,\n\nThe plan is ready."),
        (DEAR, "Good morning Dr. Lee,\nAll is well.", "Dear Ada,\nAll is well."),
        (DEAR, "The plan is ready.", "Dear Ada,\n\nThe plan is ready."),
        (DEAR, "Hiking is fun.", "Dear Ada,\n\nHiking is fun."),
        (DEAR, "", "Dear Ada,"),
        (HEY, "Dear [Recipient's Name],\n\nWow.", "Hey Ada!\n\nWow."),
        (CHEERS, "All is well.\n\nBest regards,\nJane Doe\nManager", "All is well.\n\nCheers,\nAlex"),
        (CHEERS, "All is well.\n\nCheers,\nAlex", "All is well.\n\nCheers,\nAlex"),
        (CHEERS, "All is well.", "All is well.\n\nCheers,\nAlex"),
        (CHEERS, "Thanks to Ada, all is well.", "Thanks to Ada, all is well.\n\nCheers,\nAlex"),
        (NONE, "All is well.\n\nSincerely,\n[Your Name]", "All is well."),
        (NONE, "All is well.", "All is well."),
        (SHORT, "Dear Ada,\n\nOne. Two! Three?\n\nCheers,\nAlex", "Dear Ada,\n\nOne. Two!\n\nCheers,\nAlex"),
        (SHORT, "One. Two.", "One. Two."),
        (SHORT, "One.\nTwo.\nThree.", "One.\nTwo."),
        (PLAIN, LETTER, "Dear Ada,\n\nThe plan is ready. The report is late.\n\nBest regards,\nAlex"),
        (PLAIN, "The plan is ready.", "The plan is ready."),
        (
            contracted,
            "I am glad. We do not wait, and it is late. Do not ask.",
            "I'm glad. We don't wait, and it's late. Don't ask.",
        ),
        (spelled_out, "I'm glad. We don\u2019t wait. Can't you?", "I am glad. We do not wait. Cannot you?"),
        (right_facts, "Dear [Name], meet on Monday. [Your Name]", "Dear Ada, meet on Friday. Alex"),
        (bullets, "Dear Ada,\n\nSo: the plan is ready. Write soon.", "Dear Ada,\n\nSo: the plan is ready."),
        (without_subject, "Subject: The plan\n\nDear Ada,", "Dear Ada,"),
        (without_subject, "The subject: trains.", "The subject: trains."),
    ],
)
def test_what_a_rule_changes(rule: Rule, text: str, expected: str) -> None:
    if rule is bullets:
        expected = "Dear Ada,\n\n- plan: ready\n- report: late\nWrite soon."
    assert rule(text, FACTS) == expected
    assert rule(expected, FACTS) == expected


RULES = [
    DEAR,
    HEY,
    CHEERS,
    NONE,
    SHORT,
    PLAIN,
    contracted,
    spelled_out,
    right_facts,
    bullets,
    without_subject,
]
PIECES = [
    "Dear Ada,",
    "Hi",
    "Hey Bea!",
    " ",
    "\n",
    "\n\n",
    "The plan is ready.",
    "One. ",
    "It is late!",
    "don't ",
    "?",
    "Thanks,",
    "[Your Name]\n",
    "Best regards,\nAlex",
    "I hope this email finds you well.",
    "Monday",
    "Subject: x\n",
    "- plan: ready",
    "report",
    "cheers",
    ",",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join), st.sampled_from(RULES))
def test_a_rule_leaves_its_own_result_alone(text: str, rule: Rule) -> None:
    once = rule(text, FACTS)
    assert rule(once, FACTS) == once


@given(st.text(max_size=60), st.sampled_from(RULES))
def test_any_text_can_be_edited(text: str, rule: Rule) -> None:
    once = rule(text, FACTS)
    assert rule(once, FACTS) == once
