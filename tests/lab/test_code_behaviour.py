"""What functions of the language do, and that their tests tell them from others."""

from __future__ import annotations

import random
from itertools import islice

from code_draft import DRAFT
from editloop.lab.code.behaviour import checks_of, differ, mutants, outcome, passes
from editloop.lab.code.faults import faulty
from editloop.lab.code.language import BEHAVIOUR, STYLE, canonical, render
from editloop.lab.domains import get_domain
from editloop.lab.domains.code import CODE
from editloop.sandbox import Program, Sandbox


def wanted(n: int, stream: str = "behaviour") -> list[dict[str, str]]:
    """Functions that are asked for."""
    return [dict(CODE.wanted(context)) for context in islice(CODE.contexts(0, stream=stream), n)]


def test_a_function_gives_what_its_text_says():
    assert outcome(DRAFT, ([], 2)) == "-1"
    assert outcome(DRAFT, ([1, 3, 4], 2)) == "8"
    assert outcome(DRAFT, ([4, 5], 2)) == "9"  # capped
    assert outcome(DRAFT, ([4],)) == "raised TypeError"  # one argument too few
    assert outcome({**DRAFT, "gather": "join"}, ([4], 2)) == "raised TypeError"
    assert outcome({**DRAFT, "signature": ""}, ([4],)) == "raised NameError"


def test_style_is_no_behaviour():
    other = {part: values[-1] for part, values in STYLE.items()}
    assert not differ(DRAFT, canonical({**DRAFT, **other}))
    assert passes(canonical({**DRAFT, **other}), DRAFT)
    # Two texts that do the same, though their parts differ: nothing above 9 is left by a cap of 9 either.
    assert differ(DRAFT, {**DRAFT, "finish_by": "8"})


def test_the_tests_of_a_function_are_few_and_its_own():
    for draft in wanted(50):
        tests = checks_of(draft)
        assert 5 <= len(tests) <= 8
        assert tests[0].arguments[0] in ([], "")
        assert all(outcome(draft, test.arguments) == test.expected for test in tests)
        assert passes(draft, draft)


def test_every_function_with_one_part_changed_is_caught_if_anything_tells_it():
    for draft in wanted(40):
        for mutant in mutants(draft):
            assert passes(mutant, draft) != differ(draft, mutant)


def test_changes_that_the_tests_were_not_chosen_for_are_caught_too():
    """Two bugs at once, on arguments of which none is in the pool."""
    generator, caught, seen = random.Random(1), 0, 0
    for draft in wanted(300, "mutations"):
        other = faulty(faulty(draft, generator), generator)
        size = 1 + draft["signature"].count(",")
        fresh = [(_collection(draft["shape"], generator), 3, 5)[:size] for _ in range(200)]
        if any(outcome(draft, each) != outcome(other, each) for each in fresh):
            seen += 1
            caught += not passes(other, draft)
    assert seen > 250
    assert caught / seen >= 0.95


def _collection(shape: str, generator: random.Random) -> object:
    n = generator.randint(0, 6)
    if shape == "numbers":
        return [generator.randint(-20, 20) for _ in range(n)]
    words = [
        "".join(generator.choice("abcdeABC019") for _ in range(generator.randint(1, 10))) for _ in range(n)
    ]
    return words if shape == "words" else "".join(words)


def test_what_is_run_in_the_head_is_what_the_sandbox_gives(sandbox: Sandbox) -> None:
    generator, programs, expected = random.Random(2), [], []
    for draft in wanted(40, "agreement"):
        for made in (draft, faulty(draft, generator)):
            arguments = tuple(test.arguments for test in checks_of(draft))
            programs.append(Program(render(made), made["name"], arguments))
            expected.append(tuple(outcome(made, each) for each in arguments))
    assert [each.values for each in sandbox.run(programs)] == expected


def test_behaviour_and_style_are_all_that_a_function_has():
    assert set(CODE.behaviour) | set(STYLE) == set(wanted(1)[0])
    assert set(BEHAVIOUR) < set(CODE.behaviour)
    assert get_domain("code") is CODE
