"""Free emails: tasks as a person would give them to a real model, and the rules that users edit by.

The kinds and the wishes are those of `email.py`, as far as rules over plain text can have them.

========  ============================================================================================
kind      what is wanted
========  ============================================================================================
paper     "Dear {name},", words spelled out, the findings as a list, "Yours sincerely,\\nAlex"
problem   "Hey {name}!", contractions, at most three sentences and the topic, no closing
review    "Hi {name},", contractions, praise first, the changes asked for, "Cheers,\\nAlex"
post      "Dear {name},", words spelled out, "We" and an invitation, "Thank you,\\nAlex"
========  ============================================================================================

In all kinds a user leaves out what the notes do not say, and adds what they say and the draft does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from editloop.lab.free import FreeTexts
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
    greeting,
    short_sentences,
    spelled_out,
    whole_sentences,
    without_phrases,
    without_preamble,
    without_subject,
)

__all__ = ["FREE_EMAIL"]

STOCK_PHRASES = (
    *(
        "hope this email finds",
        "hope this message finds",
        "hope you're doing well",
        "hope you are doing well",
    ),
    *(
        "hesitate to contact",
        "hesitate to reach out",
        "hesitate to ask",
        "looking forward to",
        "look forward to",
    ),
    *("I am writing to", "I'm writing to", "I wanted to reach out", "I'm reaching out", "I am reaching out"),
    *("thrilled to", "excited to", "happy to help", "here to help"),
)

_FIRST, _SECOND, _DAY, _TOPIC = ("first", "first_state"), ("second", "second_state"), ("day",), ("topic",)
_NOTES = (_FIRST, _SECOND, _DAY, _TOPIC)

_TEXT: Mapping[str, Rule] = {
    "no subject line": without_subject,
    "nothing before the greeting": without_preamble,
    "no unfinished sentence": whole_sentences,
}
_CONTENT: Mapping[str, Rule] = {
    "the right names and dates": right_facts,
    "no names, numbers or dates that are not in the notes": without_inventions,
    "no sentence of more than 16 words": short_sentences(16),
    "no stock phrases": without_phrases(STOCK_PHRASES),
    "only what the notes say": keeps_to(*_NOTES),
}
_FINDINGS: Mapping[str, Rule] = {
    "the first finding": states(_FIRST, "The {first} is {first_state}."),
    "the second finding": states(_SECOND, "The {second} is {second_state}."),
}
_LIST: Mapping[str, Rule] = {
    "the findings as a list": listed(
        (_FIRST, "- The {first} is {first_state}."), (_SECOND, "- The {second} is {second_state}.")
    )
}

FREE_EMAIL = FreeTexts(
    name="free-email",
    facts={
        "name": (
            *("Ada", "Amir", "Bea", "Carlos", "Chen", "Elena", "Felix", "Grace", "Hana", "Igor", "Jonas"),
            *("Kofi", "Lena", "Maya", "Nadia", "Omar", "Priya", "Rosa", "Tomas", "Yuki"),
        ),
        "topic": (
            *("climate", "cooking", "cycling", "energy", "farming", "gardens", "health", "housing"),
            *("language", "memory", "music", "robots", "sleep", "teaching", "trains", "travel"),
        ),
        "first": ("plan", "budget", "method", "introduction", "summary", "schedule", "conclusion", "title"),
        "first_state": ("ready", "clear", "too short", "too long", "almost done", "still weak", "wrong"),
        "second": ("report", "design", "test", "survey", "video", "poster", "analysis", "website"),
        "second_state": ("finished", "missing", "late", "approved", "out of date", "very good"),
        "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    },
    sources={
        "paper": (
            "Write a short email to {name} about our paper on {topic}. The {first} is {first_state} and the "
            "{second} is {second_state}. It is due on {day}.",
            "Our paper on {topic} is due on {day}. The {first} is {first_state}, and the {second} is "
            "{second_state}. Write this to {name} in a short email.",
        ),
        "problem": (
            "Write a short message to my friend {name}. I feel stuck with {topic}: the {first} is "
            "{first_state} and the {second} is {second_state}. Ask to meet on {day}.",
            "My week was bad, because of {topic}: the {first} is {first_state} and the {second} is "
            "{second_state}. Tell my friend {name} in a short message, and ask to meet on {day}.",
        ),
        "review": (
            "Write a short email to {name}, who wrote a draft on {topic}. The {first} is {first_state} and "
            "the {second} is {second_state}. Ask for the changes by {day}.",
            "I reviewed the draft on {topic} by {name}: the {first} is {first_state}, the {second} is "
            "{second_state}. Ask for the changes by {day} in a short email.",
        ),
        "post": (
            "Write a short email to {name} about our new post on {topic}. The {first} is {first_state} and "
            "the {second} is {second_state}. The post goes live on {day}.",
            "We have a new post on {topic}, which goes live on {day}. The {first} is {first_state} and the "
            "{second} is {second_state}. Write a short email about it to {name}.",
        ),
    },
    rules_by_kind={
        "paper": {
            **_TEXT,
            "Dear {name},": greeting("Dear {name},"),
            **_CONTENT,
            "Yours sincerely, Alex": closing("Yours sincerely,\nAlex"),
            "no contractions": spelled_out,
            **_LIST,
            "the topic first": states(_TOPIC, "This is where our paper on {topic} stands:", first=True),
            "the deadline": states(_DAY, "It is due on {day}."),
            "at most five sentences": at_most(5, *_NOTES),
        },
        "problem": {
            **_TEXT,
            "Hey {name}!": greeting("Hey {name}!"),
            **_CONTENT,
            "no closing": closing(""),
            "contractions": contracted,
            "the topic first": states(_TOPIC, "I'm stuck with {topic}.", first=True),
            **_FINDINGS,
            "a time to meet": states(_DAY, "Can we meet on {day}?"),
            "at most four sentences": at_most(4, *_NOTES),
        },
        "review": {
            **_TEXT,
            "Hi {name},": greeting("Hi {name},"),
            **_CONTENT,
            "Cheers, Alex": closing("Cheers,\nAlex"),
            "contractions": contracted,
            "praise first": states(_TOPIC, "I've enjoyed your draft on {topic}!", first=True),
            **_FINDINGS,
            "a call to action": states(_DAY, "Please send me the changes by {day}."),
            "at most five sentences": at_most(5, *_NOTES),
        },
        "post": {
            **_TEXT,
            "Dear {name},": greeting("Dear {name},"),
            **_CONTENT,
            "Thank you, Alex": closing("Thank you,\nAlex"),
            "no contractions": spelled_out,
            "the topic first": states(_TOPIC, "We have a new post on {topic}.", first=True),
            **_FINDINGS,
            "the day it goes live": states(_DAY, "It goes live on {day}, so please share it."),
            "at most five sentences": at_most(5, *_NOTES),
        },
    },
)
