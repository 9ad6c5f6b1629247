"""Features by embeddings: requests that mean the same are alike, and share what was learned."""

from __future__ import annotations

import logging
import math
import subprocess
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from editloop.edits import as_context
from editloop.errors import ConfigError, MissingExtraError
from editloop.online import Bandit, BanditConfig
from editloop.online.features import FEATURES, embedded

if find_spec("wordllama") is None:
    pytest.skip("wordllama is not installed", allow_module_level=True)

LETTERS = (
    "Please write a letter to my landlord.",
    "Draft an email to the customer.",
    "Compose a reply to this message.",
    "Word a polite note for my neighbour.",
)
NUMBERS = (
    "Add up the figures in this table.",
    "Calculate the total of these invoices.",
    "What is the average of the columns?",
    "Sum the amounts and give the percentage.",
)


def test_an_embedding_has_length_1_and_the_user_and_the_lengths_follow():
    features = FEATURES.get("embedded")()
    values = np.asarray(features("Write to Ada.", "ada"))
    assert features.kind == "embedded-64" and values.shape == (98,)
    assert np.linalg.norm(values[:64]) == pytest.approx(1.0)
    assert np.linalg.norm(values[64:-2]) == pytest.approx(1.0)
    assert np.asarray(features("Write to Ada.", ""))[64:-2].any() is np.False_
    assert values[-2] == values[-1] == pytest.approx(math.log10(14) / 5)


def test_the_vectors_are_those_of_the_package(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)  # which the import calls
    wordllama = pytest.importorskip("wordllama")
    folder = Path(wordllama.__file__).parent
    theirs = wordllama.WordLlama.load(cache_dir=folder, trunc_dim=64, disable_download=True)
    text = "Write a short letter to Ada Lovelace."
    assert FEATURES.get("embedded")()(text, "")[:64] == pytest.approx(
        theirs.embed(text, norm=True)[0], abs=1e-5
    )


def test_the_package_is_not_imported_because_that_would_change_the_logging():
    code = (
        "import sys\n"
        "from editloop.online.features import FEATURES\n"
        "FEATURES.get('embedded')()('Write.', '')\n"
        "print('wordllama' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout.strip(), done.stderr) == ("False", "")


def test_half_a_pair_of_surrogates_is_no_error():
    assert np.asarray(FEATURES.get("embedded")()("a\ud800b", "")).any()


def test_of_a_chat_the_last_message_of_the_user_counts_and_no_words_have_no_direction():
    features = FEATURES.get("embedded")()
    chat = as_context([{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Write."}])
    assert np.asarray(features(chat, ""))[:64].tolist() == np.asarray(features("Write.", ""))[:64].tolist()
    assert not np.asarray(features("", ""))[:64].any()


def test_like_requests_in_other_words_are_nearer_than_unlike_ones():
    features = FEATURES.get("embedded")()
    letters, numbers = (np.array([features(text, "")[:64] for text in texts]) for texts in (LETTERS, NUMBERS))
    within = min((letters @ letters.T).min(), (numbers @ numbers.T).min())
    assert within > (letters @ numbers.T).mean()


@pytest.mark.parametrize(("features", "at_least"), [("embedded", 0.75), ("none", 0.0)])
def test_what_was_learned_of_some_words_holds_for_others(features: str, at_least: float):
    """One arm is better at letters and one at numbers; the last request of each kind was never seen."""
    rng, right, seeds = np.random.default_rng(0), 0, 10
    for seed in range(seeds):
        bandit = Bandit(["letters", "numbers"], BanditConfig(features=features, seed=seed))
        for t in range(160):
            kind, texts = (("letters", LETTERS), ("numbers", NUMBERS))[t % 2]
            decision = bandit.decide(str(t), context=str(rng.choice(texts[:3])))
            bandit.edited(str(t), 0.2 if decision.arm == kind else 0.6)
        for kind, texts in (("letters", LETTERS), ("numbers", NUMBERS)):
            known = bandit.features_of(texts[3])
            right += bandit.probabilities(features=known)[bandit.arms.index(kind)] / (2 * seeds)
    assert right >= at_least
    assert features != "none" or right < 0.6  # without features, one arm is played for both


def test_a_package_without_the_files_or_no_package_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    spec = ModuleSpec("wordllama", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    embedded._files.cache_clear()
    monkeypatch.setattr(embedded, "find_spec", lambda _: spec)
    with pytest.raises(ConfigError, match="without its embeddings"):
        BanditConfig(features="embedded")
    monkeypatch.undo()
    monkeypatch.setattr("editloop.extras._installed", lambda _: False)
    with pytest.raises(MissingExtraError, match=r"editloop\[embeddings\]"):
        BanditConfig(features="embedded")
