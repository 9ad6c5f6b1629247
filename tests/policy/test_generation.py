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
