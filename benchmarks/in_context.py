"""In-context policies on a real base: past edits, or preferences learned from them, in SmolLM2-135M's prompt.

Free emails of the lab, and the strong user who edits them by rules: other rules for each of four kinds of
emails. The base drafts the past edits, and what the policies draft for new contexts is edited by the same
user. Each policy has n past edits; those that a prompt gets are found, and the prompts are written, by the
code of the server. Whatever was drawn is kept, so an interrupted benchmark goes on where it stopped.

Beside them stand three controls, each with all past edits: the newest edits in place of the most similar;
the edits in one message in place of turns; and the user's rules in words, which no edit could say better.

The rules of that user make edits of one kind much alike. People's edits are not: so the same is measured on
translators' corrections, with the distance of a draft from what the translator made of another system's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks import WORK
from benchmarks.cells import EVALUATION
from benchmarks.real import DTYPE
from benchmarks.real_rows import Fold, mlqe
from editloop.edits import Context, as_context, get_cost
from editloop.edits.cost import DEFAULT_COST, PAPER_COST, charge_unfinished
from editloop.errors import MissingExtraError
from editloop.intervals import mean_interval
from editloop.io import write_json
from editloop.lab import free_texts, stream_log
from editloop.lab.drafts import KeptDrafts
from editloop.lab.folder import claim
from editloop.policy import Policy, load_base
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import markdown_table, mean_and_error, plus_minus, write_result
from editloop.serve.in_context.base import Messages, PastEdit, with_paragraph
from editloop.serve.in_context.past_edits import MOST_EDITS, nearest
from editloop.serve.in_context.preference import PREFERENCE
from editloop.serve.in_context.preferences import MOST_TOKENS, cleaned_preference, inference_request
from editloop.serve.in_context.retrieval import RETRIEVAL
from editloop.serve.in_context.similarity import SIMILARITIES, Similarity, shared_words
from editloop.users import User, get_user

__all__ = ["InContextSettings", "run"]

CHARACTERS = 6000
"""As the server's `--in-context-characters`."""

MOST_TRANSLATED = 160
"""The most tokens of a translation."""

Figures = dict[str, Any]


@dataclass(frozen=True)
class InContextSettings:
    """The size of the benchmark; tests make it small.

    Attributes:
        base: The base, as `load_base` takes it.
        dtype: The precision of its weights.
        seeds: The seeds.
        contexts: New contexts of a seed.
        past: Numbers of past edits.
        examples: Numbers of retrieved edits in a prompt.
        pairs: Pairs of languages.
        translations: New sentences of each pair.
        corrections: Numbers of translators' corrections.
    """

    base: str = "smollm2"
    dtype: str = DTYPE
    seeds: tuple[int, ...] = (1, 2, 3)
    contexts: int = 32
    past: tuple[int, ...] = (2, 8, 32)
    examples: tuple[int, ...] = (1, 2, 4)
    pairs: tuple[str, ...] = ("ro-en",)
    translations: int = 64
    corrections: tuple[int, ...] = (32, MOST_EDITS)


class Cell(NamedTuple):
    """A policy with some past edits.

    Attributes:
        policy: Its name.
        past: How many past edits it has.
        write: Writes the prompt of a context.
    """

    policy: str
    past: int
    write: Callable[[str], Context]


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: Path = WORK / "in-context",
    settings: InContextSettings | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `in-context.json` and `in-context.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where drafts are kept.
        settings: The size of the benchmark.
        callback: Receives progress.
    """
    callback, settings = callback or WarningCallback(), settings or InContextSettings()
    base = load_base(settings.base, dtype=settings.dtype)
    folds = {pair: mlqe(pair, data) for pair in settings.pairs}
    found = {seed: _seed(seed, base, work / f"seed-{seed}", settings, callback) for seed in settings.seeds}
    translated = {
        pair: _translations(fold, base, work / pair, settings, callback) for pair, fold in folds.items()
    }
    measured = _measured(found, settings) | {"translations": translated}
    write_result("in-context", measured, _page(measured), out)
    return measured


def _seed(
    seed: int, base: Policy, folder: Path, settings: InContextSettings, callback: ProgressCallback
) -> Figures:
    """The costs of a seed's drafts by policy and number of past edits, and what the prompts take."""
    world = free_texts("email")
    claim(folder, "seed", {"base": base.fingerprint, "world": world.fingerprint, "dtype": settings.dtype})
    writer = KeptDrafts(base, folder / "drafts.jsonl", base.fingerprint)
    log = stream_log(world, get_user("strong", world, seed=seed), max(settings.past), seed, policy=writer)
    rows = [(str(row.context), row.response, str(row.edit)) for row in log]
    past = [
        PastEdit(str(i), 1, float(i), asked, edit, draft != edit)
        for i, (asked, draft, edit) in enumerate(rows)
    ]
    learned, learning = _preferences(base, past, [draft for _, draft, _ in rows], folder / "learned.json")
    contexts = list(islice(world.contexts(seed, stream="online"), settings.contexts))
    editor = get_user("strong", world, seed=EVALUATION + seed)
    cells = {}
    for cell in _cells(past, learned, world.describe, settings):
        prompts = [cell.write(context) for context in contexts]
        samples = writer.sample(
            prompts,
            seed=seed,
            max_new_tokens=world.max_new_tokens,
            progress=counter(callback, f"seed {seed}, {cell.policy}, {cell.past} edits", len(contexts)),
        )
        texts = [sample.text for sample in samples]
        cells[f"{cell.policy}/{cell.past}"] = {
            "costs": _costs(contexts, texts, editor),
            "added_tokens": _added(base, prompts, contexts),
            "unfinished": float(np.mean([not sample.finished for sample in samples])),
        }
    same = {}
    for name in ("words", "meaning"):
        with suppress(MissingExtraError):
            same[name] = _same_kind(contexts, past, SIMILARITIES.get(name), world.kind)
    examples = {"preferences": [each for each in learned.values() if each][:3]}
    return {"cells": cells, "learning_tokens": learning, "same_kind": same, **examples}


def _translations(
    fold: Fold, base: Policy, folder: Path, settings: InContextSettings, callback: ProgressCallback
) -> list[Figures]:
    """What drafts of translations cost, by the distance from the translator's text, and what is saved."""
    claim(folder, "translations", {"base": base.fingerprint, "dtype": settings.dtype})
    writer = KeptDrafts(base, folder / "drafts.jsonl", base.fingerprint)
    past = [
        PastEdit(str(row.id), 1, float(i), str(row.context), str(row.edit), row.edit != row.response)
        for i, row in enumerate(fold.train[: max(settings.corrections)])
    ]
    rows = fold.test[: settings.translations]
    contexts, edits = [str(row.context) for row in rows], [str(row.edit) for row in rows]
    cells = [Cell("base", 0, lambda asked: asked)]
    cells += [
        Cell(f"retrieval-{k}", n, _retrieval(past[:n], k))
        for n in settings.corrections
        for k in settings.examples
    ]
    found, cost, base_costs = [], get_cost(DEFAULT_COST), np.zeros(len(rows))
    for cell in cells:
        prompts = [cell.write(context) for context in contexts]
        progress = counter(callback, f"{folder.name}, {cell.policy}, {cell.past} edits", len(contexts))
        samples = writer.sample(prompts, seed=0, max_new_tokens=MOST_TRANSLATED, progress=progress)
        measured = np.asarray(cost([each.text for each in samples], edits), np.float64)
        costs = charge_unfinished(cost, measured, [each.finished for each in samples], edits)
        base_costs = costs if cell.policy == "base" else base_costs
        found.append(
            {
                "policy": cell.policy,
                "past": cell.past,
                DEFAULT_COST: _saved(base_costs, costs),
                "added_tokens": _added(base, prompts, contexts),
                "unfinished": float(np.mean([not each.finished for each in samples])),
            }
        )
    return found


def _cells(
    past: Sequence[PastEdit],
    learned: Mapping[str, str],
    describe: Callable[[str], str],
    settings: InContextSettings,
) -> list[Cell]:
    """The policies, each with each number of past edits."""

    def preference(n: int) -> Callable[[str], Context]:
        def write(asked: str) -> Context:
            wanted = [edit for edit in past[:n] if PREFERENCE.wants(edit)]
            found = nearest(asked, wanted, PREFERENCE.examples, shared_words, characters=CHARACTERS)
            texts = list(dict.fromkeys(filter(None, (learned[edit.response_id] for edit in found))))
            return _prompt(asked, lambda messages: PREFERENCE.write(messages, texts)) if texts else asked

        return write

    def one_message(n: int, k: int) -> Callable[[str], Context]:
        def write(asked: str) -> Context:
            found = nearest(asked, past[:n], k, shared_words, characters=CHARACTERS)
            shown = [f"Request:\n{edit.asked}\n\nText:\n{edit.text}" for edit in reversed(found)]
            texts = "\n\n".join(["These are texts of mine from earlier requests:", *shown])
            return _prompt(asked, lambda messages: with_paragraph(messages, texts))

        return write

    most, k = max(settings.past), max(settings.examples)
    return [
        Cell("base", 0, lambda asked: asked),
        *(
            Cell(f"retrieval-{k}", n, _retrieval(past[:n], k))
            for n in settings.past
            for k in settings.examples
            if k <= n
        ),
        *(Cell(f"preference-{PREFERENCE.examples}", n, preference(n)) for n in settings.past),
        Cell(f"the {k} newest edits", most, _retrieval(past[:most], k, _none)),
        Cell(f"{k} edits in one message", most, one_message(most, k)),
        Cell(
            "the user's rules in words",
            most,
            lambda asked: _prompt(asked, lambda messages: PREFERENCE.write(messages, [describe(asked)])),
        ),
    ]


def _retrieval(
    past: Sequence[PastEdit], k: int, similarity: Similarity = shared_words
) -> Callable[[str], Context]:
    def write(asked: str) -> Context:
        found = nearest(asked, past, k, similarity, characters=CHARACTERS)
        return _prompt(asked, lambda messages: RETRIEVAL.write(messages, found))

    return write


def _none(asked: str, past: Sequence[str]) -> NDArray[np.float64]:
    """A similarity by which all past edits are alike, so that the newest are taken."""
    return np.zeros(len(past))


def _prompt(asked: str, write: Callable[[Messages], list[dict[str, Any]]]) -> Context:
    return as_context(write([{"role": "user", "content": asked}]))


def _preferences(
    base: Policy, past: Sequence[PastEdit], drafts: Sequence[str], kept: Path
) -> tuple[dict[str, str], float]:
    """What the base says of each edit that changed something, and the mean tokens of question and answer."""
    changed = [(edit, draft) for edit, draft in zip(past, drafts, strict=True) if PREFERENCE.wants(edit)]
    questions = [as_context(inference_request(edit, draft)["messages"]) for edit, draft in changed]
    if not kept.is_file():
        # At temperature 0, as the server asks.
        samples = base.sample(questions, seed=0, temperature=0, max_new_tokens=MOST_TOKENS)
        answers = [{"text": cleaned_preference(each.text), "tokens": each.tokens} for each in samples]
        write_json(kept, answers)
    found = json.loads(kept.read_text(encoding="utf-8"))
    tokens = [
        len(base.encoder.prompt(each)) + row["tokens"] for each, row in zip(questions, found, strict=True)
    ]
    texts = {edit.response_id: row["text"] for (edit, _), row in zip(changed, found, strict=True)}
    return texts, float(np.mean(tokens)) if tokens else 0.0


def _added(base: Policy, prompts: Sequence[Context], contexts: Sequence[Context]) -> float:
    """By how many tokens prompts are longer than what was asked, in the mean."""
    pairs = zip(prompts, contexts, strict=True)
    return float(np.mean([len(base.encoder.prompt(p)) - len(base.encoder.prompt(c)) for p, c in pairs]))


def _saved(base: NDArray[np.float64], mine: NDArray[np.float64]) -> Figures:
    """The mean cost, and what is saved against the base, context by context."""
    mean, error = mean_and_error(base - mine)
    return {
        "cost": float(mine.mean()),
        "se": mean_and_error(mine)[1],
        "saved": mean,
        "saved_interval": mean_interval(mean, error or 0.0, len(mine)),
    }


def _costs(contexts: Sequence[str], texts: Sequence[str], editor: User) -> dict[str, list[float]]:
    """What the user's edits of drafts cost, by cost."""
    pairs = enumerate(zip(contexts, texts, strict=True))
    edits = [editor.edit(context, text, round=t) for t, (context, text) in pairs]
    return {
        name: np.asarray(get_cost(name)(texts, edits), np.float64).tolist()
        for name in (DEFAULT_COST, PAPER_COST)
    }


def _same_kind(
    contexts: Sequence[str], past: Sequence[PastEdit], similarity: Similarity, kind: Callable[[str], str]
) -> float:
    """The share of contexts whose most similar past edit is of their kind, so that its rules are wanted."""
    found = [nearest(asked, past, 1, similarity, characters=CHARACTERS) for asked in contexts]
    return float(np.mean([kind(each[0].asked) == kind(c) for each, c in zip(found, contexts, strict=True)]))


def _measured(found: Mapping[int, Figures], settings: InContextSettings) -> dict[str, Any]:
    """The figures over all seeds; differences are taken context by context."""
    seeds = list(found)
    cells = []
    for name in found[seeds[0]]["cells"]:
        policy, _, past = name.rpartition("/")
        row: Figures = {"policy": policy, "past": int(past)}
        for cost in (DEFAULT_COST, PAPER_COST):
            mine = np.concatenate([found[s]["cells"][name]["costs"][cost] for s in seeds])
            base = np.concatenate([found[s]["cells"]["base/0"]["costs"][cost] for s in seeds])
            by_seed = [float(np.mean(found[s]["cells"][name]["costs"][cost])) for s in seeds]
            row[cost] = _saved(base, mine) | {"by_seed": by_seed}
        for figure in ("added_tokens", "unfinished"):
            row[figure] = float(np.mean([found[s]["cells"][name][figure] for s in seeds]))
        cells.append(row)
    similarities = list(found[seeds[0]]["same_kind"])
    return {
        "base": settings.base,
        "dtype": settings.dtype,
        "seeds": seeds,
        "contexts": settings.contexts,
        "cells": cells,
        "learning_tokens": float(np.mean([found[s]["learning_tokens"] for s in seeds])),
        "same_kind": {
            name: float(np.mean([found[s]["same_kind"][name] for s in seeds])) for name in similarities
        },
        "preferences": found[seeds[0]]["preferences"],
    }


def _page(measured: Mapping[str, Any]) -> str:
    parts = [
        f"{measured['base']} in {measured['dtype']}, free emails, the strong user; "
        f"{measured['contexts']} new contexts for each of {len(measured['seeds'])} seeds. The base drafted "
        "the past edits. Mean cost of a draft ± standard error over contexts, lower is better; what is saved "
        "against the base is taken context by context, with its 95% interval. Tokens are those that a prompt "
        "has more than what was asked."
    ]
    for cost in (DEFAULT_COST, PAPER_COST):
        parts.append(f"## {cost}\n\n" + _table(measured["cells"], cost))
    shares = ", ".join(f"{share:.0%} by {name}" for name, share in measured["same_kind"].items())
    parts.append(
        f"- The most similar of all past edits is of the same kind of email: {shares}.\n"
        f"- A preference takes {measured['learning_tokens']:.0f} tokens, question and answer, once for each "
        "edit."
    )
    parts.append("What the base says of the first edits:\n\n" + _quoted(measured["preferences"]))
    for pair, cells in measured["translations"].items():
        parts.append(f"## Translations, {pair}\n\n" + _table(cells, DEFAULT_COST))
    return "\n\n".join(parts)


def _table(cells: Sequence[Mapping[str, Any]], cost: str) -> str:
    rows = []
    for cell in cells:
        each = cell[cost]
        interval = each["saved_interval"]
        shown = "" if interval is None else " [{:.3f}, {:.3f}]".format(*interval)
        rows.append(
            [
                cell["policy"],
                str(cell["past"]),
                plus_minus(each["cost"], each["se"]),
                "" if cell["policy"] == "base" else f"{each['saved']:.3f}{shown}",
                f"{cell['added_tokens']:.0f}",
                f"{cell['unfinished']:.0%}",
            ]
        )
    headings = ["policy", "past edits", "cost", "saved", "tokens added", "cut drafts"]
    return markdown_table(headings, rows)


def _quoted(texts: Sequence[str]) -> str:
    return "\n>\n".join(f"> {text}" for text in texts) or "> (nothing)"
