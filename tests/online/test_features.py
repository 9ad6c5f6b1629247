"""Features of requests: numbers that do not depend on the process, and survive being kept."""

from __future__ import annotations

import base64
import math
import subprocess
import sys
import zlib

import numpy as np
import pytest

from editloop.edits import as_context
from editloop.errors import BanditError
from editloop.online.features import FEATURES, HashedWords, decoded, encoded
from editloop.online.features.base import MOST_FEATURES


def test_words_have_length_one_and_two_lengths_follow():
    found = HashedWords(16)("Invite Ada to the demo.")
    assert len(found) == 16
    assert math.isclose(sum(value * value for value in found[:14]), 1.0)
    assert found[14] == found[15] == math.log10(1 + 23) / 5


def test_a_word_counts_by_the_logarithm_of_its_number_and_without_case():
    once, twice = (HashedWords(64)(text) for text in ("report", "Report, report"))
    assert once[:62] == twice[:62]  # a single word, whatever its count, is normalised to 1
    assert sorted(map(abs, once[:62]))[-2:] == [0.0, 1.0]
    mixed = np.abs(HashedWords(1000)("report report letter")[:998])
    assert math.isclose(max(mixed) / min(mixed[mixed > 0]), 1 + math.log(2))


def test_of_a_chat_the_last_message_of_the_user_counts_and_all_lengths():
    system = {"role": "system", "content": "You are a helpful assistant."}
    chat = as_context(
        [system, {"role": "user", "content": "Old"}, {"role": "user", "content": "Invite Ada."}]
    )
    found, alone = HashedWords()(chat), HashedWords()("Invite Ada.")
    assert found[:255] == alone[:255]
    assert found[255] == math.log10(1 + 28 + 3 + 11) / 5


def test_of_a_long_text_the_beginning_and_the_end_are_read():
    long = "alpha " + "x" * 30_000 + " omega"
    assert np.count_nonzero(HashedWords(4096)(long)[:4094]) == 3  # the two halves of the x are one word


def test_a_text_without_words_has_no_direction():
    assert HashedWords()("…")[:254] == [0.0] * 254


def test_the_same_text_has_the_same_features_in_another_process():
    code = "from editloop.online.features import HashedWords; print(list(HashedWords(8)('Übung 7 für Ada')))"
    there = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert there.strip() == str(list(HashedWords(8)("Übung 7 für Ada")))


def test_what_is_kept_is_rounded_once_and_read_back_exactly():
    text = encoded("mine", [0.1, -2.0, 65504.0])
    assert text is not None
    kind, values = decoded(text)
    assert kind == "mine"
    assert values.tolist() == [float(np.float16(0.1)), -2.0, 65504.0]
    assert encoded("mine", values.tolist()) == text
    eight_words = HashedWords()("Please write a short letter to Ada Lovelace.")
    assert len(encoded("hashed-256", eight_words) or "") < 150


def test_no_features_are_none():
    assert encoded("none", FEATURES.get("none")()("Write.")) is None


@pytest.mark.parametrize("values", [[math.nan], [math.inf], [0.0, 1e6], [0.0] * (MOST_FEATURES + 1)])
def test_numbers_that_cannot_be_kept_are_refused(values: list[float]):
    with pytest.raises(BanditError):
        encoded("mine", values)


@pytest.mark.parametrize("kind", ["", "a:b"])
def test_a_kind_is_a_plain_name(kind: str):
    with pytest.raises(BanditError, match="without a colon"):
        encoded(kind, [1.0])


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


SPOILED = [
    f":{_packed(bytes(2))}",
    f"mine:{_packed(b'')}",
    f"mine:{_packed(bytes(3))}",
    f"mine:{_packed(np.array([math.nan], dtype='<f2').tobytes())}",
    f"mine:{_packed(bytes(100_000_000))}",  # small, until it is unpacked
]


@pytest.mark.parametrize("text", ["", "mine", "mine:", "mine:AAA", "mine:!!!!", "mine:ADw=", *SPOILED])
def test_a_text_that_is_no_features_is_refused(text: str):
    with pytest.raises(BanditError, match="cannot be read"):
        decoded(text)
