"""The diagnosis of a log: each figure by hand, what a log cannot tell, and the rule."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.cli.diagnose import print_diagnosis
from editloop.diagnosis import Diagnosis, Estimate, advise, diagnose
from editloop.edits import Record, read_log
from editloop.errors import EmptyViewError
from editloop.offline import make_examples, reference_pass
from editloop.offline.examples import EDIT, RESPONSE
from editloop.policy import load_base

DATA = Path(os.environ.get("EDITLOOP_DATA", Path(__file__).parents[2] / "../shared/data"))
LAMP = {"context": "instruction", "response": "preedit", "edit": "postedit", "user": "writer"}


def row(i: int, response: str, edit: str | None, context: str | None = None, user: str = "ada") -> Record:
    given: dict[str, Any] = {"id": str(i), "context": context or f"notes {i}", "response": response}
    return Record(**given, edit=edit, user=user)


def value(found: Diagnosis, name: str) -> float:
    estimate = found[name].estimate
    assert estimate is not None and estimate.low <= estimate.value <= estimate.high
    return estimate.value


def test_what_was_edited_and_what_it_cost() -> None:
    rows = [row(i, "a b c d", "a b c x" if i % 4 else "a b c d") for i in range(40)]
    found = diagnose([*rows, row(99, "never seen", None)])
    assert (found.rows, found.answered, found.edited) == (41, 40, 30)
    assert value(found, "edited") == 0.75 and value(found, "edit size") == 0.25
    with pytest.raises(KeyError, match="edit sizes"):
        found["edit sizes"]
    share = found["edited"].estimate
    assert share is not None and 0.55 < share.low < 0.7 < 0.8 < share.high <= 0.92
    assert {each.name for each in found.findings if each.estimate is None} >= {"contraction", "coverage"}
    assert all(each.needs for each in found.findings if each.estimate is None)


def test_a_users_own_text_shown_again() -> None:
    rows = []
    for i in range(12):  # four words are changed, then one of them again
        rows.append(row(2 * i, "a b c d", "e f g h", f"notes {i}"))
        rows.append(row(2 * i + 1, "e f g h", "e f g x", f"notes {i}"))
    found = diagnose(rows)
    assert value(found, "kept after an edit") == pytest.approx(0.75)
    # All of 12 contexts' rows were edited: Wilson's interval of the share begins at 12 / (12 + z²) = .757.
    assert "strength is 0.57 to 0.75" in found.advice.reasons[0]
    kept = [
        row(i + 100 * k, "a b" if k == 0 else "c d", "c d", f"notes {i}") for k in (0, 1) for i in range(20)
    ]
    half = [*kept[:30], *(row(200 + i, "c d", "e f", f"notes {i}") for i in range(10, 20))]
    assert value(diagnose(kept), "kept after an edit") == 1.0  # shown again, and accepted
    assert value(diagnose(half), "kept after an edit") == pytest.approx(0.5)


def test_revisions_of_an_edit() -> None:
    rows = []
    for i in range(24):  # half of the edits of four words had another word in between
        more = {"metadata": {"revisions": ["e f g x"]}} if i % 2 else {}
        rows.append(row(i, "a b c d", "e f g h").model_copy(update=more))
    found = diagnose(rows)
    assert value(found, "kept in revisions") == pytest.approx(1 - 12 * 0.25 / 24)
    assert "and its revisions" in found.advice.reasons[0]


def test_two_responses_that_one_user_edits() -> None:
    rows = []
    for i in range(12):  # four words apart before, one after
        rows.append(row(2 * i, "a b c d", "e f g h", f"notes {i}"))
        rows.append(row(2 * i + 1, "k l m n", "e f g x", f"notes {i}"))
    found = diagnose(rows)
    assert value(found, "contraction") == pytest.approx(0.75)
    assert found["agreement"].estimate is None


def test_two_users_who_edit_one_response() -> None:
    rows = []
    for i in range(12):  # each changes two words, one of them alike: 2 apart, having gone 2 + 2
        rows.append(row(2 * i, "a b c d", "e f c d", f"notes {i}", "ada"))
        rows.append(row(2 * i + 1, "a b c d", "e b g d", f"notes {i}", "bob"))
    found = diagnose(rows)
    assert value(found, "agreement") == pytest.approx(0.5)
    assert found["contraction"].estimate is None


def test_rows_of_one_context_are_not_independent() -> None:
    rows = [
        row(100 * k + i, f"a b {i}", f"a b {i}" if k % 2 else f"a c {i}", f"notes {k}")
        for k in range(10)
        for i in range(100)
    ]
    share = diagnose(rows)["edited"].estimate
    assert share is not None and share.n == 10 and share.high - share.low > 0.4


def test_who_is_not_named_is_not_taken_for_one_person() -> None:
    rows = [
        row(2 * i + k, f"a b {k}", f"c d {k}", f"notes {i}").model_copy(update={"user": None})
        for i in range(12)
        for k in (0, 1)
    ]
    found = diagnose(rows)
    assert found["contraction"].estimate is None and found["kept after an edit"].estimate is None


def test_texts_that_differ_in_blanks_alone() -> None:
    rows = [row(2 * i + k, "a b" + " " * k, "c" + " " * k, f"notes {i}") for i in range(12) for k in (0, 1)]
    found = diagnose(rows)
    assert found["contraction"].estimate is None and "all alike" in found["contraction"].explanation


def test_all_pairs_of_a_context_may_be_compared() -> None:
    rows = []
    for i in range(12):
        rows += [row(100 * i + k, "a b", "c d", f"notes {i}") for k in range(25)]
        rows.append(row(100 * i + 99, "a b", "c e", f"notes {i}", "bob"))
    assert value(diagnose(rows), "agreement") == pytest.approx(0.75)


def test_coverage_and_costs_by_a_base(base: Any) -> None:
    policy = load_base(base(), device="cpu", max_length=60)
    rng = np.random.default_rng(0)
    rows = [row(i, "say " + "1 " * int(rng.integers(1, 9)), f"say {i % 7}") for i in range(40)]
    found = diagnose(rows, base=policy)
    held, _ = reference_pass(policy, make_examples(rows, policy.encoder).examples)
    sides = [(e.completions, e.completions.reference) for e in held if e.is_pair]
    gaps = [each[own.of(RESPONSE)] - each[own.of(EDIT)] for own, each in sides if each]
    assert value(found, "coverage") == pytest.approx(float(np.median(gaps)))
    # A cost that the length decides is predicted; one that nothing decides is not.
    assert value(found, "predicted cost") > 0.3
    noise = [row(i, "a b c d e f g h", " ".join("abcdefgh"[: int(rng.integers(1, 9))])) for i in range(40)]
    assert value(diagnose(noise, base=policy), "predicted cost") < 0.2


def test_what_cannot_be_looked_at() -> None:
    with pytest.raises(EmptyViewError, match=r"no row was edited or accepted: '1 rows'"):
        diagnose([row(0, "a", None)])
    accepted = diagnose([row(i, "a b", "a b") for i in range(20)])
    assert accepted["edit size"].estimate is None and accepted["predicted cost"].estimate is None
    assert accepted.advice.confidence == "low"
    single = diagnose([row(0, "a b", "a c")])
    assert single["edited"].estimate == Estimate(1.0, pytest.approx(0.2065493), 1.0, 1)
    assert single.to_json()["rows"] == 1


def test_of_two_rows_no_interval_is_a_point() -> None:
    """What two rows say is not known to two digits: costs of .5 each are no "0.50 to 0.50"."""
    alike = diagnose([row(0, "a b", "a c"), row(1, "d e", "d f")])
    assert (
        alike["edit size"].estimate is None and "too few contexts (n = 2)" in alike["edit size"].explanation
    )
    assert alike["edited"].estimate == Estimate(1.0, pytest.approx(0.3423802), 1.0, 2)
    mixed = diagnose([row(0, "a b", "a c"), row(1, "d e", "x f")])  # costs of 1/2 and 2/2: t of 12.706 by .25
    reach = 12.7062047 * 0.25
    assert mixed["edit size"].estimate == Estimate(
        0.75, pytest.approx(0.75 - reach), pytest.approx(0.75 + reach), 2
    )


def test_what_was_the_same_throughout_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    print_diagnosis(diagnose([row(i, "a b", "a c") for i in range(12)]))
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("edit size  ")]
    assert line.split() == ["edit", "size", "0.50", "all", "alike", "12"]


def test_the_rule() -> None:
    def method_for(edited: int, share: float, **more: float) -> tuple[str, str]:
        found = {"edited": Estimate(share, share, share, edited)}
        found |= {name: Estimate(each, each, each, edited) for name, each in more.items()}
        advice = advise(edited, found)
        return advice.method, advice.confidence

    assert method_for(50, 1.0) == ("early", "low")
    assert method_for(400, 1.0) == ("sft", "low")
    assert method_for(400, 0.8) == ("early", "medium")
    assert method_for(400, 0.45) == ("early", "medium")
    assert method_for(700, 0.45) == ("dpo", "low")
    assert method_for(700, 0.9, **{"kept after an edit": 0.3}) == ("dpo", "medium")
    assert method_for(700, 1.0, **{"kept after an edit": 0.7}) == ("early", "medium")
    assert method_for(700, 1.0, **{"kept after an edit": 0.99}) == ("sft", "medium")
    assert method_for(700, 0.2, **{"kept after an edit": 0.99}) == ("dpo", "medium")
    assert method_for(700, 1.0, **{"kept after an edit": -0.5}) == ("dpo", "low")
    assert method_for(700, 1.0, **{"kept in revisions": 0.4}) == ("dpo", "low")


@pytest.mark.skipif(not (DATA / "lamp.w12.jsonl").is_file(), reason=f"no real edits in {DATA}")
def test_two_writers_of_the_same_responses() -> None:
    both = [r for w in ("w12", "w16") for r in read_log(DATA / f"lamp.{w}.jsonl", map=LAMP)]
    found = diagnose(both)
    assert found.answered == 100 and value(found, "edited") == 1.0
    agreement = found["agreement"].estimate
    assert agreement is not None and agreement.n > 40 and 0 < agreement.low < agreement.high < 0.6
    assert found.advice == advise(100, {each.name: each.estimate for each in found.findings})
    assert found.advice.confidence == "low"


@pytest.mark.skipif(not (DATA / "mlqe_pe.et-en.dev.tsv").is_file(), reason=f"no real edits in {DATA}")
def test_translators() -> None:
    columns = {"context": "src", "response": "mt", "edit": "pe"}
    log = read_log(DATA / "mlqe_pe.et-en.dev.tsv", map=columns, quote='"')
    found = diagnose(tuple(log), cost="ter:word/edit")
    assert 0.85 < value(found, "edited") < 0.95 and 0.2 < value(found, "edit size") < 0.4
    assert found["contraction"].estimate is None and found["agreement"].estimate is None
    assert found.advice.method == "early"
