"""The summarisation domain: summaries of source texts, with a hidden style per kind of source.

The five kinds and their styles are those of the paper's summarisation domain. The writer never sees the
style: it is a function of the source's kind alone, and the kind shows only in how the source reads.

========  ==========================  ===========================================================
kind      the source is               the style that is wanted
========  ==========================  ===========================================================
news      a news report               for young children: storytelling, playful, short sentences
forum     a post in a forum           second person, brief, emotional, personal reflection
entry     an encyclopedia's entry     bullet points, parallel structure, brief
abstract  a paper's abstract          like a tweet: simple, inquisitive, foreshadowing, emojis
movie     a review of a film          question and answer
========  ==========================  ===========================================================
"""

from __future__ import annotations

from pathlib import Path

from editloop.lab.domains.free_summary import FREE_SUMMARY
from editloop.lab.domains.tuned import TUNED_EARLY, TUNED_RL, TUNED_SFT
from editloop.lab.grammar import Domain, Source

__all__ = ["SUMMARY"]

SUMMARY = Domain(
    name="summary",
    facts=FREE_SUMMARY.facts,
    sources={
        "news": (
            "News from {place}: {who} on the {event}. {first} {first_state}, {second} {second_state}.",
            "{place}, today. The {event}, as {who} saw it: {first} {first_state}, {second} {second_state}.",
        ),
        "forum": (
            "Posted by {who}: help, the {event} in {place}! {first} {first_state}, {second} {second_state}.",
            "Thread: my {event} in {place}, by {who}. {first} {first_state}, {second} {second_state}.",
        ),
        "entry": (
            "Entry: {event} of {place}, described by {who}. {first} {first_state}, {second} {second_state}.",
            "See also: {who}, {event}, {place}. {first} {first_state}, {second} {second_state}.",
        ),
        "abstract": (
            "Abstract. {who} models the {event} in {place}: {first} {first_state}, {second} {second_state}.",
            "We measure the {event} near {place} ({who}): {first} {first_state}, {second} {second_state}.",
        ),
        "movie": (
            "Film review: {event} in {place}, with {who}. {first} {first_state}, {second} {second_state}.",
            "Stars for {who}, hero of {event}, {place}! {first} {first_state}, {second} {second_state}.",
        ),
    },
    attributes={
        "opening": {
            "plain": "This is about the {event}.",
            "story": "Once upon a time: {event}!",
            "second": "You know the {event}.",
            "title": "Subject: {event}",
            "tweet": "Big {event} 👀",
            "question": "What is it? A {event}.",
        },
        "scene": {
            "plain": "\nIt was in {place} with {who}.",
            "story": "\nLittle {who} lived in {place}.",
            "second": "\nYou were near {who}, {place}.",
            "bullets": "\n- who: {who}\n- where: {place}",
            "tweet": "\n{place}, says {who} 🌍",
            "question": "\nWho and where? {who}, {place}.",
        },
        "points": {
            "prose": "\nThe {first} was {first_state} and the {second} was {second_state}.",
            "short": "\nThe {first} is {first_state}! The {second} is {second_state}!",
            "bullets": "\n- {first}: {first_state}\n- {second}: {second_state}",
            "question": "\nHow? The {first} {first_state}, the {second} {second_state}.",
        },
        "tone": {
            "plain": " Noted.",
            "playful": " Hop, hop!",
            "emotional": " It moved me.",
            "curious": " Why though?",
            "none": "",
        },
        "ending": {
            "plain": "\nThat is all.",
            "story": "\nGood night!",
            "reflection": "\nI still think of it.",
            "foreshadowing": "\nMore soon 🚀",
            "none": "",
        },
    },
    neutral={
        "opening": "plain",
        "scene": "plain",
        "points": "prose",
        "tone": "plain",
        "ending": "plain",
    },
    styles={
        "news": {
            "opening": "story",
            "scene": "story",
            "points": "short",
            "tone": "playful",
            "ending": "story",
        },
        "forum": {
            "opening": "second",
            "scene": "second",
            "points": "prose",
            "tone": "emotional",
            "ending": "reflection",
        },
        "entry": {
            "opening": "title",
            "scene": "bullets",
            "points": "bullets",
            "tone": "none",
            "ending": "none",
        },
        "abstract": {
            "opening": "tweet",
            "scene": "tweet",
            "points": "short",
            "tone": "curious",
            "ending": "foreshadowing",
        },
        "movie": {
            "opening": "question",
            "scene": "question",
            "points": "question",
            "tone": "plain",
            "ending": "none",
        },
    },
    plural="summaries",
    base=Path(__file__).parents[1] / "assets" / "summary",
    pretraining={"steps": 3000},  # with fewer, the base may fail to copy a fact: docs/lab.md
    tuned={
        "sft": TUNED_SFT,
        "dpo": {"learning_rate": 5e-4, "beta": 1.0},
        "rl": TUNED_RL,
        "early": TUNED_EARLY,
    },
    task="Article: {text}\n\nSummarise this article.",
    hub={  # those of the paper (Gao et al. 2024)
        "news": Source(
            "abisee/cnn_dailymail",
            ("article",),
            "for young children, storytelling, playful, in short sentences",
            config="3.0.0",
        ),
        "forum": Source(
            "JeremyAlain/SLF5K", ("post",), "second person, brief, emotional, with a personal reflection"
        ),
        "entry": Source(
            "wikimedia/wikipedia",
            ("text",),
            "bullet points, parallel structure, brief",
            config="20231101.simple",
        ),
        "abstract": Source(
            "CShorten/ML-ArXiv-Papers",
            ("abstract",),
            "like a tweet, simple, inquisitive, with foreshadowing and emojis",
        ),
        "movie": Source("stanfordnlp/imdb", ("text",), "questions and answers"),
    },
    free=FREE_SUMMARY,
)
