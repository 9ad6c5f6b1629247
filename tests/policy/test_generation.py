"""Generation settings: which a base ships, which stand in for them, and which are refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest

from editloop.errors import ConfigError, ModelError
from editloop.policy import load_base
from editloop.policy.generation import READABLE, GenerationSettings
from tiny import tiny_model, tiny_tokenizer


@pytest.mark.parametrize(
    ("shipped", "settings", "why"),
    [
        ({}, READABLE, "the base ships no settings"),
        ({"do_sample": True}, GenerationSettings(), "as the base ships them"),
        ({"do_sample": False}, GenerationSettings(temperature=0.0), "as the base ships them"),
        ({"temperature": 0.6, "top_k": 20}, GenerationSettings(0.6, 1.0, 20), "as the base ships them"),
        (
            {"do_sample": True, "temperature": 0.7, "top_p": 0.8, "top_k": 20, "repetition_penalty": 1.05},
            GenerationSettings(0.7, 0.8, 20, 1.05),
            "as the base ships them",
        ),
    ],
)
def test_a_base_is_read_by_the_settings_that_it_ships(
    base: Any, tmp_path: Path, shipped: dict[str, Any], settings: GenerationSettings, why: str
) -> None:
    policy = load_base(with_settings(base(), tmp_path / "base", shipped), device="cpu")
    assert policy.generation == settings
    assert f"responses at {settings} ({why})" in policy.decisions


@pytest.mark.parametrize("shipped", [{"top_p": 1.5}, {"temperature": -1.0}, {"top_k": "many"}])
def test_settings_that_cannot_be_used_are_one_line(
    base: Any, tmp_path: Path, shipped: dict[str, Any]
) -> None:
    with pytest.raises(ModelError) as caught:
        load_base(with_settings(base(), tmp_path / "base", shipped), device="cpu")
    assert "generation" in str(caught.value) and "\n" not in str(caught.value)


def with_settings(base: Path, folder: Path, settings: dict[str, Any]) -> Path:
    """A copy of a base that ships these settings."""
    shutil.copytree(base, folder)
    (folder / "generation_config.json").write_text(json.dumps(settings))
    return folder


def test_what_is_asked_for_counts_alone() -> None:
    shipped = GenerationSettings(0.7, 0.8, 20, 1.05)
    assert shipped.unless_asked(None, None) is shipped
    assert shipped.unless_asked(0.5, None) == GenerationSettings(temperature=0.5)
    assert shipped.unless_asked(None, 0.9) == GenerationSettings(top_p=0.9)
    assert str(shipped) == "temperature 0.7, top-p 0.8, top-k 20, repetition penalty 1.05"
    assert str(GenerationSettings()) == "temperature 1"


@pytest.mark.parametrize(
    "wrong", [{"temperature": math.nan}, {"temperature": -0.1}, {"top_p": 0.0}, {"top_k": -1}]
)
def test_numbers_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        GenerationSettings(**wrong)


@pytest.mark.parametrize(
    ("shipped", "ends", "line"),
    [
        ({}, ["<|end|>"], None),
        ({"eos_token_id": 3}, ["<|end|>"], None),
        ({"eos_token_id": [2, 3]}, ["<|end|>", "<eos>"], None),
        (
            {"eos_token_id": 2},
            ["<|end|>", "<eos>"],
            "responses end at '<eos>' as well (by the base's settings, which lack '<|end|>')",
        ),
        (
            {"eos_token_id": [3, 999]},
            ["<|end|>"],
            "no response ends at 999, as the base's settings have it: no special token has that id",
        ),
        (
            {"eos_token_id": 9},  # a letter
            ["<|end|>"],
            "no response ends at 9, as the base's settings have it: no special token has that id",
        ),
    ],
)
def test_end_tokens_that_contradict_the_template_are_told(
    base: Any, tmp_path: Path, shipped: dict[str, Any], ends: list[str], line: str | None
) -> None:
    policy = load_base(with_settings(base(chat=True), tmp_path / "base", shipped), device="cpu")
    known = policy.encoder.tokenizer.convert_ids_to_tokens(list(policy.encoder.ends))
    assert known == ends and policy.encoder.end_token == "<|end|>"
    said = [each for each in policy.decisions if each.startswith(("responses end", "no response ends"))]
    assert said == ([line] if line else [])


def test_an_end_token_that_is_asked_for_is_the_only_one(base: Any, tmp_path: Path) -> None:
    folder = with_settings(base(chat=True), tmp_path / "base", {"eos_token_id": 2})
    policy = load_base(folder, device="cpu", end_token="<|user|>")
    assert policy.encoder.tokenizer.convert_ids_to_tokens(list(policy.encoder.ends)) == ["<|user|>"]
    assert not any(line.startswith("responses end") for line in policy.decisions)


def test_a_response_ends_at_whichever_end_token_comes_first(base: Any, tmp_path: Path) -> None:
    folder = with_settings(base(chat=True), tmp_path / "base", {"eos_token_id": 2})
    policy = load_base(folder, device="cpu")
    contexts = [f"question {i}" for i in range(24)]
    both = policy.sample(contexts, seed=0, temperature=1.0, max_new_tokens=200)
    policy.encoder.ends = (policy.encoder.end,)
    one = policy.sample(contexts, seed=0, temperature=1.0, max_new_tokens=200)
    shorter = [(a, b) for a, b in zip(both, one, strict=True) if a != b]
    assert shorter and all(a.finished and a.tokens < b.tokens for a, b in shorter)


def test_temperature_0_with_drawing_takes_the_likeliest_token(base: Any, tmp_path: Path) -> None:
    folder = with_settings(base(), tmp_path / "base", {"do_sample": True, "temperature": 0.0})
    policy = load_base(folder, device="cpu")
    assert policy.generation == GenerationSettings(temperature=0.0)
    why = "the base asks to draw at temperature 0: the likeliest token is taken"
    assert f"responses at temperature 0 ({why})" in policy.decisions


def test_a_tokenizer_of_another_model_is_refused(base: Any, tmp_path: Path) -> None:
    small = tmp_path / "small"
    tiny_model(vocab_size=40).save_pretrained(small)
    tiny_tokenizer().save_pretrained(small)
    with pytest.raises(ModelError, match=r"the model has no token '.+' of its tokenizer: number \d+ of 40"):
        load_base(small, device="cpu")


def test_padding_is_a_token_that_the_model_has(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "<later>"})
    folder = tmp_path / "base"
    tiny_model(vocab_size=len(tokenizer) - 1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    policy = load_base(folder, device="cpu")
    assert policy.encoder.pad == policy.encoder.end
    contexts = ["a", "a long context"]
    assert len(policy.sample(contexts, seed=0, max_new_tokens=4)) == 2
