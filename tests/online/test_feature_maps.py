"""Features of requests: numbers that do not depend on the process, and survive being kept."""

from __future__ import annotations

import base64
import math
import subprocess
import sys

import numpy as np
import pytest

from editloop.edits import as_context
from editloop.errors import BanditError
from editloop.online.features import FEATURES, Features, HashedWords, base, decoded, encoded
from editloop.online.features.base import MOST_FEATURES


def test_words_have_length_one_and_two_lengths_follow():
    found = HashedWords(16)("Invite Ada to the demo.", "").tolist()
    assert len(found) == 16
    assert math.isclose(sum(value * value for value in found[:11]), 1.0)
    assert found[11:14] == [0.0] * 3  # of users
    assert found[14] == found[15] == math.log10(1 + 23) / 5


def test_a_word_counts_by_the_logarithm_of_its_number_and_without_case():
    once, twice = (HashedWords(64)(text, "").tolist() for text in ("report", "Report, report"))
    assert once[:50] == twice[:50]  # a single word, whatever its count, is normalised to 1
    assert sorted(map(abs, once[:50]))[-2:] == [0.0, 1.0]
    mixed = np.abs(HashedWords(1000)("report report letter", "")[:798])
    assert math.isclose(max(mixed) / min(mixed[mixed > 0]), 1 + math.log(2))


def test_of_a_chat_the_last_message_of_the_user_counts_and_all_lengths():
    system = {"role": "system", "content": "You are a helpful assistant."}
    chat = as_context(
        [system, {"role": "user", "content": "Old"}, {"role": "user", "content": "Invite Ada."}]
    )
    found, alone = (HashedWords()(asked, "").tolist() for asked in (chat, "Invite Ada."))
    assert found[:319] == alone[:319]
    assert found[319] == math.log10(1 + 28 + 3 + 11) / 5


def test_a_user_has_a_place_and_a_sign_beside_the_words():
    nobody, ada, bob = (HashedWords()("Invite Ada.", user).tolist() for user in ("", "ada", "bob"))
    assert nobody[:254] == ada[:254] == bob[:254] and nobody[318:] == ada[318:]
    assert nobody[254:318] == [0.0] * 64
    assert sorted(map(abs, ada[254:318]))[-3:] == pytest.approx([0.0, 0.5**0.5, 0.5**0.5])
    assert ada[254:318] != bob[254:318]


def test_users_of_like_names_are_spread_over_the_places():
    found = {tuple(HashedWords()("", f"user {i}")) for i in range(500)}
    assert len(found) > 470  # of 8,192 pairs of places and signs
    places = np.count_nonzero(np.array(sorted(found))[:, 254:318], axis=0)
    assert places.min() > 5 and places.max() < 35  # 16 on average


def test_of_a_long_text_the_beginning_and_the_end_are_read():
    long = "alpha " + "x" * 30_000 + " omega"
    assert np.count_nonzero(HashedWords(4096)(long, "")[:3275]) == 3  # the two halves of the x are one word


def test_a_text_without_words_has_no_direction():
    assert not HashedWords()("…", "")[:254].any()


def test_the_same_text_has_the_same_features_in_another_process():
    call = "list(HashedWords(8)('Übung 7 für Ada', 'ada'))"
    code = f"from editloop.online.features import HashedWords; print({call})"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(list(HashedWords(8)("Übung 7 für Ada", "ada")))


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch):
    """Texts are read here, also those whose features were just written."""

    class Forgetful(dict[str, Features]):
        def get(self, key: str, default: object = None) -> None:
            return None

    monkeypatch.setattr(base, "_known", Forgetful())


def test_features_are_remembered_as_they_are_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(base, "_known", {})
    monkeypatch.setattr(base, "MOST_KNOWN", 2)
    text = encoded("mine", [0.1, 0.0, 3.0]) or ""
    written = decoded(text)
    for other in (1.0, 2.0):
        encoded("mine", [other])
    read = decoded(text)
    assert read is not written and read is decoded(text)
    assert (read.kind, read.size) == (written.kind, written.size)
    assert read.places.tolist() == written.places.tolist() == [0, 1, 3]
    assert read.values.tolist() == written.values.tolist() == [1.0, float(np.float16(0.1)), 3.0]
    assert read.places.dtype == written.places.dtype and read.values.dtype == written.values.dtype


def test_what_is_kept_is_rounded_once_and_read_back_exactly():
    text = encoded("mine", [0.1, -2.0, 65504.0])
    assert text is not None
    found = decoded(text)
    assert (found.kind, found.size) == ("mine", 3)
    assert found.dense().tolist() == [float(np.float16(0.1)), -2.0, 65504.0]
    assert encoded("mine", found.dense()) == text
    eight_words = HashedWords()("Please write a short letter to Ada Lovelace.", "ada")
    assert len(encoded("hashed-320", eight_words) or "") < 100


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 0.49, 0.5, 0.51, 1.0])
@pytest.mark.parametrize("size", [1, 2, 3, 320, MOST_FEATURES])
def test_features_of_any_share_of_zeros_are_read_back(size: int, share: float):
    rng = np.random.default_rng(size)
    values = np.where(rng.permutation(size) < share * size, rng.integers(1, 9, size), 0).astype(np.float64)
    found = decoded(encoded("mine", values) or "")
    assert found.dense().tolist() == values.tolist()
    assert found.places.tolist() == [0, *(np.flatnonzero(values) + 1)]
    assert found.values.tolist() == [1.0, *values[values != 0]]


def test_no_features_are_none():
    assert encoded("none", FEATURES.get("none")()("Write.", "ada")) is None


@pytest.mark.parametrize("values", [[math.nan], [math.inf], [0.0, 1e6], [0.0] * (MOST_FEATURES + 1)])
def test_numbers_that_cannot_be_kept_are_refused(values: list[float]):
    with pytest.raises(BanditError):
        encoded("mine", values)


@pytest.mark.parametrize("kind", ["", "a:b"])
def test_a_kind_is_a_plain_name(kind: str):
    with pytest.raises(BanditError, match="without a colon"):
        encoded(kind, [1.0])


def _kept(size: object, values: list[float], places: list[int] | None = None) -> str:
    data = b"" if places is None else np.array(places, "<u2").tobytes()
    return f"mine:{size}:{base64.b64encode(data + np.array(values, '<f2').tobytes()).decode()}"


SPOILED = {
    "no kind": _kept(1, [1.0])[4:],
    "no features": _kept(0, []),
    "a size below 0": _kept(-1, []),
    "no size": _kept("", [1.0]),
    "not finite": _kept(1, [math.nan]),
    "more values than places": _kept(9, [1.0, 2.0, 3.0], [0]),
    "half a value": "mine:3:AAA=",
    "places twice": _kept(9, [1.0, 2.0], [3, 3]),
    "places that fall": _kept(9, [1.0, 2.0], [4, 3]),
    "a place outside": _kept(9, [1.0, 2.0], [3, 9]),
    "too many": _kept(MOST_FEATURES + 1, [1.0], [0]),
    "a size without end": _kept("9" * 5000, [1.0], [0]),
}


@pytest.mark.parametrize(
    "text",
    ["", "mine", "mine:", "mine:1:AAA", "mine:1:!!!!", *[pytest.param(v, id=k) for k, v in SPOILED.items()]],
)
def test_a_text_that_is_no_features_is_refused(text: str):
    with pytest.raises(BanditError, match="cannot be read"):
        decoded(text)
