"""The email domain: contexts, hidden styles, rendering and parsing."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.errors import ConfigError
from editloop.lab import get_domain

EMAIL = get_domain("email")
FACTS = {fact: words[0] for fact, words in EMAIL.facts.items()}

drafts = st.fixed_dictionaries(
    {attribute: st.sampled_from(sorted(values)) for attribute, values in EMAIL.attributes.items()}
    | {fact: st.sampled_from(words) for fact, words in EMAIL.facts.items()}
)


def test_every_style_survives_rendering_and_parsing() -> None:
    for values in product(*EMAIL.attributes.values()):
        draft = dict(zip(EMAIL.attributes, values, strict=True)) | FACTS
        assert EMAIL.parse(EMAIL.render(draft)) == draft


@given(drafts)
@settings(deadline=None)
def test_every_draft_survives_rendering_and_parsing(draft: dict[str, str]) -> None:
    assert EMAIL.parse(EMAIL.render(draft)) == draft


@given(drafts, st.data())
@settings(deadline=None)
def test_what_parses_is_rendered_to_the_same_text(draft: dict[str, str], data: st.DataObject) -> None:
    words = EMAIL.render(draft).split(" ")
    i = data.draw(st.integers(0, len(words) - 1))
    damaged = " ".join(words[:i] + words[i + 1 :])
    parsed = EMAIL.parse(damaged)
    assert parsed is None or EMAIL.render(parsed) == damaged


@pytest.mark.parametrize("text", ["", "Hello", "Dear plan,", "Hello Ada,\nHello Ada,", "\ud800"])
def test_other_text_is_garbled(text: str) -> None:
    assert EMAIL.parse(text) is None


def test_text_after_the_end_is_garbled() -> None:
    email = EMAIL.render(EMAIL.wanted(next(EMAIL.contexts(0))))
    assert EMAIL.parse(email) is not None
    assert EMAIL.parse(email + " Bye.") is None


def test_a_neutral_email_reads_like_this() -> None:
    assert EMAIL.render({**EMAIL.neutral, **FACTS}) == (
        "Hello Ada,\n"
        "I am writing to you about climate. These are the points: the plan looks ready so far,"
        " and the report looks done for now.\n"
        "The date to keep in mind is Monday.\n"
        "Regards,\n"
        "Alex"
    )


def test_the_style_is_a_function_of_the_kind_only() -> None:
    styles: dict[str, set[tuple[str, ...]]] = {}
    for context in islice(EMAIL.contexts(0), 400):
        notes, wanted = EMAIL.read(context), EMAIL.wanted(context)
        styles.setdefault(notes.kind, set()).add(tuple(wanted[attribute] for attribute in EMAIL.attributes))
        assert {fact: wanted[fact] for fact in EMAIL.facts} == notes.facts
    assert set(styles) == set(EMAIL.sources)
    assert all(len(seen) == 1 for seen in styles.values())
    assert len(set.union(*styles.values())) == 4


def test_contexts_are_many_distinct_and_of_every_kind() -> None:
    assert EMAIL.n_contexts > 10**6
    contexts = list(islice(EMAIL.contexts(0), 2000))
    assert len(set(contexts)) > 1990
    kinds = [EMAIL.read(context).kind for context in contexts]
    for kind in EMAIL.sources:
        assert abs(kinds.count(kind) - 500) < 4 * (2000 * 0.25 * 0.75) ** 0.5


def test_contexts_follow_their_seed_and_stream() -> None:
    def contexts(seed: int, stream: str) -> list[str]:
        return list(islice(EMAIL.contexts(seed, stream=stream), 200))

    assert contexts(0, "log") == contexts(0, "log")
    assert not set(contexts(0, "log")) & set(contexts(1, "log"))
    assert not set(contexts(0, "log")) & set(contexts(0, "evaluation"))


def test_a_foreign_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a context of the email domain: 'Dear Ada'"):
        EMAIL.read("Dear Ada")


def test_the_fingerprint_follows_the_tables() -> None:
    greeting = {**EMAIL.attributes["greeting"], "plain": "Good day {name},"}
    changed = replace(EMAIL, attributes={**EMAIL.attributes, "greeting": greeting})
    assert changed.fingerprint != EMAIL.fingerprint
    assert replace(EMAIL).fingerprint == EMAIL.fingerprint


def test_the_styles_name_values_that_exist() -> None:
    for style in [EMAIL.neutral, *EMAIL.styles.values()]:
        assert list(style) == list(EMAIL.attributes)
        assert all(value in EMAIL.attributes[attribute] for attribute, value in style.items())


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no such domain: 'poems' \(use one of email\)"):
        get_domain("poems")
