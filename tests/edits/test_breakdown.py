"""The parts of a cost: they add up to it, and the redline shows the units that they count."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import redline
from editloop.edits.cost import Cost, get_cost
from editloop.edits.cost import breakdown as breakdown_module
from editloop.edits.cost.breakdown import Alignment, UnitPrices
from editloop.edits.cost.units import in_pieces, in_units

TEXTS = st.text(alphabet="ab \n.é_(", max_size=24)
UNITS = ("word", "char", "code", "token")
ALIGNED = [f"alignment:{unit}" for unit in UNITS]
ALIGNED += [
    f"levenshtein:{unit}/{normaliser}"
    for unit in UNITS
    for normaliser in ("response", "edit", "longest", "none")
]


def by_pairs(texts: list[str]) -> list[list[int]]:
    """A tokenizer: two characters at a time."""
    return [[hash(text[i : i + 2]) for i in range(0, len(text), 2)] for text in texts]


@pytest.mark.parametrize("name", ALIGNED)
@given(response=TEXTS, edit=TEXTS)
def test_the_parts_add_up_to_the_cost(name: str, response: str, edit: str) -> None:
    cost = get_cost(name, by_pairs)
    assert cost.breakdown is not None
    found = cost.breakdown(response, edit)
    assert found is not None
    assert found.cost == pytest.approx(float(cost([response], [edit])[0]), rel=1e-12, abs=1e-15)
    draft, text = in_units([response, edit], found.unit, by_pairs)
    assert (found.counts.in_response, found.counts.in_edit) == (len(draft), len(text))


@pytest.mark.parametrize("name", [name for name in ALIGNED if "token" not in name])
@given(response=TEXTS, edit=TEXTS)
def test_the_redline_shows_the_units_of_the_parts(name: str, response: str, edit: str) -> None:
    cost = get_cost(name)
    assert cost.breakdown is not None
    found = cost.breakdown(response, edit)
    assert found is not None
    spans = redline(response, edit, found)
    assert "".join(span.text for span in spans if span.kind != "inserted") == response
    assert "".join(span.text for span in spans if span.kind != "deleted") == edit
    if found.unit == "code":  # a unit that is cut out of its line may read as another one
        return
    shown = {
        kind: sum(
            len(next(iter(in_units([span.text], found.unit, None)))) for span in spans if span.kind == kind
        )
        for kind in ("deleted", "inserted")
    }
    counts = found.counts
    assert shown["inserted"] == counts.replaced + counts.inserted
    assert shown["deleted"] == counts.replaced + counts.deleted


@pytest.mark.parametrize(
    ("name", "counts", "prices"),
    [
        # a b c d -> a x c: one replaced, one deleted, of four words.
        ("alignment:word", Alignment(2, 1, 1, 0), UnitPrices(1 / 4, 1 / 4, 1 / 16)),
        ("levenshtein:word/response", Alignment(2, 1, 1, 0), UnitPrices(1 / 4, 1 / 4, 1 / 4)),
        ("levenshtein:word/edit", Alignment(2, 1, 1, 0), UnitPrices(1 / 3, 1 / 3, 1 / 3)),
        ("levenshtein:word/none", Alignment(2, 1, 1, 0), UnitPrices(1, 1, 1)),
    ],
)
def test_parts_by_hand(name: str, counts: Alignment, prices: UnitPrices) -> None:
    cost = get_cost(name)
    assert cost.breakdown is not None
    found = cost.breakdown("a b c d", "a x c")
    assert found is not None and (found.counts, found.prices) == (counts, prices)
    assert found.parts == {"replaced": prices.replaced, "deleted": prices.deleted, "inserted": 0.0}


def test_an_inserted_word_costs_a_quarter() -> None:
    cost = get_cost("alignment:word")
    assert cost.breakdown is not None
    found = cost.breakdown("a b c", "a b c d")
    assert found is not None and found.parts["inserted"] == found.cost == pytest.approx(1 / 13)


def test_code_is_drawn_by_its_own_tokens() -> None:
    response, edit = "return f(x)\n  pass", "return g(x)\n    pass"
    cost = get_cost("alignment:code")
    assert cost.breakdown is not None
    found = cost.breakdown(response, edit)
    assert found is not None and found.counts == Alignment(5, 2, 0, 0)
    assert redline(response, edit, found) == [
        ("kept", "return "),
        ("deleted", "f"),
        ("inserted", "g"),
        ("kept", "(x)"),
        ("deleted", "\n  "),
        ("inserted", "\n    "),
        ("kept", "pass"),
    ]


@pytest.mark.parametrize("name", ["semantic:some-encoder", "ter:word/edit"])
def test_a_cost_without_an_alignment_has_no_parts(name: str) -> None:
    assert get_cost(name).breakdown is None
    assert Cost("mine", lambda ys, es: [0.0] * len(ys)).breakdown is None


def test_long_texts_have_no_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakdown_module, "MOST_PAIRS", 5)
    cost = get_cost("alignment:word")
    assert cost.breakdown is not None
    assert cost.breakdown("a b", "c d") is not None and cost.breakdown("a b c", "d e f") is None


@given(TEXTS)
def test_pieces_make_up_the_text(text: str) -> None:
    for unit in ("word", "char", "code"):
        found = in_pieces(text, unit)
        assert found is not None
        units = next(iter(in_units([text], unit, None)))
        assert found.units == list(units)
        pairs = zip(found.gaps, found.units, strict=True)
        assert "".join(gap + each for gap, each in pairs) + found.end == text
    assert in_pieces(text, "token") is None
