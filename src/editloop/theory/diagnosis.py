"""What a log says about its users, in the terms that the theory turns on, and which method to expect to win.

Every figure is an estimate with an interval, or a reason why this log cannot tell and what to log so that it
can. The recommendation is a rule of a few lines (`advise`), validated in the embedded lab: docs/theory.md.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from editloop.edits import Cost, Record, get_cost
from editloop.errors import EmptyViewError
from editloop.listener import Listener, Silent, counter
from editloop.theory.world import Floats

if TYPE_CHECKING:
    from editloop.offline.examples import Example
    from editloop.policy import Policy

__all__ = ["Advice", "Diagnosis", "Estimate", "Finding", "advise", "diagnose"]

RESAMPLES = 1_000
MOST_READ = 1_000
"""Rows that are read by the base, at most, drawn at random."""

MOST_PAIRS = 20
"""Pairs of edits that are compared within one context, at most."""

LEAST = 10
"""Rows, or contexts, from which anything is estimated."""

FOLDS = 5

EDITED = (
    "share of responses that were changed; γ is at most that, as who writes what they like best leaves none "
    "as it was, unless it is what they want already"
)

DISTANCE = "levenshtein:word/none"
"""Between two edits of the same context, in words."""


class Estimate(NamedTuple):
    """A figure with its 95% interval.

    Attributes:
        value: It.
        low: Lower end.
        high: Upper end.
        n: Number of what it is estimated from.
    """

    value: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Finding:
    """One of the things that the theory turns on.

    Attributes:
        name: Of it.
        estimate: None where this log cannot tell.
        unit: Of the estimate.
        says: What it is, or why it is not known.
        needs: What to log, or to give, so that it can be told.
    """

    name: str
    estimate: Estimate | None
    unit: str
    says: str
    needs: str | None = None


@dataclass(frozen=True)
class Advice:
    """What to train.

    Attributes:
        method: `sft`, `dpo` or `early`.
        confidence: `low`, `medium` or `high`.
        reasons: For both.
    """

    method: str
    confidence: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Diagnosis:
    """What was found in a log.

    Attributes:
        rows: Records.
        answered: Those of them that were edited or accepted.
        edited: Those of these that were changed.
        cost: Name of the cost.
        findings: In the order in which they are told.
        advice: What to train.
    """

    rows: int
    answered: int
    edited: int
    cost: str
    findings: tuple[Finding, ...]
    advice: Advice

    def __getitem__(self, name: str) -> Finding:
        """A finding by its name."""
        return next(each for each in self.findings if each.name == name)

    def to_json(self) -> dict[str, Any]:
        """As what `json.dumps` takes."""
        findings = [asdict(each) | {"estimate": _json(each.estimate)} for each in self.findings]
        return asdict(self) | {"findings": findings}


def diagnose(
    records: Sequence[Record],
    *,
    base: Policy | None = None,
    cost: Cost | str | None = None,
    seed: int = 0,
    listener: Listener | None = None,
) -> Diagnosis:
    """Look at a log.

    Args:
        records: Its rows.
        base: Whose responses they are, or the base to be trained; None leaves out what needs one.
        cost: Δ, or its name; the default cost if not given.
        seed: Of resampling.
        listener: Hears of progress.

    Raises:
        EmptyViewError: No row was edited or accepted.
    """
    listener = listener or Silent()
    price = get_cost(cost) if isinstance(cost, str) else cost or get_cost()
    answered = [each for each in records if each.status in ("edited", "accepted")]
    if not answered:
        raise EmptyViewError("no row was edited or accepted", seen=f"{len(records)} rows")
    texts = [_final(each) for each in answered]
    changed = np.array([each.status == "edited" for each in answered])
    paid = price([each.response for each in answered], texts)
    rng = np.random.default_rng(seed)
    share = _mean(changed.astype(float), rng)
    words = get_cost(DISTANCE)
    findings = [
        Finding("edited", share, "share", EDITED),
        _size(paid[changed], rng, price.name),
        _chains(answered, texts, price, rng),
        _revisions(answered, texts, price, rng),
        _contraction(answered, texts, words, rng),
        _agreement(answered, texts, words, rng),
        *_with_base(answered, paid, base, rng, listener),
    ]
    by_name = {each.name: each.estimate for each in findings}
    return Diagnosis(
        len(records),
        len(answered),
        int(changed.sum()),
        price.name,
        tuple(findings),
        advise(int(changed.sum()), by_name),
    )


def advise(edited: int, found: dict[str, Estimate | None]) -> Advice:
    """The rule, on the number of edited rows and the estimates by name.

    A strong user teaches by example: SFT. A weak one does not, and DPO learns from them what it can, if the
    log is long enough for it. In between, and where little is known, the joint loss is never far behind.
    """
    ceiling, sources = strength(found)
    reasons = [f"{edited} edited rows; the user's strength is {sources}"]
    known = "re-edits" in sources or "same context" in sources
    if edited < FEW:
        reasons.append("too few rows for either loss alone to be trusted")
        return Advice("early", "low", tuple(reasons))
    if ceiling >= STRONG:
        reasons.append("a strong user's edits are samples of what they want: supervision has little bias")
        return Advice("sft", "medium" if known else "low", tuple(reasons))
    if ceiling <= WEAK and edited >= MANY:
        reasons.append("a weak user's edits are far from what they want, but better than what was there")
        return Advice("dpo", "medium" if known else "low", tuple(reasons))
    reasons.append("in between the joint loss is the safe choice")
    return Advice("early", "medium", tuple(reasons))


FEW, MANY = 150, 500
"""Edited rows below which nothing but the joint loss is advised, and from which DPO is."""

STRONG, WEAK = 0.97, 0.6
"""Ceilings of the user's strength from which SFT is advised, and to which DPO is."""


def strength(found: dict[str, Estimate | None]) -> tuple[float, str]:
    """The best guess at the user's strength, at least an upper bound, and where it is from."""
    for name, words in (("kept after an edit", "from re-edits"), ("contraction", "from the same context")):
        if (estimate := found.get(name)) is not None:
            return max(estimate.value, 0.0), f"about {estimate.value:.2f} {words}"
    edited, revised = found["edited"], found.get("kept in revisions")
    assert edited is not None
    if revised is not None and revised.high < edited.high:
        return revised.high, f"at most {revised.high:.2f}, by their revisions"
    return edited.high, f"at most {edited.high:.2f}, the share of responses that are edited"


def _size(paid: Floats, rng: np.random.Generator, name: str) -> Finding:
    if not len(paid):
        return Finding("edit size", None, name, "no row was edited", "rows with edits")
    return Finding("edit size", _mean(paid, rng), name, "mean cost of the rows that were edited")


def _chains(
    answered: Sequence[Record], texts: Sequence[str], price: Cost, rng: np.random.Generator
) -> Finding:
    """How much of what an edit costs is not to be paid again when its result is shown to the user again."""
    name, unit = "kept after an edit", "share"
    first = {
        (_key(each.context), each.user, text): i
        for i, (each, text) in enumerate(zip(answered, texts, strict=True))
    }
    before, after = [], []
    for i, record in enumerate(answered):
        source = first.get((_key(record.context), record.user, record.response))
        if source is not None and source != i and answered[source].response != texts[source]:
            before.append(price([answered[source].response], [texts[source]])[0])
            after.append(price([record.response], [texts[i]])[0])
    if len(before) < LEAST:
        says = f"{len(before)} responses were a user's own earlier edit, of the same context"
        return Finding(name, None, unit, says, "every revision of an edit, as a row with the text before it")
    left = _ratio(np.array(after), np.array(before), np.arange(len(before)), rng)
    says = "1 - the cost of editing one's own edit again / that of the edit: 1 for who is done at once"
    return Finding(name, _one_minus(left), unit, says)


def _revisions(
    answered: Sequence[Record], texts: Sequence[str], price: Cost, rng: np.random.Generator
) -> Finding:
    """How much of the first edit's cost the later revisions of it do not cost again."""
    name, unit = "kept in revisions", "share"
    edited = [i for i, each in enumerate(answered) if each.status == "edited"]
    first = [_first_revision(answered[i], texts[i]) for i in edited]
    revised = sum(one != texts[i] for i, one in zip(edited, first, strict=True))
    if revised < LEAST:
        says = f"{revised} edits were revised"
        return Finding(
            name, None, unit, says, 'earlier revisions, in metadata["revisions"], as a server does'
        )
    before = price([answered[i].response for i in edited], first)
    after = price(first, [texts[i] for i in edited])
    left = _ratio(np.asarray(after), np.asarray(before), np.arange(len(edited)), rng)
    says = "1 - the cost from a first edit to the last / that of the first; γ is at most that"
    return Finding(name, _one_minus(left), unit, says)


def _first_revision(record: Record, last: str) -> str:
    earlier = record.metadata.get("revisions")
    return str(earlier[0]) if isinstance(earlier, list) and earlier else last


def _contraction(
    answered: Sequence[Record], texts: Sequence[str], words: Cost, rng: np.random.Generator
) -> Finding:
    """How much nearer the edits of one context are to each other than the responses were."""
    name, unit = "contraction", "share"
    groups = _groups(answered, lambda each: (_key(each.context), each.user))
    numerators, denominators, clusters = [], [], []
    for cluster, rows in enumerate(groups):
        for i, j in islice(combinations(rows, 2), MOST_PAIRS):
            if answered[i].response != answered[j].response:
                numerators.append(words([texts[i]], [texts[j]])[0])
                denominators.append(words([answered[i].response], [answered[j].response])[0])
                clusters.append(cluster)
    if len(set(clusters)) < LEAST:
        says = f"{len(set(clusters))} contexts have several responses that one user edited"
        return Finding(
            name, None, unit, says, "for some contexts, two different responses edited by the same user"
        )
    left = _ratio(np.array(numerators), np.array(denominators), np.array(clusters), rng)
    says = "1 - the distance between a user's edits of two responses / that of the responses; near γ"
    return Finding(name, _one_minus(left), unit, says)


def _agreement(
    answered: Sequence[Record], texts: Sequence[str], words: Cost, rng: np.random.Generator
) -> Finding:
    """How far two users' edits of the same response go the same way."""
    name, unit = "agreement", "share"
    groups = _groups(answered, lambda each: (_key(each.context), each.response))
    apart, gone, clusters = [], [], []
    for cluster, rows in enumerate(groups):
        for i, j in islice(combinations(rows, 2), MOST_PAIRS):
            if answered[i].user != answered[j].user:
                response = answered[i].response
                apart.append(words([texts[i]], [texts[j]])[0])
                gone.append(words([response], [texts[i]])[0] + words([response], [texts[j]])[0])
                clusters.append(cluster)
    if len(set(clusters)) < LEAST or not any(gone):
        says = f"{len(set(clusters))} responses were edited by two users"
        return Finding(name, None, unit, says, "for some contexts, one response shown to several users")
    left = _ratio(np.array(apart), np.array(gone), np.array(clusters), rng)
    says = "1 - the distance between two users' edits of a response / the way both went; 0: unrelated"
    return Finding(name, _one_minus(left), unit, says)


def _with_base(
    answered: Sequence[Record],
    paid: Floats,
    base: Policy | None,
    rng: np.random.Generator,
    listener: Listener,
) -> list[Finding]:
    """Coverage by the reference's likelihoods, and how well costs are told, by its features or by length."""
    coverage, told = "coverage", "cost, foretold"
    if base is None:
        length = np.array([[len(each.response.split())] for each in answered], np.float64)
        says = "share of the cost's variance that the response's length tells, out of fold"
        return [
            Finding(coverage, None, "nats", "needs the likelihoods of a base", "--base MODEL"),
            Finding(
                told,
                _foretold(_by_length, length, paid, rng),
                "R²",
                says,
                "--base MODEL, for more than length",
            ),
        ]
    from editloop.offline import feature_pass, fit_cost_model, make_examples, reference_pass
    from editloop.policy import context_columns

    some = np.sort(rng.permutation(len(answered))[:MOST_READ])
    place = {answered[i].id: float(paid[i]) for i in some}
    made: Sequence[Example] = make_examples([answered[i] for i in some], base.encoder).examples
    if not made:
        says = "no row can be read by this base"
        return [Finding(coverage, None, "nats", says), Finding(told, None, "R²", says)]
    held, _ = reference_pass(base, made, progress=counter(listener, "likelihoods", len(made)))
    gaps = [e.reference[1] - e.reference[0] for e in held if e.reference and e.reference[1] is not None]
    scored, _ = feature_pass(
        base, [e.response_tree for e in made], progress=counter(listener, "features", len(made))
    )
    features = np.concatenate([each.features for each in scored]).astype(np.float64)
    width = context_columns(features.shape[1])

    def model(x: Floats, y: Floats, new: Floats) -> Floats:
        return fit_cost_model(x, y, context=width).predict(new)[0]

    costs = np.array([place[e.id] for e in made])
    found = _median(np.array(gaps), rng) if len(gaps) >= LEAST else None
    says = "median of log π_ref(y) - log π_ref(y'): how much rarer an edit is than what it replaces"
    return [
        Finding(
            coverage, found, "nats", says if found else f"{len(gaps)} edited rows that the base can read"
        ),
        Finding(
            told,
            _foretold(model, features, costs, rng),
            "R²",
            "share of the cost's variance that the cost model tells, out of fold",
        ),
    ]


def _foretold(
    fit: Callable[[Floats, Floats, Floats], Floats], x: Floats, costs: Floats, rng: np.random.Generator
) -> Estimate | None:
    """R² of predictions of each fold by a model of the others; None where costs are too few, or all alike."""
    n = len(costs)
    if n < LEAST or costs.std() < 1e-12:
        return None
    fold = rng.permutation(n) % FOLDS
    predicted = np.empty(n)
    for k in range(FOLDS):
        predicted[fold == k] = fit(x[fold != k], costs[fold != k], x[fold == k])
    wrong, spread = (predicted - costs) ** 2, (costs - costs.mean()) ** 2
    return _one_minus(_ratio(wrong, spread, np.arange(n), rng))


def _by_length(x: Floats, y: Floats, new: Floats) -> Floats:
    def design(lengths: Floats) -> Floats:
        return np.concatenate([np.ones_like(lengths), lengths, np.log1p(lengths)], axis=1)

    return np.asarray(design(new) @ np.linalg.lstsq(design(x), y, rcond=None)[0])


def _mean(values: Floats, rng: np.random.Generator) -> Estimate:
    return _ratio(values, np.ones_like(values), np.arange(len(values)), rng)


def _median(values: Floats, rng: np.random.Generator) -> Estimate:
    drawn = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(np.median(values)), float(low), float(high), len(values))


def _ratio(over: Floats, under: Floats, clusters: Any, rng: np.random.Generator) -> Estimate:
    """Σ over / Σ under, with a bootstrap over clusters."""
    _, place = np.unique(clusters, return_inverse=True)
    tops, bottoms = np.bincount(place, over), np.bincount(place, under)
    n = len(tops)
    drawn = np.empty(RESAMPLES)
    for k in range(RESAMPLES):
        some = rng.integers(n, size=n)
        bottom = bottoms[some].sum()
        drawn[k] = tops[some].sum() / bottom if bottom > 0 else math.nan
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return Estimate(float(tops.sum() / bottoms.sum()), float(low), float(high), n)


def _one_minus(each: Estimate) -> Estimate:
    return Estimate(1 - each.value, 1 - each.high, 1 - each.low, each.n)


def _groups(records: Sequence[Record], key: Callable[[Record], Hashable]) -> list[list[int]]:
    """Numbers of records that have the same key, where there are at least two."""
    found: dict[Hashable, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        found[key(record)].append(i)
    return [rows for rows in found.values() if len(rows) > 1]


def _key(context: Any) -> str:
    return context if isinstance(context, str) else repr(context)


def _final(record: Record) -> str:
    """The text as the user left it."""
    return record.response if record.edit is None else record.edit


def _json(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else estimate._asdict()
