"""The rows of the benchmarks on people's edits, and which of them are for training and which for testing.

LAMP: writers' edits of paragraphs, in folds whose test part holds writers that its train part does not know.
MLQE-PE: translators' edits of machine translations, a sample of its own train and test parts. All benchmarks
on a real base take their rows from here, so that they can be compared row by row.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.real_edits import READ, real_file, real_files
from editloop.edits import Record, read_log
from editloop.errors import ConfigError

__all__ = [
    "LAMP_FOLDS",
    "LANGUAGES",
    "MLQE_TEST",
    "MLQE_TRAIN",
    "Fold",
    "asked_translation",
    "lamp_folds",
    "mlqe",
]

LAMP_FOLDS = 3
MLQE_TRAIN, MLQE_TEST = 600, 300
SEED = 0
"""The seed of the rows that are sampled of MLQE-PE."""
LANGUAGES = {"ro-en": "Romanian", "et-en": "Estonian"}
"""By pair of languages, the language that is translated."""


class Fold(NamedTuple):
    """The records to learn from, and those to test on, which share no user and no context."""

    train: tuple[Record, ...]
    test: tuple[Record, ...]


def lamp_folds(data: str | Path | None = None, *, folds: int = LAMP_FOLDS) -> list[Fold]:
    """Return folds of LAMP's 237 edits by 16 writers; each writer is in the test part of exactly one.

    The writers with the most edits are dealt out first, each to the fold that has the fewest rows, so that
    the test parts are about equally large.

    Args:
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        folds: The number of folds.

    Raises:
        ConfigError: The file does not exist, or there are fewer writers than folds.
    """
    records = tuple(read_log(real_file(data, "lamp16.jsonl")))
    edits = Counter(record.user for record in records)
    if not 1 < folds <= len(edits):
        raise ConfigError("folds by writer must be 2 to the number of writers", seen=folds)
    rows, fold_of = [0] * folds, {}
    for writer in sorted(edits, key=lambda writer: (-edits[writer], str(writer))):
        fold_of[writer] = rows.index(min(rows))
        rows[fold_of[writer]] += edits[writer]
    return [
        Fold(
            tuple(record for record in records if fold_of[record.user] != fold),
            tuple(record for record in records if fold_of[record.user] == fold),
        )
        for fold in range(folds)
    ]


def mlqe(pair: str, data: str | Path | None = None) -> Fold:
    """Return 600 train rows and 300 test rows of MLQE-PE, each context asking for the translation.

    Args:
        pair: The languages, `ro-en` or `et-en`.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.

    Raises:
        ConfigError: There is no such pair, or a file does not exist.
    """
    if pair not in LANGUAGES:
        raise ConfigError("unknown pair of languages", seen=pair, do=f"choose one of {', '.join(LANGUAGES)}")
    train, test = real_files(data, [f"{pair}.train", f"{pair}.test"])
    taken = _sample(train, pair, MLQE_TRAIN, leave_out=frozenset())
    sources = frozenset(str(record.context) for record in taken)
    return Fold(taken, _sample(test, pair, MLQE_TEST, leave_out=sources))


def asked_translation(pair: str, record: Record) -> str:
    """Return the context of a post-edit, which is the sentence alone, as a task for an instruct model."""
    return f"Translate the following {LANGUAGES[pair]} sentence into English.\n\n{record.context}"


def _sample(file: Path, pair: str, count: int, leave_out: frozenset[str]) -> tuple[Record, ...]:
    """Return records of a file in its order, each of another context, which asks for a translation."""
    by_context = {asked_translation(pair, record): record for record in read_log(file, **READ)}
    contexts = [context for context in by_context if context not in leave_out]
    chosen = np.random.default_rng(SEED).permutation(len(contexts))[:count]
    return tuple(
        by_context[contexts[place]].model_copy(update={"context": contexts[place]})
        for place in sorted(chosen)
    )
