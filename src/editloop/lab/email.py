"""The email domain: emails written from notes, with a hidden style per kind of notes.

The four kinds and their styles are those of the paper's email domain. The writer never sees the style: it
is a function of the notes' kind alone, and the kind can only be told from how the notes read.

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

from editloop.lab.grammar import Domain

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
            "Summary of a paper on {topic}, for {name}. Findings: {first} {first_state},"
            " {second} {second_state}. Answer needed {day}.",
            "We study {topic}. Results show {first} {first_state}, {second} {second_state}."
            " Send to {name}, due {day}.",
        ),
        "problem": (
            "I feel stuck with {topic} and only my friend {name} can help. {first} {first_state},"
            " {second} {second_state}. I am free {day}.",
            "My week was bad because of {topic}: {first} {first_state}, {second} {second_state}."
            " Tell {name}, meet {day}.",
        ),
        "review": (
            "Review of a draft by {name} on {topic}. Strengths and doubts: {first} {first_state},"
            " {second} {second_state}. Changes due {day}.",
            "Reviewer two on the draft about {topic}: {first} {first_state}, {second} {second_state}."
            " {name} must revise before {day}.",
        ),
        "post": (
            "New post from {name}: {topic} like never before! Thread: {first} {first_state},"
            " {second} {second_state}. Live {day}.",
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
            "plain": "\nI am writing to you about {topic}.",
            "respectful": "\nWith respect for your time, a short note about {topic}.",
            "chatty": "\nSo, I keep thinking about {topic}, you know?",
            "positive": "\nGreat to read about {topic}, really good work!",
            "engaging": "\nYour ideas about {topic} caught my eye at once.",
        },
        "person": {
            "none": " These are the points:",
            "first": " This is what I see:",
            "second": " You will see two points:",
            "plural": " This is what we noticed:",
        },
        "layout": {
            "prose": (
                " the {first} looks {first_state} so far, and the {second} looks {second_state} for now."
            ),
            "bullets": "\n- the {first} looks {first_state}\n- the {second} looks {second_state}",
            "chatty": (
                " well, the {first} looks {first_state}, and hey, the {second} looks {second_state} for now."
            ),
        },
        "action": {
            "plain": "\nThe date to keep in mind is {day}.",
            "question": "\nCan we maybe talk on {day}?",
            "request": "\nNext step: please send me your changes by {day}!",
            "invitation": "\nWould you join us for a call on {day}?",
        },
        "closing": {
            "plain": "\nRegards,\nAlex",
            "formal": "\nYours sincerely,\nAlex",
            "cheerful": "\nCheers,\nAlex",
            "thankful": "\nThank you so much,\nAlex",
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
)
