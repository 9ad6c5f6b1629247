"""How fast edit costs are computed, on edits that people made.

Four programs are compared. Each goes from the raw texts to one number per pair, tokenisation included:

- `editloop`: `levenshtein:word/response`.
- `default`: `alignment:word`, the default cost, whose weights allow no bit-parallel algorithm.
- `usual loop`: NLTK word tokens and `editdistance.eval`, row by row. NLTK's word tokenizer is called without
  the sentence splitter that `word_tokenize` runs first, because that needs a download; with it, the loop
  would be slower still.
- `bare RapidFuzz`: `Levenshtein.distance` of whitespace words, row by row, not normalised.

The programs take turns, several times; medians are reported.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_edits import READ, real_folder
from editloop.edits import get_cost, read_log
from editloop.edits.cost import DEFAULT_COST, PAPER_COST
from editloop.errors import ConfigError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

Arm = Callable[[Sequence[str], Sequence[str]], Sequence[float]]
Pairs = tuple[list[str], list[str]]

SHORTEST = 0.05
"""The least duration of a timing in seconds; a shorter computation is repeated within it."""

GOALS = {"usual loop": 50.0, "bare RapidFuzz": 1.5}
_LOGS = {
    "mlqe_pe.ro-en.train.tsv": READ,
    "mlqe_pe.et-en.train.tsv": READ,
    "lamp.w12.jsonl": {"map": "context=instruction,response=preedit,edit=postedit"},
    "lamp.w16.jsonl": {"map": "context=instruction,response=preedit,edit=postedit"},
}


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    repeats: int = 7,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `cost-speed.json` and `cost-speed.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given. If the folder does
            not exist, synthetic texts are used, and the results say so.
        repeats: How often each program takes its turn.
        callback: Receives progress.

    Raises:
        ConfigError: NLTK or editdistance is missing.
    """
    callback = callback or WarningCallback()
    folder = real_folder(data)
    texts = _real(folder) or _synthetic()
    arms = _arms()
    results = []
    for name, pairs in texts.items():
        seconds: dict[str, list[float]] = {arm: [] for arm in arms}
        for turn in range(repeats):
            for arm, compute in arms.items():
                seconds[arm].append(_seconds(compute, pairs))
            callback.progress(name, turn + 1, repeats)
        results.append(_result(name, pairs, seconds, arms))
    if len(results) > 1:
        results.append(_together(results))
    real = "synthetic" not in texts
    measured = {"real_texts": real, "repeats": repeats, "goals": GOALS, "texts": results}
    write_result("cost-speed", measured, _markdown(results, real, repeats), out)
    return measured


def _arms() -> dict[str, Arm]:
    try:
        import editdistance
        from nltk.tokenize import NLTKWordTokenizer
    except ImportError as error:
        raise ConfigError(
            "a benchmark's library is missing", seen=error.name, do="install editloop[bench]"
        ) from None
    from rapidfuzz.distance import Levenshtein

    cost, default, tokenizer = get_cost(PAPER_COST), get_cost(DEFAULT_COST), NLTKWordTokenizer()

    def usual(responses: Sequence[str], edits: Sequence[str]) -> Sequence[float]:
        values = []
        for response, edit in zip(responses, edits, strict=True):
            tokens = tokenizer.tokenize(response)
            values.append(editdistance.eval(tokens, tokenizer.tokenize(edit)) / len(tokens))
        return values

    def bare(responses: Sequence[str], edits: Sequence[str]) -> Sequence[float]:
        return [Levenshtein.distance(y.split(), e.split()) for y, e in zip(responses, edits, strict=True)]

    return {
        "editloop": lambda y, e: cost(y, e).tolist(),
        "default": lambda y, e: default(y, e).tolist(),
        "usual loop": usual,
        "bare RapidFuzz": bare,
    }


def _real(folder: Path) -> dict[str, Pairs]:
    texts: dict[str, Pairs] = {}
    for name, options in _LOGS.items():
        if (folder / name).is_file():
            records = read_log(folder / name, **options).records
            kept = [(record.response, record.edit) for record in records if record.edit is not None]
            texts[name] = [response for response, _ in kept], [edit for _, edit in kept]
    return texts


def _synthetic() -> dict[str, Pairs]:
    from benchmarks.log_scale import synthetic_rows

    rows = [
        row for row in synthetic_rows(5000, seed=0) if row["edit"] is not None and row["response"].strip()
    ]
    return {"synthetic": ([row["response"] for row in rows], [row["edit"] for row in rows])}


def _seconds(compute: Arm, pairs: Pairs) -> float:
    """Return the seconds of one pass over the pairs: a mean over passes that together last `SHORTEST`."""
    passes, start = 0, time.perf_counter()
    while (taken := time.perf_counter() - start) < SHORTEST or not passes:
        compute(*pairs)
        passes += 1
    return taken / passes


def _result(name: str, pairs: Pairs, seconds: dict[str, list[float]], arms: dict[str, Arm]) -> dict[str, Any]:
    median = {arm: statistics.median(each) for arm, each in seconds.items()}
    words = [len(text.split()) for text in pairs[0]]
    return {
        "texts": name,
        "pairs": len(pairs[0]),
        "mean_words": float(np.mean(words)),
        "microseconds_per_pair": {arm: 1e6 * each / len(pairs[0]) for arm, each in median.items()},
        "fastest_and_slowest": {
            arm: [1e6 * pick(each) / len(pairs[0]) for pick in (min, max)] for arm, each in seconds.items()
        },
        "mean_cost": {arm: float(np.mean(arms[arm](*pairs))) for arm in ("editloop", "usual loop")},
        "times_as_fast_as_usual_loop": median["usual loop"] / median["editloop"],
        "times_as_long_as_bare_rapidfuzz": median["editloop"] / median["bare RapidFuzz"],
    }


def _together(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the result for all texts together, weighted by their pairs."""
    pairs = sum(each["pairs"] for each in results)

    def pooled(of: str) -> dict[str, float]:
        return {arm: sum(each["pairs"] * each[of][arm] for each in results) / pairs for arm in results[0][of]}

    micros = pooled("microseconds_per_pair")
    return {
        "texts": "all together",
        "pairs": pairs,
        "mean_words": sum(each["pairs"] * each["mean_words"] for each in results) / pairs,
        "microseconds_per_pair": micros,
        "mean_cost": pooled("mean_cost"),
        "times_as_fast_as_usual_loop": micros["usual loop"] / micros["editloop"],
        "times_as_long_as_bare_rapidfuzz": micros["editloop"] / micros["bare RapidFuzz"],
    }


def _markdown(results: list[dict[str, Any]], real: bool, repeats: int) -> str:
    lines = [
        f"{'Edits that people made' if real else 'Synthetic edits (there is no folder of real ones)'}. "
        f"From raw texts to one cost per pair, tokenisation included, one core; medians of {repeats} turns. "
        f"Goals: at least {GOALS['usual loop']:.0f} times as fast as the usual loop (NLTK word tokens, "
        f"editdistance), at most {GOALS['bare RapidFuzz']} times bare RapidFuzz's time on the same words. "
        f"`editloop` is {PAPER_COST}; the last column is of the default cost, {DEFAULT_COST}, which should "
        "take at most 10 times as long as bare RapidFuzz.",
        "",
        "| texts | pairs | words | editloop, µs | usual loop, µs | bare, µs | usual / ours | ours / bare "
        "| default / bare |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for each in results:
        micros = each["microseconds_per_pair"]
        lines.append(
            f"| {each['texts']} | {each['pairs']:,} | {each['mean_words']:.0f} | {micros['editloop']:.1f} "
            f"| {micros['usual loop']:.0f} | {micros['bare RapidFuzz']:.1f} "
            f"| {each['times_as_fast_as_usual_loop']:.0f}× | {each['times_as_long_as_bare_rapidfuzz']:.2f}× "
            f"| {micros['default'] / micros['bare RapidFuzz']:.1f}× |"
        )
    return "\n".join(lines)
