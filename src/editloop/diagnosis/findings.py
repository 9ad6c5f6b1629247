"""The findings from a log's texts alone: how often and how much users edit, and whether they agree."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from editloop.diagnosis.model import Finding
from editloop.diagnosis.rows import AnsweredRows, context_key
from editloop.edits import Record, get_cost
from editloop.estimates import LEAST, Estimate, Floats, one_minus, ratio

__all__ = ["agreement", "contraction", "edit_size", "edited_share", "kept_after_edit", "kept_in_revisions"]

DISTANCE = "levenshtein:word/none"
"""The distance between two edits of the same context, in words."""


def edited_share(log: AnsweredRows, changed: Any) -> Finding:
    """Return the share of responses that were changed."""
    explanation = (
        "the share of responses that were changed. A user who writes what they like best with probability γ "
        "changes at least that share of the responses that are not right already"
    )
    return Finding("edited", log.share(changed.astype(float)), "share", explanation)


def edit_size(log: AnsweredRows, costs: Floats, changed: Any) -> Finding:
    """Return what the edited rows cost on average."""
    name, unit = "edit size", log.cost.name
    if not changed.any():
        return Finding(name, None, unit, "no row was edited", "rows with edits")
    found = log.mean(costs[changed], changed)
    if found is None:
        n = len(np.unique(log.clusters[changed]))
        explanation = f"all edits cost the same, in too few contexts (n = {n})"
        return Finding(name, None, unit, explanation, "more edits")
    return Finding(name, found, unit, "the mean cost of the rows that were edited")


def kept_after_edit(log: AnsweredRows) -> Finding:
    """Return how much of an edit's cost is saved when its result is shown to the same user again."""
    name, unit = "kept after an edit", "share"
    last: dict[Hashable, int] = {}  # the row whose edit by a user, in a context, gave a text
    pairs = []
    for i, (record, text) in enumerate(zip(log.records, log.texts, strict=True)):
        if record.user is None:
            continue
        who = context_key(record.context), record.user
        # Looked up before this row is entered: a row must not be its own source.
        if (source := last.get((*who, record.response))) is not None:
            pairs.append((source, i))
        if record.status == "edited":
            last[(*who, text)] = i
    if len(pairs) < LEAST:
        explanation = f"only {len(pairs)} responses were a user's own earlier edit of the same context"
        return Finding(name, None, unit, explanation, "users, and every text that is shown again as a row")
    before, after = (
        log.cost([log.records[pair[k]].response for pair in pairs], [log.texts[pair[k]] for pair in pairs])
        for k in (0, 1)
    )
    left = ratio(after, before, log.clusters[[i for _, i in pairs]], log.rng)
    explanation = (
        "1 - the cost of editing one's own edit again / the cost of that edit: 1 for a user who is done "
        "at once"
    )
    return _share_kept(name, left, explanation)


def kept_in_revisions(log: AnsweredRows) -> Finding:
    """Return 1 minus what later revisions of an edit cost, as a share of the cost of its first version."""
    name, unit = "kept in revisions", "share"
    edited = [i for i, each in enumerate(log.records) if each.status == "edited"]
    first = [_first_revision(log.records[i], log.texts[i]) for i in edited]
    last = [log.texts[i] for i in edited]
    revised = sum(bool(log.records[i].revisions) for i in edited)
    if revised < LEAST:
        needs = 'earlier revisions in metadata["revisions"], as a server logs them'
        return Finding(name, None, unit, f"only {revised} edits were revised", needs)
    before = log.cost([log.records[i].response for i in edited], first)
    left = ratio(log.cost(first, last), before, log.clusters[edited], log.rng)
    explanation = (
        "1 - the cost from a first edit to the last / the cost of the first: below 1 for a user who revises"
    )
    return _share_kept(name, left, explanation)


def _first_revision(record: Record, last: str) -> str:
    """The first version of an edit; the last one if it was not revised."""
    return record.revisions[0] if record.revisions else last


def contraction(log: AnsweredRows) -> Finding:
    """Return how much nearer a user's edits of one context are to each other than the responses were."""
    pairs = log.pairs(
        lambda each: (context_key(each.context), each.user),
        lambda one, other: one.response != other.response,
    )
    before = _distances(pairs, log.responses, log.responses)
    few = "contexts have several responses that one user edited"
    needs = "for some contexts, two responses edited by the same user"
    explanation = "1 - the distance between a user's edits of two responses / that between the responses"
    return _compared(log, "contraction", pairs, before, few, needs, explanation)


def agreement(log: AnsweredRows) -> Finding:
    """Return how far two users' edits of the same response go in the same direction."""
    pairs = log.pairs(
        lambda each: (context_key(each.context), each.response),
        lambda one, other: one.user != other.user,
    )
    # By the triangle inequality, two edits are at most as far apart as both have gone from the response
    # together. Unrelated edits are about that far apart.
    gone = _distances([(i, i) for i, _ in pairs], log.responses, log.texts)
    gone += _distances([(j, j) for _, j in pairs], log.responses, log.texts)
    few = "responses were edited by two users"
    needs = "for some contexts, one response shown to several users"
    explanation = (
        "1 - the distance between two users' edits of a response / the distance that both went from it: "
        "0 for unrelated edits"
    )
    return _compared(log, "agreement", pairs, gone, few, needs, explanation)


def _compared(
    log: AnsweredRows,
    name: str,
    pairs: Sequence[tuple[int, int]],
    under: Floats,
    few: str,
    needs: str,
    explanation: str,
) -> Finding:
    """The finding 1 − the distance between the edits of each pair / `under`.

    Args:
        log: The rows.
        name: The name of the finding.
        pairs: The pairs of rows.
        under: The denominator of each pair.
        few: What there are too few of, for the explanation where there are.
        needs: What to log then.
        explanation: What the finding is.
    """
    contexts = log.clusters[[i for i, _ in pairs]]
    if (n := len(np.unique(contexts))) < LEAST:
        return Finding(name, None, "share", f"only {n} {few}", needs)
    left = ratio(_distances(pairs, log.texts, log.texts), under, contexts, log.rng)
    return _share_kept(name, left, explanation)


def _share_kept(name: str, left: Estimate | None, explanation: str) -> Finding:
    """The finding 1 − the share that is left, or that there is none."""
    if left is None:
        return Finding(name, None, "share", "the texts that are compared are all alike")
    return Finding(name, one_minus(left), "share", explanation)


def _distances(pairs: Sequence[tuple[int, int]], ones: Sequence[str], others: Sequence[str]) -> Floats:
    """The distance in words between the two texts of each pair [pairs]."""
    distances = get_cost(DISTANCE)([ones[i] for i, _ in pairs], [others[j] for _, j in pairs])
    return np.asarray(distances, np.float64)
