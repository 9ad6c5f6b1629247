"""The cost of an edit: hand-computed values, invariants, and errors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from editloop.edits import get_cost, register_cost
from editloop.edits.cost import COSTS, PAPER_COST, Cost, describe_cost
from editloop.errors import CostError, MissingExtraError
from plug_in import install_plug_in

HALF = Cost("half", lambda responses, edits: [0.5] * len(responses), scale=1.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # kitten -> sitting: 3 characters of 6 and 7; one word of one
        ("levenshtein:char/none", 3.0),
        ("levenshtein:char/response", 3 / 6),
        ("levenshtein:char/longest", 3 / 7),
        ("levenshtein:word/none", 1.0),
        ("levenshtein:word/response", 1.0),
    ],
)
def test_kitten(name: str, expected: float) -> None:
    assert get_cost(name)(["kitten"], ["sitting"]).tolist() == [expected]


@pytest.mark.parametrize(
    ("response", "edit", "expected"),
    [
        ("a b c d", "a b c d", 0.0),
        ("a b c d", "a  b\nc\td ", 0.0),  # words are what whitespace separates
        ("a b c d", "a x c d", 1 / 4),
        ("a b c d", "b c d", 1 / 4),
        ("a b c d", "", 1.0),
        ("a", "b c d", 3.0),  # above 1: the edit is longer than the response
        ("", "", 0.0),
        ("", "a b", 2.0),  # an empty response counts as length 1
    ],
)
def test_the_cost_of_the_paper_is_words_by_response_length(response: str, edit: str, expected: float) -> None:
    assert get_cost(PAPER_COST)([response], [edit]).tolist() == [expected]


def test_longest_of_nothing_is_zero() -> None:
    assert get_cost("levenshtein:word/longest")(["", ""], ["", "a b"]).tolist() == [0.0, 1.0]


def test_tokens_come_from_the_tokenizer() -> None:
    seen: list[list[str]] = []

    def tokenize(texts: list[str]) -> list[list[int]]:
        seen.append(texts)
        return [[len(word) for word in text.split()] for text in texts]

    cost = get_cost("levenshtein:token/response", tokenize)
    # lengths 1 2 3 -> 1 5 3: one substitution of three; 1 2 -> 1 2: none, though the words differ
    assert cost(["a bb ccc", "a bb"], ["x ddddd yyy", "u vv"]).tolist() == [1 / 3, 0.0]
    assert seen == [["a bb ccc", "a bb"], ["x ddddd yyy", "u vv"]]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("levenshtein", "unknown cost"),
        ("levenshtein:line/response", "unknown cost"),
        ("levenshtein:word/reference", "code/response|edit|longest|none"),
        ("ter:char/edit", "ter:word/response"),
        ("levenshtein:token/response", "needs the policy's tokenizer"),
        ("bleu", "use levenshtein:token|word|char|code/"),
    ],
)
def test_unknown_costs_say_what_there_is(name: str, match: str) -> None:
    with pytest.raises(CostError, match=match.replace("|", r"\|")) as error:
        get_cost(name)
    assert name in str(error.value)


def test_ter_counts_a_moved_stretch_as_one_edit() -> None:
    pairs = ["a b c d", "a b", "", "a b c"], ["c d a b", "a x", "a b", ""]
    assert get_cost("ter:word/none")(*pairs).tolist() == [1, 1, 2, 3]
    assert get_cost("ter:word/edit")(*pairs).tolist() == [0.25, 0.5, 1, 3]
    assert get_cost("ter:word/response")(*pairs).tolist() == [0.25, 0.5, 2, 1]
    assert get_cost("levenshtein:word/edit")(*pairs).tolist() == [1, 0.5, 1, 3]
    assert get_cost("ter:word/longest")([], []).shape == (0,)


PLUG_IN = """
from editloop.edits.cost import Cost, CostFamily

def words(responses, edits):
    return [float(len(each.split())) for each in edits]

def capped(name, rest, tokenize):
    return Cost(name, lambda ys, es: [min(len(e), int(rest)) for e in es], scale=float(rest), bounded=True)

CAPPED = CostFamily("capped:N", capped)
"""


def test_costs_of_installed_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_plug_in(
        tmp_path, monkeypatch, "editloop.costs", PLUG_IN, words="words", capped="CAPPED", broken="nothing"
    )
    assert get_cost("words")(["x"], ["a b"]).tolist() == [2]
    assert get_cost("capped:3")(["x", "x"], ["a", "abcd"]).tolist() == [1, 3]
    assert describe_cost("capped:3").bounded
    with pytest.raises(CostError, match="the cost broken of outside_package:nothing cannot be loaded"):
        get_cost("broken")
    with pytest.raises(CostError, match=r"; or one of .*broken, capped, words"):
        get_cost("bleu")


@pytest.mark.parametrize(
    ("name", "unit", "normaliser", "scale", "bounded", "label"),
    [
        ("levenshtein:word/response", "word", "response", 1, False, "words changed per word of the draft"),
        (
            "levenshtein:char/longest",
            "character",
            "longest",
            1,
            True,
            "characters changed per character of the",
        ),
        ("levenshtein:token/none", "token", "none", None, False, "tokens changed"),
        ("ter:word/edit", "word", "edit", 1, False, "words changed per word of the edit"),
        ("semantic:x", "meaning", "none", None, False, "distance of meaning"),
    ],
)
def test_a_cost_declares_what_its_numbers_mean(
    name: str, unit: str, normaliser: str, scale: float | None, bounded: bool, label: str
) -> None:
    cost = describe_cost(name)
    assert (cost.unit, cost.normaliser, cost.scale, cost.bounded) == (unit, normaliser, scale, bounded)
    assert cost.label.startswith(label)


@pytest.fixture(scope="module")
def encoder(base: Any, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A sentence encoder of random weights: the mean over the states of a tiny model."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    states = Transformer(str(base("llama")))
    folder = tmp_path_factory.mktemp("encoder")
    SentenceTransformer(modules=[states, Pooling(states.get_embedding_dimension())], device="cpu").save(
        str(folder)
    )
    return str(folder)


def test_the_semantic_cost_is_the_distance_of_the_meanings(encoder: str) -> None:
    from sentence_transformers import SentenceTransformer

    cost = get_cost(f"semantic:{encoder}")
    responses, edits = ["see you", "see you", "a"], ["see you", "call me", "see you"]
    found = cost(responses, edits)
    vectors = SentenceTransformer(encoder).encode(["see you", "call me"])
    cosine = vectors[0] @ vectors[1] / np.linalg.norm(vectors[0]) / np.linalg.norm(vectors[1])
    assert found[0] == 0
    assert found[1] == pytest.approx(1 - cosine, abs=1e-5) and found[1] > 1e-3
    assert ((found >= 0) & (found <= 2)).all()
    assert cost([], []).shape == (0,)
    assert cost(responses[::-1], edits[::-1]).tolist() == pytest.approx(found[::-1].tolist(), abs=1e-6)


def test_a_sentence_encoder_that_cannot_be_had_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(CostError, match="the sentence encoder cannot be loaded"):
        get_cost(f"semantic:{tmp_path / 'nothing'}")(["a"], ["b"])
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'editloop\[semantic\]'"):
        get_cost("semantic:some/other")(["a"], ["b"])
    with pytest.raises(CostError, match="unknown cost"):
        get_cost("semantic:")


words = st.text(alphabet="ab \n", max_size=12)


@given(st.lists(st.tuples(words, words), max_size=8), st.sampled_from(["word", "char"]))
def test_levenshtein_is_a_metric_within_its_bounds(pairs: list[tuple[str, str]], unit: str) -> None:
    left, right = [y for y, _ in pairs], [e for _, e in pairs]
    distance = get_cost(f"levenshtein:{unit}/none")
    there, back = distance(left, right), distance(right, left)
    assert there.dtype == np.float64 and there.shape == (len(pairs),)
    assert there.tolist() == back.tolist()
    assert not distance(left, left).any()
    cut = str.split if unit == "word" else list
    for value, y, e in zip(there, left, right, strict=True):
        assert abs(len(cut(y)) - len(cut(e))) <= value <= max(len(cut(y)), len(cut(e)))
        assert (value == 0) == (cut(y) == cut(e))
    assert (get_cost(f"levenshtein:{unit}/longest")(left, right) <= 1).all()
    assert (get_cost("ter:word/longest")(left, right) <= 1).all()


@given(st.lists(st.tuples(words, words), min_size=1, max_size=8))
def test_a_batch_is_its_rows(pairs: list[tuple[str, str]]) -> None:
    left, right = [y for y, _ in pairs], [e for _, e in pairs]
    rows = [get_cost()([y], [e])[0] for y, e in pairs]
    assert get_cost()(left, right).tolist() == rows


def test_a_built_in_cost_need_not_be_a_family(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COSTS.built_in, "half", f"{__name__}:HALF")
    assert get_cost("half")(["a"], ["b"]).tolist() == [0.5]
    with pytest.raises(CostError, match=r"use levenshtein:.*; or one of .*half"):
        get_cost("third")


def test_costs_of_ones_own() -> None:
    mine = register_cost("length", lambda responses, edits: [float(len(each)) for each in edits])
    assert mine(["a"], ["bcd"]).tolist() == [3.0]
    assert get_cost("length")(["a", "b"], ["", "cd"]).tolist() == [0.0, 2.0]
    assert register_cost("length", mine.function) == mine
    with pytest.raises(CostError, match="the cost's name is empty or taken: 'length'"):
        register_cost("length", lambda responses, edits: [0.0 for _ in edits])
    assert register_cost("share", mine.function, scale=2.0).scale == describe_cost("share").scale == 2.0
    with pytest.raises(CostError, match="one of length, share"):
        get_cost("lengths")
    for name in ("", "levenshtein:mine"):
        with pytest.raises(CostError, match="choose another name"):
            register_cost(name, lambda responses, edits: [0.0])


def test_a_cost_must_give_a_finite_number_per_pair() -> None:
    with pytest.raises(CostError, match="wrong shape"):
        register_cost("short", lambda responses, edits: [0.0])(["a", "b"], ["a", "b"])
    with pytest.raises(CostError, match="not finite: 'b'"):
        register_cost("nan", lambda responses, edits: [0.0, float("nan")])(["a", "b"], ["a", "b"])
    with pytest.raises(CostError, match="differ in number"):
        get_cost()(["a"], [])
