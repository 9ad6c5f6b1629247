"""Users who sometimes edit wrongly."""

from __future__ import annotations

from itertools import islice

import pytest

from editloop.errors import ConfigError
from editloop.lab import get_domain
from editloop.users import WrongUser, get_user

DOMAINS = [get_domain("email"), get_domain("summary"), get_domain("code")]
each_domain = pytest.mark.parametrize("domain", DOMAINS, ids=lambda domain: domain.name)


def right(domain, n=60):
    return [(context, domain.render(domain.wanted(context))) for context in islice(domain.contexts(4), n)]


@each_domain
def test_without_mistakes_it_is_the_user(domain):
    strong = get_user("strong", domain)
    someone = WrongUser(strong, domain, 0.0)
    for context, response in right(domain):
        assert someone.edit(context, response) == strong.edit(context, response)
    assert someone.name == "strong"


@each_domain
def test_a_mistake_makes_what_was_right_worse(domain):
    someone = WrongUser(get_user("strong", domain), domain, 1.0)
    for context, response in right(domain):
        assert someone.edit(context, response) != response


@each_domain
def test_a_spoiled_draft_can_be_read_and_a_broken_one_mostly_not(domain):
    strong = get_user("strong", domain)
    spoiler = WrongUser(strong, domain, 1.0, mistakes=("spoiled",))
    breaker = WrongUser(strong, domain, 1.0, mistakes=("broken",))
    pairs = right(domain)
    assert all(domain.parse(spoiler.edit(*pair)) is not None for pair in pairs)
    assert sum(domain.parse(breaker.edit(*pair)) is None for pair in pairs) > len(pairs) / 2


def test_the_share_is_the_probability_and_grows_with_it():
    domain = DOMAINS[0]
    few, many = (WrongUser(get_user("weak", domain), domain, p) for p in (0.2, 0.5))
    pairs = right(domain, 300)
    wrong_few = {pair for pair in pairs if few.is_wrong(*pair)}
    wrong_many = {pair for pair in pairs if many.is_wrong(*pair)}
    assert wrong_few < wrong_many
    assert 0.12 < len(wrong_few) / 300 < 0.28
    assert 0.42 < len(wrong_many) / 300 < 0.58


def test_what_cannot_be_read_stays_or_breaks_further():
    domain = DOMAINS[0]
    someone = WrongUser(get_user("strong", domain), domain, 1.0, mistakes=("reverted",))
    assert someone.edit(right(domain)[0][0], "no email") == "no email"


def test_bad_settings_are_refused():
    domain, strong = DOMAINS[0], get_user("strong", DOMAINS[0])
    with pytest.raises(ConfigError, match=r"is a probability: 1\.5"):
        WrongUser(strong, domain, 1.5)
    with pytest.raises(ConfigError, match="unknown kind of mistake"):
        WrongUser(strong, domain, 0.5, mistakes=("typo",))
    with pytest.raises(ConfigError, match="unknown kind of mistake"):
        WrongUser(strong, domain, 0.5, mistakes=())
