"""Pretraining from plain text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from editloop.errors import ConfigError
from editloop.lab import TextRecipe, pretrain_text
from editloop.lab.text import _pack, _train_tokenizer
from editloop.policy import load_base

TINY = TextRecipe(
    vocabulary=300, hidden_size=16, layers=1, heads=2, block=16, positions=64, epochs=2, batch_size=4
)
LINES = [f"The {n}th train to Zürich leaves at {n % 24}:00 from platform {n % 7}." for n in range(120)]


def test_a_base_from_text_loads_and_restores_any_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES[:60]), encoding="utf-8")
    (tmp_path / "b.txt").write_text("\n\n".join(LINES[60:]) + "\n", encoding="utf-8")
    seen: list[tuple[int, int, float]] = []
    out = tmp_path / "base"
    about = pretrain_text(
        [tmp_path / "a.txt", tmp_path / "b.txt"], out, TINY, progress=lambda *row: seen.append(row)
    )
    assert about["documents"] == 120
    assert about["steps"] == len(seen) == seen[-1][1]
    assert 1 < about["held_out_perplexity"] < 320
    assert about == json.loads((out / "recipe.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(out)
    AutoModelForCausalLM.from_pretrained(out)
    text = "Unseen: naïve 東京 🙂\n\ttabs  and  spaces."
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    samples = load_base(out, device="cpu").sample(["The 3rd train"], max_new_tokens=8)
    assert len(samples) == 1


def test_training_learns_the_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    short = pretrain_text([tmp_path / "a.txt"], tmp_path / "x", TINY)
    long = pretrain_text(
        [tmp_path / "a.txt"], tmp_path / "y", TextRecipe(**{**short["recipe"], "epochs": 12})
    )
    assert long["held_out_perplexity"] < 0.6 * short["held_out_perplexity"]


def test_texts_are_packed_into_whole_blocks_with_an_end_after_each() -> None:
    tokenizer = _train_tokenizer(["xyxy"], TINY)
    x, y, end = (tokenizer.convert_tokens_to_ids(token) for token in ("x", "y", "<eos>"))
    blocks = _pack(["x", "y", "", "xx", "y"], tokenizer, 3)
    assert blocks.tolist() == [[x, end, y], [end, end, x], [x, end, y]]


def test_a_file_can_be_one_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(LINES), encoding="utf-8")
    recipe = TINY.model_copy(update={"documents": "files", "epochs": 1})
    assert pretrain_text([tmp_path / "a.txt"], tmp_path / "base", recipe)["documents"] == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no text to train on"),
        (b" \n\n\t\n", "no text to train on"),
        ("Grüße".encode("latin-1"), "not UTF-8 text"),
        (b"Too short.\n", "too little text to train on: '0 blocks of 16 tokens'"),
    ],
)
def test_unusable_text_is_refused_before_anything_is_written(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "a.txt").write_bytes(content)
    with pytest.raises(ConfigError, match=message):
        pretrain_text([tmp_path / "a.txt"], tmp_path / "base", TINY)
    assert not (tmp_path / "base").exists()


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.txt cannot be read: 'No such file or directory'"):
        pretrain_text([tmp_path / "none.txt"], tmp_path / "base", TINY)
    with pytest.raises(ConfigError, match="cannot be read: 'Is a directory'"):
        pretrain_text([tmp_path], tmp_path / "base", TINY)


@pytest.mark.parametrize("change", [{"vocabulary": 100}, {"epochs": 0}, {"minutes": -1.0}])
def test_a_recipe_that_cannot_be_followed_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(change))):
        TextRecipe(**change)
