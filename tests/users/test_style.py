"""Style users: repair rates, minimal edits, reproducibility."""

from __future__ import annotations

import random
from itertools import islice

import pytest

from editloop.errors import ConfigError
from editloop.lab import get_domain
from editloop.users import HABITS, Draft, DriftingUser, StyleUser, get_user

EMAIL = get_domain("email")


class Pair:
    """A domain of two parts, `a` and `b`, which are the two words of a response."""

    def wanted(self, context: str) -> Draft:
        return {"a": "yes", "b": context}

    def parse(self, response: str) -> Draft | None:
        words = response.split()
        return {"a": words[0], "b": words[1]} if len(words) == 2 else None

    def render(self, draft: Draft) -> str:
        return f"{draft['a']} {draft['b']}"


def drafts(n: int, *, diversity: float = 0.6) -> list[tuple[str, Draft]]:
    generator = random.Random(7)
    return [
        (context, EMAIL.redraw(EMAIL.read(context), diversity, generator))
        for context in islice(EMAIL.contexts(7), n)
    ]


def test_certain_repair_gives_what_is_wanted() -> None:
    user = StyleUser(Pair(), repair=1.0, name="sure")
    assert user.edit("x", "no x") == "yes x"
    assert user.edit("x", "no y") == "yes x"
    assert user.edit("x", "yes x") == "yes x"


def test_without_repair_nothing_changes_but_garbled_text_is_rewritten() -> None:
    user = StyleUser(Pair(), repair=0.0, name="idle")
    assert user.edit("x", "no y") == "no y"
    assert user.edit("x", "no no y") == "yes x"
    assert user.edit("x", "") == "yes x"


@pytest.mark.parametrize("rate", [0.15, 0.5, 0.95])
def test_each_wrong_part_is_repaired_at_the_rate(rate: float) -> None:
    user = StyleUser(EMAIL, repair=rate, name="some", seed=3)
    wrong: dict[str, int] = {}
    repaired: dict[str, int] = {}
    for context, draft in drafts(1500):
        wanted, edited = EMAIL.wanted(context), EMAIL.parse(user.edit(context, EMAIL.render(draft)))
        assert edited is not None
        for part in wanted:
            if draft[part] == wanted[part]:
                assert edited[part] == wanted[part]
            else:
                wrong[part] = wrong.get(part, 0) + 1
                repaired[part] = repaired.get(part, 0) + (edited[part] == wanted[part])
    assert set(wrong) == set(EMAIL.attributes)
    for part, n in wrong.items():
        assert abs(repaired[part] / n - rate) < 4 * (rate * (1 - rate) / n) ** 0.5, part


def test_wrong_facts_are_repaired_and_the_rest_stays_word_for_word() -> None:
    context = next(EMAIL.contexts(1))
    wanted = dict(EMAIL.wanted(context))
    right = EMAIL.render(wanted)
    other = next(name for name in EMAIL.facts["name"] if name != wanted["name"])
    wrong = EMAIL.render(wanted | {"name": other})
    assert wrong != right
    assert StyleUser(EMAIL, repair=1.0, name="sure").edit(context, wrong) == right


def test_an_edit_changes_only_the_segments_of_repaired_parts() -> None:
    user = get_user("weak", EMAIL)
    for context, draft in drafts(300):
        edited = EMAIL.parse(user.edit(context, EMAIL.render(draft)))
        assert edited is not None
        for attribute, values in EMAIL.attributes.items():
            if edited[attribute] == draft[attribute]:
                assert values[edited[attribute]].format_map(draft) in EMAIL.render(edited)


def test_what_the_weak_user_repairs_the_strong_user_repairs_too() -> None:
    weak, strong = get_user("weak", EMAIL, seed=5), get_user("strong", EMAIL, seed=5)
    for context, draft in drafts(300):
        response = EMAIL.render(draft)
        by_weak, by_strong = (
            EMAIL.parse(weak.edit(context, response)),
            EMAIL.parse(strong.edit(context, response)),
        )
        assert by_weak is not None and by_strong is not None
        assert all(by_strong[part] == value for part, value in by_weak.items() if value != draft[part])


def test_the_strong_user_edits_nearly_all_and_the_weak_user_a_minority() -> None:
    shares = {
        name: sum(
            user.edit(context, EMAIL.render(draft)) != EMAIL.render(draft) for context, draft in drafts(1000)
        )
        / 1000
        for name, user in ((name, get_user(name, EMAIL)) for name in HABITS)
    }
    assert shares["strong"] > 0.97
    assert 0.35 < shares["weak"] < 0.5
    assert shares["weak"] < shares["light"] < shares["medium"] < shares["heavy"] <= shares["strong"]


def test_edits_are_a_function_of_seed_round_context_and_response() -> None:
    rows = [(context, EMAIL.render(draft)) for context, draft in drafts(50)]

    def edits(seed: int, round: int) -> list[str]:
        user = get_user("weak", EMAIL, seed=seed)
        return [user.edit(context, response, round=round) for context, response in rows]

    assert edits(0, 0) == edits(0, 0)
    user = get_user("weak", EMAIL)
    assert [user.edit(*row) for row in reversed(rows)] == edits(0, 0)[::-1]
    assert edits(0, 0) != edits(1, 0)
    assert edits(0, 0) != edits(0, 1)


def test_a_rate_that_is_no_probability_and_an_unknown_name_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"repair rate is a probability: 1\.5"):
        StyleUser(EMAIL, repair=1.5, name="x")
    with pytest.raises(ConfigError, match=r"no such user: 'mild' \(use one of strong, weak, light, .*\)"):
        get_user("mild", EMAIL)


def test_a_tolerant_user_lets_a_few_wrong_parts_pass() -> None:
    user = StyleUser(Pair(), repair=1.0, name="tolerant", tolerance=1)
    assert user.edit("x", "no x") == "no x"
    assert user.edit("x", "no y") == "yes x"
    assert user.edit("x", "garbled") == "yes x"
    with pytest.raises(ConfigError, match="tolerance is a number of parts: -1"):
        StyleUser(Pair(), repair=1.0, name="x", tolerance=-1)


def test_a_drifting_user_becomes_another() -> None:
    idle, sure = (StyleUser(Pair(), repair=rate, name=str(rate)) for rate in (0.0, 1.0))

    def share(user: DriftingUser, round: int) -> float:
        return sum(user.edit(str(i), f"no {i}", round=round) == f"yes {i}" for i in range(400)) / 400

    abrupt = DriftingUser(idle, sure, start=5)
    assert [share(abrupt, round) for round in (0, 4, 5, 9)] == [0, 0, 1, 1]
    gradual = DriftingUser(idle, sure, start=10, over=20)
    assert [share(gradual, round) for round in (9, 10, 30)] == [0, 0, 1]
    assert share(gradual, 15) == pytest.approx(0.25, abs=0.09)  # 4 standard errors
    assert gradual.name == "0.0 to 1.0"
    with pytest.raises(ConfigError, match="start and the length of a change"):
        DriftingUser(idle, sure, start=-1)


def test_a_context_of_another_domain_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a context of the email domain"):
        get_user("weak", EMAIL).edit("What is two and two?", "Four.")
