"""Evaluate a run's policies on a log that they were not trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, fields
from os import PathLike
from typing import Any

import numpy as np

from editloop.edits import Log, Record, context_text, get_cost, row_hashes
from editloop.edits.cost import DEFAULT_COST
from editloop.errors import EmptyViewError, RunError
from editloop.offline.alarms import check_samples
from editloop.offline.cost_model.saved import cost_fidelity, reads_base
from editloop.offline.draft_weights import weigh_drafts
from editloop.offline.examples import Example, make_examples
from editloop.offline.outcomes import read_outcomes
from editloop.offline.recorded import RecordedPolicy
from editloop.offline.reference import Scored, feature_pass, reference_pass, with_reference
from editloop.offline.scoring import DEFAULT_BETA, log_probs_of, scores_of
from editloop.offline.wins import Judge, cost_wins, win_rate
from editloop.policy import MixedPolicy, Policy, RunFolder, Sample, processes
from editloop.policy.manifest import ConfigRecord, Manifest
from editloop.policy.mixed import mixed_log_probs
from editloop.progress import ProgressCallback, WarningCallback, counter

__all__ = ["evaluate"]


def evaluate(
    run: RunFolder | str | PathLike[str] | Policy,
    log: Log | Sequence[Record],
    *,
    base: Policy | None = None,
    samples: int = 0,
    seed: int = 0,
    drop_seen: bool = False,
    outcome: str | None = None,
    judge: Judge | None = None,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Evaluate the base and every policy of a run, or one policy, on a held-out log.

    Long because it follows the evaluation from the log to the figures in one place.

    Args:
        run: A run folder or its path; or a policy, whose figures are returned under the name `policy`.
        log: Rows that the run was not trained on. The number of rows that it was trained on is reported, as a
            warning if there are any.
        base: The run's base, if it is loaded already.
        samples: Number of responses to sample from each policy, to compute their cost against the logged
            edits.
        seed: The seed of the sampling.
        drop_seen: Whether to leave out the rows that the run was trained or validated on.
        outcome: A key of the records' metadata, such as a CI's verdict on each draft; what it says of the
            drafts, and how well each policy tells good ones from others, is among the figures (`Outcomes`).
        judge: Says of each policy's sampled response and the base's which is better.
        callback: Receives warnings and progress. Without one, warnings are Python's (`EditLoopWarning`).

    Returns:
        `rows`, `pairs` and `counts` of the log; `seen`, the number of rows that the run was trained or
        validated on (None if it is not known); and `policies`, for each name the figures of `Scores.figures`,
        with `sampled` if responses were sampled, and `off_policy`, what its own drafts would cost, if the log
        has log-probabilities of its drafts. If the run has a mixture, `mixture` has its weights; if it
        has a cost model, `cost_model` is how well it predicts. If responses were sampled, `wins` of a policy
        is how often its response wins over the base's for the same context, by the cost and by the judge.

    Raises:
        EmptyViewError: No row was observed, none could be encoded, all were left out as seen, or none has the
            outcome.
        RunError: The run is unusable, or it is not known which rows it has seen and they should be left out.
    """
    callback = callback or WarningCallback()
    one = run if isinstance(run, Policy) else None
    folder = None if isinstance(run, Policy) else RunFolder(run)
    manifest = folder.manifest() if folder else None
    config = manifest.config if manifest else ConfigRecord(cost=DEFAULT_COST)
    observed, seen, dropped = _unseen(folder, [each for each in log if each.is_observed], drop_seen, callback)
    base = one or base or (folder.load_base() if folder else None)
    assert base is not None
    # Rows without feedback make no examples. They are passed on to be counted by their status.
    unobserved = [each for each in log if not each.is_observed]
    data = make_examples((*observed, *unobserved), base.encoder)
    counts = data.counts + Counter({"seen in training": dropped})
    if not data.examples:
        do = "give rows that were not seen in training" if dropped else "give edited or accepted rows"
        raise EmptyViewError("no row to evaluate on", seen=dict(counts), do=do)
    for reason, count in counts.items():
        callback.message(f"  {count} rows: {reason}")
    rows, world = len(data.examples), processes(base.device).num_processes
    # One pass of the base is the reference, the evaluation of the base itself, and what the cost model sees.
    progress = counter(callback, "reference", rows, world)
    scored: Sequence[Scored] | None = None
    with _referred(base) as plain:
        if folder and reads_base(folder):
            scored, _ = feature_pass(plain, [e.tree for e in data.examples], progress=progress)
            held = with_reference(data.examples, scored)
        else:
            held, _ = reference_pass(plain, data.examples, progress=progress)
    cost = get_cost(config.cost, tokenize=base.encoder.tokenize)
    outcomes = read_outcomes(outcome, observed, held) if outcome else None
    compared = _Compared(judge, callback)
    policies: dict[str, Any] = {}
    known = _Known()
    for name, borrowed, log_probs in _arms(folder, base, held, known):
        with borrowed as policy:
            if log_probs is None:
                log_probs = log_probs_of(policy, held, progress=counter(callback, name, rows, world))
            known.log_probs[name] = log_probs
            scores = scores_of(held, log_probs)
            figures: dict[str, Any] = dict(scores.figures(_beta(manifest, name)))
            # A policy that diverged has no distribution to sample from.
            shown = held[:samples] if np.isfinite(scores.chosen).all() else []
            sampled = check_samples(
                RecordedPolicy(policy, known.samples.setdefault(name, {})),
                shown,
                cost,
                seed=seed,
                max_new_tokens=config.max_new_tokens,
                progress=counter(callback, f"{name}, samples", len(shown)),
            )
            weighed = weigh_drafts(held, log_probs, cost, end=base.encoder.end)
            figures |= {"off_policy": weighed.to_json()} if weighed else {}
            if outcomes is not None:
                figures["outcome"] = outcomes.discrimination(log_probs)
            if sampled is not None:
                drawn = [each for _, each in sorted(known.samples[name].items())]
                figures |= {
                    "sampled": sampled.to_json(),
                    **compared.with_base(name, shown, drawn, sampled.costs),
                }
            policies[name] = figures
    mixture = manifest.mixture if manifest else None
    found = {
        "rows": len(held),
        "pairs": sum(e.is_pair for e in held),
        "counts": dict(counts),
        "seen": seen,
        "cost": cost.name,
        "policies": policies,
    }
    if outcomes is not None:
        found["outcome"] = outcomes.summary(cost([e.response for e in held], [e.edit for e in held]))
    if mixture:
        found["mixture"] = mixture.model_dump(include={"by", "weights", "errors"})
    if folder and folder.cost_model.is_dir():
        found["cost_model"] = asdict(cost_fidelity(folder, base, held, cost, scored=scored))
    return found


def _unseen(
    run: RunFolder | None, rows: Sequence[Record], drop: bool, callback: ProgressCallback
) -> tuple[Sequence[Record], int | None, int]:
    """The rows to evaluate on, how many of them the run has seen if known, and how many are dropped.

    Raises:
        RunError: Rows should be dropped, and it is not known which were seen.
    """
    known = run.seen(row_hashes(rows)) if run else None
    if known is None:
        if drop:
            raise RunError(
                "it is not known which rows were seen in training",
                seen=str(run.path) if run else "a policy",
                do="give a run folder made by this version",
            )
        return rows, None, 0
    count = int(known.sum())
    if drop:
        return [row for row, old in zip(rows, known, strict=True) if not old], 0, count
    if count:
        callback.warn(
            f"{count} of {len(rows)} rows were seen in training, so their figures are not held out "
            "(leave these rows out with --drop-seen, in Python with drop_seen=True)"
        )
    else:
        callback.message(f"none of {len(rows)} rows was seen in training")
    return rows, count, 0


class _Compared:
    """Which of a policy's responses win over the base's, which come first."""

    def __init__(self, judge: Judge | None, callback: ProgressCallback) -> None:
        self.judge, self.callback = judge, callback
        self.texts: list[str] = []
        self.costs = np.zeros(0)

    def with_base(
        self, name: str, shown: Sequence[Example], samples: Sequence[Sample], costs: Sequence[float]
    ) -> dict[str, Any]:
        """The win rates of a policy, under the key `wins`; nothing for the base."""
        texts, incurred = [sample.text for sample in samples], np.array(costs, np.float64)
        if name == "base":
            self.texts, self.costs = texts, incurred
        if name == "base" or len(self.costs) != len(incurred):
            return {}
        found = {"cost": win_rate(cost_wins(incurred, self.costs))}
        if self.judge is not None:
            contexts = [context_text(example.context) for example in shown]
            verdicts, reasons = self.judge.wins_many(contexts, texts, self.texts)
            if reasons:
                self.callback.warn(
                    f"{name}: {len(reasons)} of {len(texts)} pairs without a verdict: {reasons[0]}"
                )
            found["judge"] = win_rate(verdicts)
        return {"wins": found}


@dataclass
class _Known:
    """What has been computed of the policies so far: what is made of them is not computed again.

    Attributes:
        log_probs: For each policy the log-probabilities of the continuations of each example's tree.
        samples: For each policy the responses that were sampled, by their place.
    """

    log_probs: dict[str, Sequence[Sequence[float]]] = field(default_factory=dict)
    samples: dict[str, dict[tuple[int, ...], Sample]] = field(default_factory=dict)


def _arms(
    run: RunFolder | None, base: Policy, held: Sequence[Example], known: _Known
) -> Iterator[tuple[str, AbstractContextManager[Policy], Sequence[Sequence[float]] | None]]:
    """Yield each policy to evaluate: its name, a context in which it is loaded, and its log-probabilities.

    The log-probabilities are None where no pass over the examples has given them yet.
    """
    reference = [each.completions.reference or () for each in held]
    if run is None:
        if base.has_reference:
            yield "base", _referred(base), reference
        yield "policy", nullcontext(base), None if base.has_reference else reference
        return
    yield "base", nullcontext(base), reference
    manifest = run.manifest()
    for name in manifest.policies:
        yield name, run.policy(name, base), None
    if manifest.mixture:
        weights = manifest.mixture.weights

        # In each place a mixture gives the response that one of its policies has given there.
        def load(name: str) -> AbstractContextManager[Policy]:
            kept = known.samples.get(name)
            return nullcontext(RecordedPolicy(base, kept)) if kept else run.policy(name, base)

        yield (
            "mixture",
            nullcontext(MixedPolicy(base, weights, load)),
            mixed_log_probs(weights, known.log_probs),
        )


@contextmanager
def _referred(policy: Policy) -> Iterator[Policy]:
    """A context in which the base that a policy's adapter is attached to is a policy of its own."""
    # A `MixedPolicy` loads and scores its parts even in this context. A plain `Policy` of the same model
    # scores and samples with the base.
    with policy.reference():
        yield Policy(**{each.name: getattr(policy, each.name) for each in fields(Policy)})


def _beta(manifest: Manifest | None, name: str) -> float:
    """The β of the reported preference loss of a policy: its own, if it was trained with one."""
    policy = manifest.policies.get(name) if manifest else None
    return float(policy.best.hyperparameters.get("beta", DEFAULT_BETA)) if policy else DEFAULT_BETA
