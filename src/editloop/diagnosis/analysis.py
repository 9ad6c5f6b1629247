"""What a log says about its users, in the terms that the theory turns on, and which method to expect to win.

Every figure is an estimate with an interval, or a reason why this log cannot tell and what to log so that it
can. The recommendation is a rule of a few lines (`advise`); how good it is in the lab: docs/theory.md.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Cost, Log, Record, get_cost
from editloop.errors import EmptyViewError
from editloop.intervals import mean_interval, share_interval
from editloop.progress import ProgressCallback, WarningCallback, counter

if TYPE_CHECKING:
    from editloop.offline.examples import Example
    from editloop.policy import Policy

__all__ = ["Advice", "Diagnosis", "Estimate", "Finding", "advise", "diagnose"]

Floats = NDArray[np.float64]

RESAMPLES = 1_000
MOST_READ = 1_000
"""Rows that are read by the base, at most, drawn at random."""

MOST_PAIRS, MOST_ROWS = 20, 100
"""Pairs of edits that are compared within one context, at most, and rows from which they are drawn."""

LEAST = 10
"""Rows, or contexts, from which anything is compared, and from which an interval is the bootstrap's."""

MANY_TRIALS = 50
"""Contexts from which the interval of a share is the bootstrap's."""

FOLDS = 5

EDITED = (
    "share of responses that were changed; who writes what they like best with probability γ changes at "
    "least that share of what is not right already"
)

DISTANCE = "levenshtein:word/none"
"""Between two edits of the same context, in words."""


class Estimate(NamedTuple):
    """A figure with its 95% interval, which of few independent observations is Wilson's or Student's.

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
    records: Log | Sequence[Record],
    *,
    base: Policy | None = None,
    cost: Cost | str | None = None,
    seed: int = 0,
    callback: ProgressCallback | None = None,
) -> Diagnosis:
    """Look at a log.

    Args:
        records: A log, or its rows; in the order of time.
        base: Whose responses they are, or the base to be trained; None leaves out what needs one.
        cost: Δ, or its name; the default cost if not given.
        seed: Of resampling.
        callback: Receives progress.

    Raises:
        EmptyViewError: No row was edited or accepted.
    """
    callback = callback or WarningCallback()
    price = get_cost(cost) if isinstance(cost, str) else cost or get_cost()
    answered = [each for each in records if each.status in ("edited", "accepted")]
    if not answered:
        raise EmptyViewError("no row was edited or accepted", seen=f"{len(records)} rows")
    log = _Answered(
        answered,
        [each.response if each.edit is None else each.edit for each in answered],
        np.unique([_key(each.context) for each in answered], return_inverse=True)[1],
        price,
        np.random.default_rng(seed),
    )
    changed = np.array([each.status == "edited" for each in answered])
    paid = price(log.responses, log.texts)
    findings = [
        Finding("edited", log.share(changed.astype(float)), "share", EDITED),
        _size(log, paid, changed),
        _chains(log),
        _revisions(log),
        _contraction(log),
        _agreement(log),
        *_with_base(log, paid, base, callback),
    ]
    advice = advise(int(changed.sum()), {each.name: each.estimate for each in findings})
    return Diagnosis(len(records), len(answered), int(changed.sum()), price.name, tuple(findings), advice)


def advise(edited: int, found: dict[str, Estimate | None]) -> Advice:
    """The rule, on the number of edited rows and the estimates by name.

    A strong user teaches by example: SFT. A weak one does not, and DPO learns from them what it can, if the
    log is long enough for it. In between, and where little is known, the joint loss is never far behind.
    """
    low, high, source = strength(found)
    reasons = [f"{edited} edited rows; {source}"]
    if edited < FEW:
        reasons.append("too few rows for either loss alone to be trusted")
        return Advice("early", "low", tuple(reasons))
    if high >= STRONG:
        reasons.append("a strong user's edits are samples of what they want: supervision has little bias")
        return Advice("sft", "medium" if low >= STRONG else "low", tuple(reasons))
    if high <= WEAK and edited >= MANY:
        reasons.append("a weak user's edits are far from what they want, but better than what was there")
        return Advice("dpo", "medium" if low > 0 else "low", tuple(reasons))
    reasons.append("in between the joint loss is the safe choice")
    return Advice("early", "medium", tuple(reasons))


FEW, MANY = 150, 500
"""Edited rows below which nothing but the joint loss is advised, and from which DPO is."""

STRONG, WEAK = 0.97, 0.6
"""The user's strength from which SFT is advised, and to which DPO is."""


def strength(found: dict[str, Estimate | None]) -> tuple[float, float, str]:
    """Between what the user's strength lies, from 0 to 1, and how that is known.

    A user who writes what they like best with probability γ, and else leaves the text as it was, edits a
    share γ of the responses, and what they have written they keep; one who makes small steps edits more, and
    again. So γ is about the share edited times what is kept of an edit, where responses are seldom right.
    """
    edited, kept, revised = (
        found.get(name) for name in ("edited", "kept after an edit", "kept in revisions")
    )
    assert edited is not None
    if kept is not None:
        low, high = (_clip(edited[i] * _clip(kept[i])) for i in (1, 2))
        words = "the share edited times what is kept of an edit"
        return low, high, f"the user's strength is {low:.2f} to {high:.2f}, {words}"
    if revised is not None and revised.high < 1:
        high = _clip(edited.high * _clip(revised.high))
        return 0.0, high, f"the user's strength is at most {high:.2f}, by the share edited and its revisions"
    return 0.0, edited.high, f"the user's strength is at most {edited.high:.2f}, the share that is edited"


def _clip(value: float) -> float:
    return min(max(value, 0.0), 1.0)


@dataclass(frozen=True)
class _Answered:
    """The rows that were edited or accepted.

    Attributes:
        records: They.
        texts: As the users left them.
        clusters: The number of each row's context: rows of one context are not independent.
        price: Δ.
        rng: Of resampling.
    """

    records: Sequence[Record]
    texts: Sequence[str]
    clusters: Any
    price: Cost
    rng: np.random.Generator

    @property
    def responses(self) -> list[str]:
        """The texts as they were."""
        return [each.response for each in self.records]

    def mean(self, values: Floats, rows: Any = slice(None)) -> Estimate | None:
        """Of one value for each row, or for some of the rows."""
        return _ratio(values, np.ones_like(values), self.clusters[rows], self.rng)

    def share(self, values: Floats) -> Estimate:
        """Of the rows for which a value is 1, among all."""
        contexts = len(np.unique(self.clusters))
        known = self.mean(values) if contexts >= MANY_TRIALS else None
        if known is not None and known.low < known.high:
            return known
        share = float(values.mean())
        low, high = share_interval(share, contexts) or (0.0, 1.0)
        return Estimate(share, low, high, contexts)

    def pairs(
        self, key: Callable[[Record], Hashable], fits: Callable[[Record, Record], bool]
    ) -> list[tuple[int, int]]:
        """Rows that have a key in common and fit each other, at most `MOST_PAIRS` for a key."""
        groups: dict[Hashable, list[int]] = defaultdict(list)
        for i, record in enumerate(self.records):
            if record.user is not None:
                groups[key(record)].append(i)
        found = []
        for rows in groups.values():
            several = [
                (i, j) for i, j in combinations(rows[:MOST_ROWS], 2) if fits(self.records[i], self.records[j])
            ]
            some = self.rng.permutation(len(several))[:MOST_PAIRS]
            found += [several[k] for k in some]
        return found


def _size(log: _Answered, paid: Floats, changed: Any) -> Finding:
    name, unit = "edit size", log.price.name
    if not changed.any():
        return Finding(name, None, unit, "no row was edited", "rows with edits")
    found = log.mean(paid[changed], changed)
    if found is None:
        n = len(np.unique(log.clusters[changed]))
        return Finding(
            name, None, unit, f"edits that cost the same, in too few contexts (n = {n})", "more edits"
        )
    return Finding(name, found, unit, "mean cost of the rows that were edited")


def _chains(log: _Answered) -> Finding:
    """How much of what an edit costs is not to be paid again when its result is shown to the user again."""
    name, unit = "kept after an edit", "share"
    last: dict[Hashable, int] = {}
    pairs = []
    for i, (record, text) in enumerate(zip(log.records, log.texts, strict=True)):
        if record.user is None:
            continue
        who = _key(record.context), record.user
        if (source := last.get((*who, record.response))) is not None:
            pairs.append((source, i))
        if record.status == "edited":
            last[(*who, text)] = i
    if len(pairs) < LEAST:
        says = f"{len(pairs)} responses were a user's own earlier edit, of the same context"
        return Finding(name, None, unit, says, "users, and every text that is shown again, as a row")
    before, after = (
        log.price([log.records[pair[k]].response for pair in pairs], [log.texts[pair[k]] for pair in pairs])
        for k in (0, 1)
    )
    left = _ratio(after, before, log.clusters[[i for _, i in pairs]], log.rng)
    says = "1 - the cost of editing one's own edit again / that of the edit: 1 for who is done at once"
    return _shared(name, left, says)


def _revisions(log: _Answered) -> Finding:
    """How much of the first edit's cost the later revisions of it do not cost again."""
    name, unit = "kept in revisions", "share"
    edited = [i for i, each in enumerate(log.records) if each.status == "edited"]
    first = [_first_revision(log.records[i], log.texts[i]) for i in edited]
    last = [log.texts[i] for i in edited]
    revised = sum(bool(log.records[i].metadata.get("revisions")) for i in edited)
    if revised < LEAST:
        says = f"{revised} edits were revised"
        return Finding(
            name, None, unit, says, 'earlier revisions, in metadata["revisions"], as a server does'
        )
    before = log.price([log.records[i].response for i in edited], first)
    left = _ratio(log.price(first, last), before, log.clusters[edited], log.rng)
    says = "1 - the cost from a first edit to the last / that of the first; who revises is not done at once"
    return _shared(name, left, says)


def _first_revision(record: Record, last: str) -> str:
    earlier = record.metadata.get("revisions")
    return str(earlier[0]) if isinstance(earlier, list) and earlier else last


def _contraction(log: _Answered) -> Finding:
    """How much nearer the edits of one context are to each other than the responses were."""
    pairs = log.pairs(
        lambda each: (_key(each.context), each.user), lambda one, other: one.response != other.response
    )
    few = "contexts have several responses that one user edited"
    needs = "for some contexts, two responses edited by the same user"
    says = "1 - the distance between a user's edits of two responses / that of the responses"
    return _compared(log, "contraction", pairs, _apart(pairs, log.responses, log.responses), few, needs, says)


def _agreement(log: _Answered) -> Finding:
    """How far two users' edits of the same response go the same way."""
    pairs = log.pairs(
        lambda each: (_key(each.context), each.response), lambda one, other: one.user != other.user
    )
    gone = _apart([(i, i) for i, _ in pairs], log.responses, log.texts)
    gone += _apart([(j, j) for _, j in pairs], log.responses, log.texts)
    few, needs = (
        "responses were edited by two users",
        "for some contexts, one response shown to several users",
    )
    says = "1 - the distance between two users' edits of a response / the way both went; 0: unrelated"
    return _compared(log, "agreement", pairs, gone, few, needs, says)


def _compared(
    log: _Answered,
    name: str,
    pairs: Sequence[tuple[int, int]],
    under: Floats,
    few: str,
    needs: str,
    says: str,
) -> Finding:
    """1 - the distance between the edits of each pair / `under`; `few` of what there are, if too few."""
    contexts = log.clusters[[i for i, _ in pairs]]
    if (n := len(np.unique(contexts))) < LEAST:
        return Finding(name, None, "share", f"{n} {few}", needs)
    return _shared(name, _ratio(_apart(pairs, log.texts, log.texts), under, contexts, log.rng), says)


def _shared(name: str, left: Estimate | None, says: str) -> Finding:
    """1 - what is left."""
    if left is None:
        return Finding(name, None, "share", "the texts that are compared are all alike")
    return Finding(name, _one_minus(left), "share", says)


def _apart(pairs: Sequence[tuple[int, int]], ones: Sequence[str], others: Sequence[str]) -> Floats:
    """Distances in words, of one text to another of each pair."""
    distances = get_cost(DISTANCE)([ones[i] for i, _ in pairs], [others[j] for _, j in pairs])
    return np.asarray(distances, np.float64)


def _with_base(
    log: _Answered, paid: Floats, base: Policy | None, callback: ProgressCallback
) -> list[Finding]:
    """Coverage by the reference's likelihoods, and how well costs are told, by its features or by length."""
    coverage, told = "coverage", "cost, foretold"
    if base is None:
        length = np.array([[len(each.response.split())] for each in log.records], np.float64)
        says = "share of the cost's variance that the response's length tells, out of fold"
        return [
            Finding(coverage, None, "nats", "what a base thinks of the texts is not known", "--base MODEL"),
            _told(told, _foretold(_by_length, length, paid, log.clusters, log.rng), says),
        ]
    from editloop.offline import feature_pass, fit_cost_model, make_examples, reference_pass
    from editloop.offline.examples import EDIT, RESPONSE
    from editloop.policy import context_columns

    some = np.sort(log.rng.permutation(len(log.records))[:MOST_READ])
    place = {log.records[i].id: int(i) for i in some}
    made: Sequence[Example] = make_examples([log.records[i] for i in some], base.encoder).examples
    if not made:
        says = "no row can be read by this base"
        return [Finding(coverage, None, "nats", says), Finding(told, None, "R²", says)]
    held, _ = reference_pass(base, made, progress=counter(callback, "likelihoods", len(made)))
    sides = [(e.completions, e.completions.reference) for e in held if e.is_pair]
    gaps = [each[own.of(RESPONSE)] - each[own.of(EDIT)] for own, each in sides if each]
    trees = [e.completions.only(RESPONSE).tree for e in made]
    scored, _ = feature_pass(base, trees, progress=counter(callback, "features", len(made)))
    features = np.concatenate([each.features for each in scored]).astype(np.float64)
    width = context_columns(features.shape[1])

    def model(x: Floats, y: Floats, new: Floats) -> Floats:
        return fit_cost_model(x, y, context=width).predict(new)[0]

    rows = [place[e.id] for e in made]
    found = _median(np.array(gaps), log.rng) if len(gaps) >= LEAST else None
    says = "median of log π_ref(y) - log π_ref(y'): how much rarer an edit is than what it replaces"
    share = "share of the cost's variance that the cost model tells, out of fold"
    return [
        Finding(
            coverage, found, "nats", says if found else f"{len(gaps)} edited rows that the base can read"
        ),
        _told(told, _foretold(model, features, paid[rows], log.clusters[rows], log.rng), share),
    ]


def _told(name: str, found: Estimate | None, says: str) -> Finding:
    if found is None:
        return Finding(name, None, "R²", "costs of too few rows, or costs that are all alike", "more rows")
    return Finding(name, found, "R²", says)


def _foretold(
    fit: Callable[[Floats, Floats, Floats], Floats],
    x: Floats,
    costs: Floats,
    clusters: Any,
    rng: np.random.Generator,
) -> Estimate | None:
    """R² of predictions of each fold, rows of a context together, by a model of the others.

    None where rows are too few, or costs all alike.
    """
    contexts, place = np.unique(clusters, return_inverse=True)
    if len(contexts) < LEAST or costs.std() < 1e-12:
        return None
    fold = (rng.permutation(len(contexts)) % FOLDS)[place]
    predicted = np.empty(len(costs))
    for k in range(FOLDS):
        predicted[fold == k] = fit(x[fold != k], costs[fold != k], x[fold == k])
    wrong, spread = (predicted - costs) ** 2, (costs - costs.mean()) ** 2
    return _one_minus(_ratio(wrong, spread, clusters, rng))


def _by_length(x: Floats, y: Floats, new: Floats) -> Floats:
    def design(lengths: Floats) -> Floats:
        return np.concatenate([np.ones_like(lengths), lengths, np.log1p(lengths)], axis=1)

    return np.asarray(design(new) @ np.linalg.lstsq(design(x), y, rcond=None)[0])


def _median(values: Floats, rng: np.random.Generator) -> Estimate:
    drawn = np.median(values[rng.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(np.median(values)), float(low), float(high), len(values))


def _ratio(over: Floats, under: Floats, clusters: Any, rng: np.random.Generator) -> Estimate | None:
    """Σ over / Σ under, with a bootstrap over clusters, or Student's t where they are few.

    None where nothing is to be divided by, or few clusters are all alike.
    """
    _, place = np.unique(clusters, return_inverse=True)
    tops, bottoms = np.bincount(place, over), np.bincount(place, under)
    if not (np.isfinite(tops).all() and bottoms.sum() > 0):
        return None
    n = len(tops)
    if n < LEAST:
        value = float(tops.sum() / bottoms.sum())
        wrong = (tops - value * bottoms) / bottoms.mean()
        error = float(wrong.std(ddof=1)) / n**0.5 if n > 1 else 0.0
        few = mean_interval(value, error, n)
        return few and Estimate(value, *few, n)
    drawn = []
    for _ in range(RESAMPLES):
        some = rng.integers(n, size=n)
        if (bottom := bottoms[some].sum()) > 0:
            drawn.append(tops[some].sum() / bottom)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return Estimate(float(tops.sum() / bottoms.sum()), float(low), float(high), n)


def _one_minus(each: Estimate | None) -> Estimate | None:
    return None if each is None else Estimate(1 - each.value, 1 - each.high, 1 - each.low, each.n)


def _key(context: Any) -> str:
    return context if isinstance(context, str) else repr(context)


def _json(estimate: Estimate | None) -> dict[str, float] | None:
    return None if estimate is None else estimate._asdict()
