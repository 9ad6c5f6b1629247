"""Rules over plain text: what each changes by hand, and that each leaves its own result alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.users.fact_rules import (
    at_most,
    keeps_to,
    listed,
    right_facts,
    states,
    without_inventions,
)
from editloop.users.text_rules import (
    Rule,
    closing,
    contracted,
    ending,
    greeting,
    join_parts,
    sentences,
    short_sentences,
    spelled_out,
    split_parts,
    whole_sentences,
    without_phrases,
    without_preamble,
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
FIRST, SECOND, DAY = ("first", "first_state"), ("second", "second_state"), ("day",)
LIST = listed((FIRST, "- {first}: {first_state}"), (SECOND, "- {second}: {second_state}"))
SHORT, KEPT = at_most(2), at_most(2, SECOND, DAY)
ABOUT, DUE = keeps_to(FIRST, SECOND, DAY), states(DAY, "It is due on {day}.")
TOPIC = states(("topic",), "This is about {topic}.", first=True)
BRIEF = short_sentences(3)
MORE = ending("More soon 🚀")
PLAIN = without_phrases(["I hope this email finds you well", "do not hesitate to contact me"])
LETTER = (
    "Dear Ada,\n\nI hope this email finds you well. The plan is ready. The report is late.\n\n"
    "Please do not hesitate to contact me.\n\nBest regards,\nAlex"
)


ITEMS = "- plan: ready\n- report: late"


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
        (LIST, "Hi.\nSo: the plan is ready. Write soon.", f"Hi.\n{ITEMS}\nWrite soon."),
        (LIST, "Dear Ada,\n\nWrite soon.\n\nCheers", f"Dear Ada,\n\nWrite soon.\n{ITEMS}\n\nCheers"),
        (LIST, "The report is late, the plan ready. The plan is ready.", ITEMS),
        (LIST, "- plan: ready\n- report: early", f"{ITEMS}\n- report: early"),
        (KEPT, "One. The report is late. Two. See you on Friday.", "The report is late. See you on Friday."),
        (KEPT, "One. Two. Three. It is Friday.", "One. It is Friday."),
        (ABOUT, "Wow. The PLAN is ready. The plan is old.\n\nFriday?", "The PLAN is ready.\n\nFriday?"),
        (ABOUT, "Hi Ada,\n\nThe readying of plans.\n\nCheers,\nAlex", "Hi Ada,\n\nCheers,\nAlex"),
        (DUE, "The plan is ready.", "The plan is ready. It is due on Friday."),
        (DUE, "Dear Ada,\n\n- plan: ready", "Dear Ada,\n\n- plan: ready\nIt is due on Friday."),
        (DUE, "Dear Ada,\n\nCheers,\nAlex", "Dear Ada,\n\nIt is due on Friday.\n\nCheers,\nAlex"),
        (DUE, "", "It is due on Friday."),
        (TOPIC, "Dear Ada,\n\nAll is well.", "Dear Ada,\n\nThis is about trains. All is well."),
        (TOPIC, "Trains are late.", "Trains are late."),
        (MORE, "All is well.\n\nCheers,\nAlex", "All is well.\nMore soon 🚀\n\nCheers,\nAlex"),
        (
            without_inventions,
            "Hi Ada,\n\nI'm late. Ask Bea! Ada's plan. It is 5.",
            "Hi Ada,\n\nI'm late. Ada's plan.",
        ),
        (without_inventions, "Meet me tomorrow. See [link]. On Friday.", "On Friday."),
        (BRIEF, "Hi Ada,\n\nOne two three. One two three four! Five.", "Hi Ada,\n\nOne two three. Five."),
        (whole_sentences, "The plan is ready. I hope that the", "The plan is ready."),
        (whole_sentences, "The plan is ready.\n- report: late", "The plan is ready.\n- report: late"),
        (whole_sentences, "I hope it is\n\nBest", "I hope it is\n\nBest"),
        (without_preamble, "Sure! Here it is:\n\nDear Ada,\n\nHi there.", "Dear Ada,\n\nHi there."),
        (without_subject, "Subject: The plan\n\nDear Ada,", "Dear Ada,"),
        (without_subject, "The subject: trains.", "The subject: trains."),
    ],
)
def test_what_a_rule_changes(rule: Rule, text: str, expected: str) -> None:
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
    LIST,
    KEPT,
    ABOUT,
    DUE,
    TOPIC,
    MORE,
    BRIEF,
    without_inventions,
    whole_sentences,
    without_preamble,
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


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_the_parts_and_the_sentences_of_a_text_are_the_text(text: str) -> None:
    parts = split_parts(text)
    assert "".join(parts) == text
    assert "".join(sentences(parts[1])) == parts[1]


def test_sentences_end_at_marks_and_lines_and_not_inside_words() -> None:
    assert sentences('It costs 2.5. "Why?" No!\n- plan') == [
        "It costs 2.5. ",
        '"Why?" ',
        "No!",
        "\n",
        "- plan",
    ]


def test_parts_are_joined_by_empty_lines() -> None:
    assert join_parts("Dear Ada,", "a \n\n\n\nb", "Cheers") == "Dear Ada,\n\na\n\nb\n\nCheers"
    assert join_parts("Dear Ada,\n\n", " ", "\n\nCheers") == "Dear Ada,\n\nCheers"
    assert join_parts("Hi Ada, ", "all is well.", "") == "Hi Ada, all is well."
