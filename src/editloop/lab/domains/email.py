"""The email domain: emails written from notes, with a hidden style per kind of notes.

The four kinds and their styles are those of the paper's email domain. The writer never sees the style: it
is a function of the notes' kind alone, and the kind shows only in how the notes read.

========  ==========================  ===========================================================
kind      the notes are               the style that is wanted
========  ==========================  ===========================================================
paper     a paper's summary           structured, to the point, respectful, professional greeting
                                      and closing
problem   a personal problem          informal, conversational, no closing
review    a review of a draft         casual, positive, clear, call to action
post      a post on social media      engaging, personalised, professional, thankful closing
========  ==========================  ===========================================================
"""

from __future__ import annotations

from pathlib import Path

from editloop.lab.domains.free_email import FREE_EMAIL
from editloop.lab.domains.tuned import TUNED_EARLY, TUNED_RL, TUNED_SFT
from editloop.lab.grammar import Domain, Source

__all__ = ["EMAIL"]

_FACTS = {
    "name": (
        *("Ada", "Amir", "Bea", "Carlos", "Chen", "Elena", "Felix", "Grace", "Hana", "Igor", "Jonas"),
        *("Kofi", "Lena", "Maya", "Nadia", "Omar", "Priya", "Rosa", "Tomas", "Yuki"),
    ),
    "topic": (
        *("climate", "cooking", "cycling", "energy", "farming", "gardens", "health", "housing"),
        *("language", "memory", "music", "robots", "sleep", "teaching", "trains", "travel"),
    ),
    "first": ("plan", "budget", "method", "team", "room", "data", "contract", "schedule"),
    "first_state": ("ready", "late", "clear", "weak", "strong", "small", "wrong", "new"),
    "second": ("report", "design", "test", "title", "photo", "survey", "video", "proof"),
    "second_state": ("done", "missing", "solid", "slow", "open", "short", "long", "fine"),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
}

EMAIL = Domain(
    name="email",
    facts=_FACTS,
    sources={
        "paper": (
            "Paper on {topic}: {first} {first_state}, {second} {second_state}. For {name}, due {day}.",
            "We study {topic}. Results: {first} {first_state}, {second} {second_state}. To {name}, {day}.",
        ),
        "problem": (
            "I feel stuck with {topic}: {first} {first_state}, {second} {second_state}."
            " My friend {name} is free {day}.",
            "My week was bad, {topic} again: {first} {first_state}, {second} {second_state}."
            " Tell {name}, meet {day}.",
        ),
        "review": (
            "Review of a draft by {name} on {topic}: {first} {first_state}, {second} {second_state}."
            " Changes due {day}.",
            "Reviewer two, {topic}: {first} {first_state}, {second} {second_state}."
            " {name} must revise before {day}.",
        ),
        "post": (
            "New post from {name}: {topic}! Thread: {first} {first_state}, {second} {second_state}."
            " Live {day}.",
            "Wow, {name} on {topic}! {first} {first_state}, {second} {second_state}."
            " Launch {day}, please share.",
        ),
    },
    attributes={
        "greeting": {
            "plain": "Hello {name},",
            "formal": "Dear {name},",
            "casual": "Hey {name}!",
            "friendly": "Hi {name},",
        },
        "opening": {
            "plain": "\nThis is about {topic}.",
            "respectful": "\nWith respect, on {topic}.",
            "chatty": "\nSo, {topic}, you know?",
            "positive": "\nGreat work on {topic}!",
            "engaging": "\nCurious about {topic}?",
        },
        "person": {
            "none": " In short",
            "first": " I see",
            "second": " You see",
            "plural": " We see",
        },
        "layout": {
            "prose": " the {first} is {first_state} and the {second} is {second_state}.",
            "bullets": ":\n- {first}: {first_state}\n- {second}: {second_state}",
            "chatty": " that, well, {first} is {first_state}, {second} {second_state}...",
        },
        "action": {
            "plain": "\nIt is due {day}.",
            "question": "\nCan we talk {day}?",
            "request": "\nPlease reply by {day}!",
            "invitation": "\nJoin us on {day}?",
        },
        "closing": {
            "plain": "\nRegards, Alex",
            "formal": "\nYours sincerely, Alex",
            "cheerful": "\nCheers, Alex",
            "thankful": "\nThank you, Alex",
            "none": "",
        },
    },
    neutral={
        "greeting": "plain",
        "opening": "plain",
        "person": "none",
        "layout": "prose",
        "action": "plain",
        "closing": "plain",
    },
    styles={
        "paper": {
            "greeting": "formal",
            "opening": "respectful",
            "person": "none",
            "layout": "bullets",
            "action": "plain",
            "closing": "formal",
        },
        "problem": {
            "greeting": "casual",
            "opening": "chatty",
            "person": "first",
            "layout": "chatty",
            "action": "question",
            "closing": "none",
        },
        "review": {
            "greeting": "friendly",
            "opening": "positive",
            "person": "second",
            "layout": "prose",
            "action": "request",
            "closing": "cheerful",
        },
        "post": {
            "greeting": "formal",
            "opening": "engaging",
            "person": "plural",
            "layout": "prose",
            "action": "invitation",
            "closing": "thankful",
        },
    },
    plural="emails",
    base=Path(__file__).parents[1] / "assets" / "email",
    tuned={
        "sft": TUNED_SFT,
        "dpo": {"learning_rate": 2e-4, "beta": 1.0},
        "rl": TUNED_RL,
        "early": TUNED_EARLY,
    },
    task="Notes: {text}\n\nWrite a short email from these notes.",
    hub={  # those of the paper (Gao et al. 2024)
        "paper": Source(
            "orieg/elsevier-oa-cc-by",
            ("title", "abstract", "author_highlights"),
            "structured, to the point, respectful, professional greeting and closing",
        ),
        "problem": Source("JeremyAlain/SLF5K", ("post",), "informal, conversational, no closing"),
        "review": Source("launch/ampere", ("text",), "casual, positive, clear, with a call to action"),
        "post": Source(
            "nitsanb/paper_tweet", ("text",), "engaging, personalised, professional, with a thankful closing"
        ),
    },
    free=FREE_EMAIL,
)
