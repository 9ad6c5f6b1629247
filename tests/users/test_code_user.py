"""Users of code: they repair what fails before they look at how it reads."""

from __future__ import annotations

from itertools import islice

import pytest

from editloop.lab.code.language import STYLE, render
from editloop.lab.domains.code import CODE
from editloop.users import get_user
from editloop.users.code import CodeUser
from editloop.users.style import Habits

CONTEXT = """Rework api/pick. Sum numbers above 3, times limit; at most 9; if empty -1.
def pick(xs, limit):
    if not xs:
        return -1
    r = sum(x * limit for x in xs if x >= 3)
    return min(r, 9)"""
WANTED = CODE.wanted(CONTEXT)
CURRENT = CONTEXT.partition("\n")[2]


def user(repair: float, tolerance: int = 0, seed: int = 0) -> CodeUser:
    return CodeUser(CODE, Habits(repair, tolerance), name="somebody", seed=seed)


def test_somebody_who_repairs_everything_leaves_what_is_wanted():
    assert user(1.0).edit(CONTEXT, CURRENT) == render(WANTED)
    assert user(1.0).edit(CONTEXT, render(WANTED)) == render(WANTED)


def test_somebody_who_repairs_nothing_leaves_everything():
    assert user(0.0).edit(CONTEXT, CURRENT) == CURRENT


def test_what_is_not_of_the_language_is_rewritten():
    assert user(0.0).edit(CONTEXT, "print('hello')") == render(WANTED)
    assert user(0.0).edit(CONTEXT, "") == render(WANTED)


def test_the_style_of_what_fails_is_left_alone():
    """Some seeds repair parts of the style only, and would have to leave the bug."""
    edits = {user(0.3, seed=seed).edit(CONTEXT, CURRENT, round=seed) for seed in range(200)}
    for edit in edits:
        draft = CODE.parse(edit)
        styled = any(draft[part] != CODE.parse(CURRENT)[part] for part in STYLE)
        assert CODE.passes(CONTEXT, draft) or not styled
    assert any(CODE.passes(CONTEXT, CODE.parse(edit)) for edit in edits)
    assert CURRENT in edits


@pytest.mark.parametrize("name", ["weak", "medium", "strong"])
def test_every_edit_is_of_the_language_and_repairs_no_more_than_there_is(name):
    someone, everything = get_user(name, CODE), user(1.0)
    for context in islice(CODE.contexts(8), 150):
        draft = CODE.read(context).current
        edit = CODE.parse(someone.edit(context, CODE.render(draft)))
        assert edit is not None
        best = CODE.parse(everything.edit(context, CODE.render(draft)))
        # Each part is as it was or as it is wanted; an operation that lost its operand is gone.
        for part in ("name", "keep", "change", "gather", "finish", "guard", *STYLE):
            assert edit[part] in (draft[part], best[part], "none", "early")


def test_what_works_is_not_touched_however_it_works():
    """A cap of 9 on numbers that are all below it does nothing, if no test can tell."""
    context = CONTEXT.replace("; at most 9", "").replace("return min(r, 9)", "return r")
    works = {**CODE.wanted(context), "names": "short"}
    assert user(1.0).edit(context, render(works)) == render(CODE.wanted(context))
    # Several wrong parts of style, and a tolerance for all of them.
    assert user(1.0, tolerance=5).edit(context, render(works)) == render(works)


def test_a_lower_rate_repairs_a_part_of_what_a_higher_one_does():
    for round in range(40):
        few = CODE.parse(
            user(0.3).edit(CONTEXT, render({**WANTED, "names": "short", "hints": "no"}), round=round)
        )
        many = CODE.parse(
            user(0.8).edit(CONTEXT, render({**WANTED, "names": "short", "hints": "no"}), round=round)
        )
        assert {p for p in STYLE if few[p] == WANTED[p]} <= {p for p in STYLE if many[p] == WANTED[p]}


def test_an_edit_depends_on_its_arguments_alone():
    assert user(0.5).edit(CONTEXT, CURRENT, round=3) == user(0.5).edit(CONTEXT, CURRENT, round=3)
    assert len({user(0.5).edit(CONTEXT, CURRENT, round=r) for r in range(20)}) > 1


def test_the_named_users_edit_code():
    strong = get_user("strong", CODE, seed=1)
    assert isinstance(strong, CodeUser)
    assert strong.settings == {
        "name": "strong",
        "repair": 0.95,
        "tolerance": 0,
        "seed": 1,
        "wishes": CODE.fingerprint,
    }
