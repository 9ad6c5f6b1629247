"""The recipe by which a small base is made from plain text."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveFloat, PositiveInt

from editloop.configuration import Configuration, setting

__all__ = ["Documents", "TextRecipe"]

Documents = Literal["lines", "files"]


FROM_TEXT = "A base from plain text"


class TextRecipe(Configuration):
    """How a base model is made from plain text."""

    documents: Documents = setting(
        "lines", "Whether each line of a file is a text, or each file.", section=FROM_TEXT
    )
    # 256 bytes and the two special tokens are always in the vocabulary.
    vocabulary: int = setting(6000, "The most tokens that the tokenizer may have.", section=FROM_TEXT, ge=258)
    epochs: PositiveInt = setting(8, "Passes over the text.", section=FROM_TEXT)
    minutes: PositiveFloat = setting(
        12.0, "The most minutes of training; it may end sooner.", section=FROM_TEXT
    )
    hidden_size: PositiveInt = setting(192, "The width of the model.", section=FROM_TEXT)
    layers: PositiveInt = setting(4, "The number of its layers.", section=FROM_TEXT)
    heads: PositiveInt = setting(6, "The attention heads of a layer.", section=FROM_TEXT)
    block: PositiveInt = setting(128, "The tokens of a training row.", section=FROM_TEXT)
    positions: PositiveInt = setting(
        1024,
        "The longest context with its continuation, in tokens, that the model is configured for.",
        section=FROM_TEXT,
    )
    batch_size: PositiveInt = setting(16, "The blocks in a step.", section=FROM_TEXT)
    learning_rate: PositiveFloat = setting(3e-3, "The peak of the schedule.", section=FROM_TEXT)
    seed: int = setting(
        0, "The seed of the order of texts and blocks, and of the weights.", section=FROM_TEXT
    )
