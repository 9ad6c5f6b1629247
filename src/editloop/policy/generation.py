"""How the tokens of a response are drawn: by the settings that the base ships, or by ours if there are none.

At temperature 1, over the whole vocabulary, a small model writes word salad: the many unlikely tokens are
drawn too often together. What people read is therefore drawn by the base's own settings. The whole
distribution is for mathematics that needs it, such as completions sampled from π_ref.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from editloop.errors import ConfigError, ModelError
from editloop.policy.mode import core_of

__all__ = ["READABLE", "GenerationSettings", "shipped_ends", "shipped_settings"]


@dataclass(frozen=True, slots=True)
class GenerationSettings:
    """How a token is drawn; by default from the whole distribution.

    Attributes:
        temperature: The softmax temperature; 0 takes the likeliest token.
        top_p: Draw among the fewest likeliest tokens that have this probability together; 1 is all.
        top_k: Draw among so many of the likeliest tokens; 0 is all.
        repetition_penalty: What the scores of tokens that are there already are divided by (multiplied, if
            they are negative); 1 is none.

    Raises:
        ConfigError: A number is out of its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        ranges = {
            "temperature": 0 <= self.temperature < math.inf,
            "top_p": 0 < self.top_p <= 1,
            "top_k": self.top_k >= 0,
            "repetition_penalty": 0 < self.repetition_penalty < math.inf,
        }
        for name, fits in ranges.items():
            if not fits:  # also of NaN
                raise ConfigError(f"{name} is out of its range", seen=getattr(self, name))

    def unless_asked(self, temperature: float | None, top_p: float | None) -> GenerationSettings:
        """These settings; if a temperature or a top-p is asked for, what is asked for alone.

        Raises:
            ConfigError: A number is out of its range.
        """
        if temperature is None and top_p is None:
            return self
        return GenerationSettings(
            1.0 if temperature is None else temperature, 1.0 if top_p is None else top_p
        )

    def __str__(self) -> str:
        parts = [f"temperature {self.temperature:g}"]
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"repetition penalty {self.repetition_penalty:g}"] if self.repetition_penalty != 1 else []
        return ", ".join(parts)


READABLE = GenerationSettings(temperature=0.7, top_p=0.9)
"""For a base that ships no settings."""


def shipped_settings(model: Any) -> tuple[GenerationSettings, str]:
    """The settings by which a base should be read, and where they come from.

    Args:
        model: A `transformers` model, or its PEFT wrapper.

    Raises:
        ModelError: The base ships a number that is out of its range.
    """
    config = getattr(core_of(model), "generation_config", None)
    found = {
        name: value
        for name in GenerationSettings.__dataclass_fields__
        if (value := getattr(config, name, None)) is not None
    }
    draws = getattr(config, "do_sample", None)
    if draws is False:  # the base asks for the likeliest token
        found["temperature"] = 0.0
    if not found and not draws:
        return READABLE, "the base ships no settings"
    try:
        settings = GenerationSettings(**found)
    except (ConfigError, TypeError) as error:
        raise ModelError(
            f"the generation settings of the base cannot be used: {error}",
            do="change its generation_config.json",
        ) from error
    if draws and settings.temperature == 0:
        return settings, "the base asks to draw at temperature 0: the likeliest token is taken"
    return settings, "as the base ships them"


def shipped_ends(model: Any, tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens at which the base's generation settings end a response.

    Args:
        model: A `transformers` model.
        tokenizer: Its tokenizer.

    Returns:
        The ids that are special tokens of the tokenizer; and those that are not, at which no response should
        end: they are outside the vocabulary, or parts of words.
    """
    found = getattr(getattr(core_of(model), "generation_config", None), "eos_token_id", None)
    named = tuple(found) if isinstance(found, list | tuple) else () if found is None else (found,)
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    return tuple(each for each in named if each in special), tuple(e for e in named if e not in special)
