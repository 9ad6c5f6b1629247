"""What RL (Eq. 6) chooses among in each context, and what the cost model says of it.

The edit, the response, and responses drawn once from the reference stand in one tree. One forward of the
reference gives their log π_ref and the features of the cost model; the costs of the logged responses are
what it learns from (Eq. 5), and all alternatives get f̂ and u. Drawn texts are cached by content.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from editloop.errors import EditLoopError
from editloop.io import write_text
from editloop.offline.config import CostModelKind
from editloop.offline.cost_model import CostModel, Fidelity, fidelity, fit_cost_model
from editloop.offline.examples import Alternatives, Example
from editloop.offline.reference import Scored, cache_folder, on_all_processes
from editloop.policy import ContextTree, Policy, context_columns, processes

__all__ = [
    "Draw",
    "Priced",
    "alternative_trees",
    "draw_responses",
    "price_alternatives",
    "tuning_rows",
]

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


DRAWN_BY = "inversion"
"""How `policy.sample` draws; another way draws others from the same seed."""


class Draw(NamedTuple):
    """A response of the reference.

    Attributes:
        text: Without repetition loops.
        finished: Whether the reference ended its turn here; if not, the rest is not known.
    """

    text: str
    finished: bool


def draw_responses(
    policy: Policy,
    examples: Sequence[Example],
    count: int,
    *,
    seed: int,
    max_new_tokens: int,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> list[tuple[Draw, ...]]:
    """`count` responses of the reference for each example, at temperature 1.

    Other numbers of processes draw others.

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
    state, encoder = processes(policy.device), policy.encoder
    about = [policy.fingerprint, str(policy.model.dtype), encoder.end, encoder.max_length]
    about += [count, seed, max_new_tokens, state.num_processes, DRAWN_BY]
    key = hashlib.sha256(json.dumps([about, [e.tree.context for e in examples]]).encode()).hexdigest()[:32]
    file = (cache or cache_folder()) / "drawn" / f"{key}.json"
    found = broadcast_object_list([_read(file, len(examples), count) if state.is_main_process else None])[0]
    if found is not None:
        return list(found)

    def draw(mine: Sequence[Example]) -> list[tuple[Draw, ...]]:
        rounds = []
        for k in range(count):
            own = 1_000_003 * (1_009 * seed + k) + state.process_index
            samples = policy.sample([e.context for e in mine], seed=own, max_new_tokens=max_new_tokens)
            rounds.append([Draw(each.text, each.finished and not each.trimmed) for each in samples])
            if progress is not None:
                progress(len(mine) * (k + 1) // count)
        return list(zip(*rounds, strict=True))

    with policy.reference():
        drawn = on_all_processes(policy.device, examples, draw)
    if state.is_main_process:
        with suppress(EditLoopError):
            write_text(file, json.dumps(drawn))
    return drawn


def _read(file: Path, rows: int, count: int) -> list[tuple[Draw, ...]] | None:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = [tuple(Draw(text, finished) for text, finished in draws) for draws in content]
    except (OSError, ValueError, TypeError):
        return None
    return found if len(found) == rows and all(len(draws) == count for draws in found) else None


def alternative_trees(
    policy: Policy, examples: Sequence[Example], drawn: Sequence[Sequence[Draw]]
) -> list[ContextTree]:
    """For each example the tree of its edit, its response and what was drawn, no continuation twice.

    A draw that was not finished has no end-of-turn token: no policy should learn to stop there.
    """
    trees = []
    for example, draws in zip(examples, drawn, strict=True):
        room = policy.encoder.max_length - len(example.tree.context)
        new = []
        for draw in draws:
            tokens = policy.encoder.continuation(draw.text)
            new.append((tokens if draw.finished else tokens[:-1])[:room])
        continuations = dict.fromkeys((*example.tree.continuations, *filter(None, new)))
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
        tuned: Features of the trees that were tuned on the first `tuning_rows(n)` of `train`, for the kinds
            that need them [n + m].
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
        own = slice(tuning_rows(n) if each == "tuned" else 0, n)  # not the rows that features were tuned on
        model = fit_cost_model(
            features[own],
            costs[own],
            context=context_columns(features.shape[1]),
            heads=HEADS if each == "bootstrap" else 0,
            seed=seed,
        )
        mean, spread = model.predict(features[n:])
        tried[each] = model, tables, fidelity(mean, spread, costs[n:])
        errors[each] = float(np.mean((mean - costs[n:]) ** 2))
    chosen = min(errors, key=lambda each: errors[each])
    model, tables, found = tried[chosen]
    unit = float(np.abs(costs[:n]).mean()) or 1.0
    priced = []
    prices = _predict(model, tables)
    for example, tree, one, (mean, spread) in zip(examples, trees, scored, prices, strict=True):
        known = tuple((mean / unit).tolist()), tuple((spread / unit).tolist())
        alternatives = Alternatives(tree, one.log_probs, *known)
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


def tuning_rows(rows: int) -> int:
    """How many of the train part's rows, the first, features are tuned on; the model gets the rest."""
    return rows // 2


def _predict(
    model: CostModel, tables: Sequence[NDArray[np.float32]]
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """f̂ and u of each table's rows; many tables at a time."""
    for start in range(0, len(tables), 500):
        part = tables[start : start + 500]
        ends = np.cumsum([len(table) for table in part])[:-1]
        yield from zip(*(np.split(each, ends) for each in model.predict(np.concatenate(part))), strict=True)


def _baseline(columns: NDArray[np.float64], costs: NDArray[np.float64], n: int) -> Any:
    """The fidelity of least squares on these columns and a constant; u is the error in training."""
    design = np.hstack([np.ones((len(costs), 1)), columns])
    weights = np.linalg.lstsq(design[:n], costs[:n], rcond=None)[0]
    prediction = design @ weights
    error = np.full(len(costs) - n, float((prediction[:n] - costs[:n]).std()))
    return fidelity(prediction[n:], error, costs[n:])
