"""What RL (Eq. 6) chooses among in each context, and what the cost model says of it.

The edit, the response, and responses drawn once from the reference stand in one tree. One forward of the
reference gives their log π_ref and the features of the cost model; the costs of the logged responses are
what it learns from (Eq. 5), and all alternatives get f̂ and u. Drawn texts are cached by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate.utils import broadcast_object_list, gather_object
from numpy.typing import NDArray

from editloop.edits.writing import atomic
from editloop.errors import EditLoopError
from editloop.offline.config import CostModelKind
from editloop.offline.cost_model import CostModel, Fidelity, fidelity, fit_cost_model
from editloop.offline.examples import Alternatives, Example
from editloop.offline.reference import Scored, cache_folder
from editloop.policy import ContextTree, Policy, context_columns, processes

__all__ = ["Priced", "alternative_trees", "draw_responses", "price_alternatives"]

HEADS = 20
"""Bootstrap regressions."""


@dataclass(frozen=True)
class Priced:
    """Examples with their reference, their alternatives and what these are thought to cost.

    Attributes:
        train: To train on.
        held: To validate on.
        model: The cost model.
        report: Its fidelity on the validation part, beside baselines that know the length or nothing.
    """

    train: tuple[Example, ...]
    held: tuple[Example, ...]
    model: CostModel
    report: dict[str, Any]


def draw_responses(
    policy: Policy,
    examples: Sequence[Example],
    count: int,
    *,
    seed: int,
    max_new_tokens: int,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[str, ...]]:
    """`count` responses of the reference for each example, at temperature 1.

    Args:
        policy: The base.
        examples: Whose contexts are answered.
        count: How many for each.
        seed: Of the draws.
        max_new_tokens: Longest response.
        cache: Folder, by default `cache_folder()`.
        progress: Called with the number of this process's contexts done.
    """
    if count == 0 or not examples:
        return [()] * len(examples)
    state = processes(policy.device)
    about = [policy.fingerprint, str(policy.model.dtype), count, seed, max_new_tokens, state.num_processes]
    key = hashlib.sha256(json.dumps([about, [e.tree.context for e in examples]]).encode()).hexdigest()[:32]
    file = (cache or cache_folder()) / "drawn" / f"{key}.json"
    found = broadcast_object_list([_read(file, len(examples), count) if state.is_main_process else None])[0]
    if found is None:
        contexts = [e.context for e in examples[state.process_index :: state.num_processes]]
        rounds = []
        with policy.reference():
            for k in range(count):
                own = 1_000_003 * (1_009 * seed + k) + state.process_index
                samples = policy.sample(contexts, seed=own, max_new_tokens=max_new_tokens)
                rounds.append([sample.text for sample in samples])
                if progress is not None:
                    progress(len(contexts) * (k + 1) // count)
        found = [list(texts) for texts in zip(*rounds, strict=True)]
        if state.num_processes > 1:
            gathered: list[list[str]] = [[] for _ in examples]
            for rank, part in enumerate(gather_object([found])):
                gathered[rank :: state.num_processes] = part
            found = gathered
        if state.is_main_process:
            with suppress(OSError, EditLoopError), atomic(file) as unfinished:
                unfinished.write_text(json.dumps(found), encoding="utf-8")
    return [tuple(texts) for texts in found]


def _read(file: Path, rows: int, count: int) -> list[list[str]] | None:
    try:
        found: list[list[str]] = json.loads(file.read_text(encoding="utf-8"))
        fits = len(found) == rows and all(len(texts) == count for texts in found)
    except (OSError, ValueError, TypeError):
        return None
    return found if fits else None


def alternative_trees(
    policy: Policy, examples: Sequence[Example], drawn: Sequence[Sequence[str]]
) -> list[ContextTree]:
    """For each example the tree of its edit, its response and what was drawn, no continuation twice."""
    trees = []
    for example, texts in zip(examples, drawn, strict=True):
        room = policy.encoder.max_length - len(example.tree.context)
        new = [policy.encoder.continuation(text)[:room] for text in texts]
        continuations = dict.fromkeys((*example.tree.continuations, *new))
        trees.append(ContextTree(example.tree.context, tuple(continuations)))
    return trees


def price_alternatives(
    train: Sequence[Example],
    held: Sequence[Example],
    trees: Sequence[ContextTree],
    scored: Sequence[Scored],
    costs: NDArray[np.float64],
    *,
    kind: CostModelKind = "ridge",
    tuned: Sequence[NDArray[np.float32]] = (),
    seed: int = 0,
) -> Priced:
    """Fits the cost model on the train part's responses, and prices all alternatives.

    Args:
        train: Examples to learn from [n].
        held: Examples to validate on [m].
        trees: Of the alternatives, those of `train` before those of `held` [n + m].
        scored: Of these trees, from `feature_pass` [n + m].
        costs: What the responses cost, Δ(y, y') [n + m].
        kind: Of the cost model; `auto` takes the one with the least square error on `held`.
        tuned: Tuned features of the trees, for the kinds that need them [n + m].
        seed: Of the cost model.
    """
    examples, n = (*train, *held), len(train)
    kinds: tuple[CostModelKind, ...] = ("ridge", "bootstrap", "tuned") if kind == "auto" else (kind,)
    tried: dict[str, tuple[CostModel, Sequence[NDArray[np.float32]], Fidelity]] = {}
    errors = {}
    for each in kinds:
        tables = tuned if each == "tuned" else [one.features for one in scored]
        # The response is continuation 1, or the edit itself where it was left as it is.
        features = np.stack([table[int(e.is_pair)] for e, table in zip(examples, tables, strict=True)])
        model = fit_cost_model(
            features[:n],
            costs[:n],
            context=context_columns(features.shape[1]),
            heads=HEADS if each == "bootstrap" else 0,
            seed=seed,
        )
        mean, spread = model.predict(features[n:])
        tried[each] = model, tables, fidelity(mean, spread, costs[n:])
        errors[each] = float(np.mean((mean - costs[n:]) ** 2))
    chosen = min(errors, key=lambda each: errors[each])
    model, tables, found = tried[chosen]
    unit = float(costs[:n].mean()) or 1.0
    priced = []
    for example, tree, one, table in zip(examples, trees, scored, tables, strict=True):
        mean, spread = (figures / unit for figures in model.predict(table))
        alternatives = Alternatives(tree, one.log_probs, tuple(mean.tolist()), tuple(spread.tolist()))
        reference = one.log_probs[0], one.log_probs[1] if example.is_pair else None
        priced.append(replace(example, reference=reference, alternatives=alternatives))
    lengths = np.array([float(len(e.response.split())) for e in examples])
    report = {
        "kind": chosen,
        "settings": dict(model.settings),
        "noise": model.noise,
        "unit": unit,
        "model": asdict(found),
        "length": asdict(_baseline(np.stack([lengths, np.log1p(lengths)], axis=1), costs, n)),
        "mean": asdict(_baseline(np.empty((len(costs), 0)), costs, n)),
        "tried": {name: asdict(figures) for name, (_, _, figures) in tried.items()},
    }
    return Priced(tuple(priced[:n]), tuple(priced[n:]), model, report)


def _baseline(columns: NDArray[np.float64], costs: NDArray[np.float64], n: int) -> Any:
    """The fidelity of least squares on these columns and a constant; u is the error in training."""
    design = np.hstack([np.ones((len(costs), 1)), columns])
    weights = np.linalg.lstsq(design[:n], costs[:n], rcond=None)[0]
    prediction = design @ weights
    error = np.full(len(costs) - n, float((prediction[:n] - costs[:n]).std()))
    return fidelity(prediction[n:], error, costs[n:])
