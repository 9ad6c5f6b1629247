"""The domains: contexts, hidden styles, rendering and parsing."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from editloop.errors import ConfigError
from editloop.lab import Domain, base_path, get_domain
from editloop.users import get_user
from plug_in import install_plug_in

EMAIL = get_domain("email")
both = pytest.mark.parametrize("domain", [EMAIL, get_domain("summary")], ids=lambda domain: domain.name)
FACTS = {fact: words[0] for fact, words in EMAIL.facts.items()}


def drafts(domain: Domain) -> st.SearchStrategy[dict[str, str]]:
    return st.fixed_dictionaries(
        {attribute: st.sampled_from(sorted(values)) for attribute, values in domain.attributes.items()}
        | {fact: st.sampled_from(words) for fact, words in domain.facts.items()}
    )


@both
def test_every_style_survives_rendering_and_parsing(domain: Domain) -> None:
    facts = {fact: words[0] for fact, words in domain.facts.items()}
    for values in product(*domain.attributes.values()):
        draft = dict(zip(domain.attributes, values, strict=True)) | facts
        assert domain.parse(domain.render(draft)) == draft


@both
@given(st.data())
@settings(deadline=None)
def test_every_draft_survives_rendering_and_parsing(domain: Domain, data: st.DataObject) -> None:
    draft = data.draw(drafts(domain))
    assert domain.parse(domain.render(draft)) == draft


@both
@given(st.data())
@settings(deadline=None)
def test_what_parses_is_rendered_to_the_same_text(domain: Domain, data: st.DataObject) -> None:
    words = domain.render(data.draw(drafts(domain))).split(" ")
    i = data.draw(st.integers(0, len(words) - 1))
    damaged = " ".join(words[:i] + words[i + 1 :])
    parsed = domain.parse(damaged)
    assert parsed is None or domain.render(parsed) == damaged


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
        "This is about climate. In short the plan is ready and the report is done.\n"
        "It is due Monday.\n"
        "Regards, Alex"
    )


def test_a_neutral_summary_reads_like_this() -> None:
    domain = get_domain("summary")
    facts = {fact: words[0] for fact, words in domain.facts.items()}
    assert domain.render({**domain.neutral, **facts}) == (
        "This is about the flood.\n"
        "It was in Berlin with Anna.\n"
        "The crowd was calm and the mayor was happy. Noted.\n"
        "That is all."
    )


@both
def test_the_style_is_a_function_of_the_kind_only(domain: Domain) -> None:
    styles: dict[str, set[tuple[str, ...]]] = {}
    for context in islice(domain.contexts(0), 400):
        notes, wanted = domain.read(context), domain.wanted(context)
        styles.setdefault(notes.kind, set()).add(tuple(wanted[attribute] for attribute in domain.attributes))
        assert {fact: wanted[fact] for fact in domain.facts} == notes.facts
    assert set(styles) == set(domain.sources)
    assert all(len(seen) == 1 for seen in styles.values())
    assert len(set.union(*styles.values())) == len(domain.sources)


@both
def test_contexts_are_many_distinct_and_of_every_kind(domain: Domain) -> None:
    assert domain.n_contexts > 10**6
    contexts = list(islice(domain.contexts(0), 2000))
    assert len(set(contexts)) > 1990
    kinds = [domain.read(context).kind for context in contexts]
    share = 1 / len(domain.sources)
    for kind in domain.sources:
        assert abs(kinds.count(kind) - 2000 * share) < 4 * (2000 * share * (1 - share)) ** 0.5


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


@both
def test_the_styles_name_values_that_exist(domain: Domain) -> None:
    for style in [domain.neutral, *domain.styles.values()]:
        assert list(style) == list(domain.attributes)
        assert all(value in domain.attributes[attribute] for attribute, value in style.items())


def test_a_shifted_domain_wants_what_the_base_does_not_know_of() -> None:
    shifted = EMAIL.shifted()
    assert list(EMAIL.styles) == ["paper", "problem", "review", "post"]
    assert shifted.styles["paper"] == EMAIL.styles["review"]
    assert shifted.styles["post"] == EMAIL.styles["problem"]
    context = next(EMAIL.contexts(0))
    assert shifted.read(context) == EMAIL.read(context)
    assert shifted.wanted(context) != EMAIL.wanted(context)


def test_a_style_is_described_in_words() -> None:
    context = next(each for each in EMAIL.contexts(0) if EMAIL.read(each).kind == "paper")
    assert EMAIL.describe(context).startswith("greeting formal, opening respectful")


def test_an_unknown_domain_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"unknown domain: 'poems' \(use one of email, summary, code\)"):
        get_domain("poems")


GREETINGS = """
from dataclasses import replace

from editloop.lab import get_domain

GREETINGS = replace(get_domain("email"), name="greetings", base=None, tuned={})
"""


def test_a_domain_from_another_package_has_texts_and_users(tmp_path, monkeypatch):
    install_plug_in(tmp_path, monkeypatch, "editloop.domains", GREETINGS, greetings="GREETINGS")
    domain = get_domain("greetings")
    context = next(domain.contexts(0))
    assert domain.parse(domain.render(domain.wanted(context))) == domain.wanted(context)
    assert get_user("weak", domain).edit(context, domain.render(domain.wanted(context)))
    with pytest.raises(ConfigError, match=r"this domain has no base model: 'greetings'"):
        base_path("greetings")
    with pytest.raises(ConfigError, match=r"use one of email, summary, code, greetings"):
        get_domain("poems")


def test_what_the_base_does_not_depend_on_is_not_in_its_fingerprint():
    assert (
        replace(EMAIL, tuned={}, hub={}, base=None, pretraining={"steps": 1}).fingerprint == EMAIL.fingerprint
    )
