"""Free summaries: short reports that a real model summarises, and the rules that users edit by.

The kinds and the wishes are those of `summary.py`, as far as rules over plain text can have them.

========  ============================================================================================
kind      what is wanted
========  ============================================================================================
news      a story for children: "Once upon a time", few sentences, "Good night!" at the end
forum     contractions, few sentences, "I still think of it." at the end
entry     a list of what was found, spelled out
abstract  few sentences, "More soon!" at the end
movie     a question first, then the answers
========  ============================================================================================

In all kinds a user leaves out what the report does not say, and adds what it says and the draft does not.
"""

from __future__ import annotations

from collections.abc import Mapping

from editloop.lab.free import FreeTexts
from editloop.users.fact_rules import at_most, keeps_to, listed, states, without_inventions
from editloop.users.text_rules import (
    Rule,
    contracted,
    ending,
    short_sentences,
    spelled_out,
    whole_sentences,
    without_phrases,
)

__all__ = ["FREE_SUMMARY"]

STOCK_PHRASES = ("here is a summary", "here's a summary", "in summary", "in conclusion", "the text describes")

_EVENT, _PLACE = ("event",), ("event", "place")
_FIRST, _SECOND = ("first", "first_state"), ("second", "second_state")
_NOTES = (_PLACE, _EVENT, _FIRST, _SECOND)


def _content(*own: str) -> Mapping[str, Rule]:
    """The rules about what a summary says; sentences that its kind has of its `own` may be there."""
    return {
        "no unfinished sentence": whole_sentences,
        "no names, numbers or dates that are not in the report": without_inventions,
        "no sentence of more than 16 words": short_sentences(16),
        "no stock phrases": without_phrases(STOCK_PHRASES),
        "only what the report says": keeps_to(*_NOTES, also=own),
    }


_FINDINGS: Mapping[str, Rule] = {
    "the first finding": states(_FIRST, "The {first} was {first_state}."),
    "the second finding": states(_SECOND, "The {second} was {second_state}."),
}
_FOUR: Mapping[str, Rule] = {"at most four sentences": at_most(4, _PLACE, _FIRST, _SECOND)}

FREE_SUMMARY = FreeTexts(
    name="free-summary",
    facts={
        "who": (
            *("Anna", "Boris", "Clara", "David", "Emma", "Farid", "Gita", "Hugo", "Ines", "Jamal", "Kira"),
            *("Luca", "Mina", "Nils", "Olga", "Paul", "Rita", "Sami", "Tara", "Viktor"),
        ),
        "event": (
            *("flood", "festival", "election", "storm", "match", "wedding", "strike", "parade", "trial"),
            *("opening", "discovery", "journey", "rescue", "exhibition", "harvest", "eclipse"),
        ),
        "place": ("Berlin", "Cairo", "Delhi", "Lima", "Lagos", "Oslo", "Paris", "Quito", "Rome", "Tokyo"),
        "first": ("crowd", "bridge", "river", "school", "market", "harbour", "garden", "castle"),
        "first_state": ("calm", "full", "empty", "loud", "bright", "dark", "green", "old"),
        "second": ("mayor", "singer", "doctor", "teacher", "farmer", "captain", "baker", "painter"),
        "second_state": ("happy", "tired", "brave", "proud", "angry", "quiet", "lucky", "busy"),
    },
    sources={
        "news": (
            "Summarise this news report in a few sentences. {who} reports on the {event} in {place}. The "
            "{first} was {first_state}, and the {second} was {second_state}.",
        ),
        "forum": (
            "Summarise this post in a few sentences. Hi, I am {who}. I was at the {event} in {place}! The "
            "{first} was {first_state}, and the {second} was {second_state}.",
        ),
        "entry": (
            "Summarise this encyclopedia entry in a few sentences. The {event} of {place}, described by "
            "{who}. The {first} was {first_state}, and the {second} was {second_state}.",
        ),
        "abstract": (
            "Summarise this abstract in a few sentences. {who} models the {event} in {place}. The {first} "
            "was {first_state}, and the {second} was {second_state}.",
        ),
        "movie": (
            "Summarise this film review in a few sentences. The film with {who} is about the {event} in "
            "{place}. The {first} was {first_state}, and the {second} was {second_state}.",
        ),
    },
    rules_by_kind={
        "news": {
            **_content("Good night!"),
            "a story": states(_PLACE, "Once upon a time there was a {event} in {place}.", first=True),
            **_FINDINGS,
            **_FOUR,
            "Good night!": ending("Good night!"),
        },
        "forum": {
            **_content("I still think of it."),
            "contractions": contracted,
            "you": states(_PLACE, "You should've seen the {event} in {place}!", first=True),
            **_FINDINGS,
            **_FOUR,
            "a reflection": ending("I still think of it."),
        },
        "entry": {
            **_content(),
            "no contractions": spelled_out,
            "the findings as a list": listed(
                (_FIRST, "- The {first} was {first_state}."), (_SECOND, "- The {second} was {second_state}.")
            ),
            "a heading": states(_PLACE, "The {event} in {place}:", first=True),
            **_FOUR,
        },
        "abstract": {
            **_content("More soon!"),
            "the event first": states(_PLACE, "A new model of the {event} in {place}!", first=True),
            **_FINDINGS,
            **_FOUR,
            "a foreshadowing": ending("More soon!"),
        },
        "movie": {
            **_content("What is it about?"),
            "a question": states(_PLACE, "What is it about? The {event} in {place}.", first=True),
            **_FINDINGS,
            **_FOUR,
        },
    },
)
