"""How functions go wrong: each kind of bug, its share, and that it shows."""

from __future__ import annotations

import random
from collections import Counter
from itertools import islice

import pytest

from code_draft import DRAFT
from editloop.lab.code.behaviour import passes
from editloop.lab.code.faults import FAULTS, draw_kind, faulty, faulty_by
from editloop.lab.code.language import canonical
from editloop.lab.domains.code import CODE


def changed(kind: str, draft: dict[str, str]) -> list[dict[str, str]]:
    return [dict(change) for change in FAULTS[kind].changes(draft)]


def test_a_wrong_value_is_another_digit_or_another_guard():
    changes = changed("value", DRAFT)
    assert {"keep_by": "4"} in changes
    assert {"finish_by": "2"} in changes
    assert {"guard": "nothing"} in changes
    assert not any("change_by" in change for change in changes)  # a parameter is no value
    assert {"keep_by": "3"} not in changes


def test_logic_is_missing_or_in_excess():
    assert {"keep": "none"} in changed("missing", DRAFT)
    assert {"guard": "none"} in changed("missing", DRAFT)
    assert changed("excess", DRAFT) == []  # it has everything
    bare = canonical({**DRAFT, "finish": "none", "guard": "none"})
    assert {"finish": "floor", "finish_by": "7"} in changed("excess", bare)
    assert {"guard": "minus"} in changed("excess", bare)
    # What is done in the end fits what is gathered.
    assert not any(change.get("finish") == "sorted" for change in changed("excess", bare))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("operator", {"keep": "from"}),
        ("operator", {"change": "plus"}),
        ("function", {"finish": "floor"}),
        ("function", {"gather": "count"}),
        ("variable", {"keep_by": "limit"}),
    ],
)
def test_an_operator_a_function_or_a_variable_is_another(kind, change):
    assert change in changed(kind, DRAFT)


def test_every_bug_is_seen_by_the_tests_and_the_kinds_have_the_shares_of_people():
    generator, kinds = random.Random(0), Counter()
    for context in islice(CODE.contexts(0, stream="faults"), 200):
        wanted = CODE.wanted(context)
        assert not passes(faulty(wanted, generator), wanted)
    drawn = 2000
    kinds.update(draw_kind(generator) for _ in range(drawn))
    whole = sum(fault.share for fault in FAULTS.values())
    assert whole == 164
    for kind, fault in FAULTS.items():
        assert abs(kinds[kind] / drawn - fault.share / whole) < 0.04, kinds


def test_a_function_that_cannot_have_a_kind_of_bug_has_none():
    assert faulty_by("excess", DRAFT, random.Random(0)) is None
    assert faulty_by("variable", {**DRAFT, "signature": "", "change_by": "2"}, random.Random(0)) is None
    broken = faulty_by("missing", DRAFT, random.Random(0))
    assert broken is not None
    assert not passes(broken, DRAFT)
