"""What drafts in the shadow cost: by their distance to the edits, and by the cost model of the policy's run.

A user edits the draft that they see, so that an edit is nearer to it than to any draft that nobody saw. The
policy in the shadow and the champion both have such drafts, but the champion often wrote what the user saw,
too, and then has an advantage. A cost model has learned what drafts cost their own users, and is not biased
in this way; but it errs where a policy writes what no log has. So it is asked as well where a run has one,
and either of the two may stop a policy.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

from editloop.autopilot.children import Child
from editloop.autopilot.decisions import ShadowPair
from editloop.autopilot.stages import Transition
from editloop.edits import get_cost
from editloop.edits.cost import charge_unfinished
from editloop.errors import AutopilotError
from editloop.store.database import Store
from editloop.store.rounds import shadow_drafts, shadow_rounds
from editloop.store.schema import COST

__all__ = ["CommandScorer", "Predicted", "Scorer", "ShadowCosts", "predict_shadow"]

log = logging.getLogger("editloop.autopilot")

PREDICT_SECONDS = 1800.0
"""Seconds after which a prediction is given up: a policy does not wait for it in the shadow for ever."""

Predicted = Sequence[Mapping[str, float]]
"""For each request the predicted costs of its drafts, by arm. Whose request it was is not kept."""


class Scorer(Protocol):
    """What predicts the costs of shadow drafts, beside the autopilot."""

    def predict(self, shadow: Transition, run: Path) -> Predicted | None:
        """What the drafts of a shadow would cost their users; None while that is being computed.

        Without any prediction, for there is no cost model or it failed, the result is empty.

        Args:
            shadow: The transition by which the policy reached the shadow.
            run: Its run folder.
        """
        ...

    def stop(self) -> None:
        """Stop what is being computed, and wait for its end."""
        ...


class CommandScorer:
    """Predicts by the command `editloop autopilot predict`, whose result is a file in the run folder.

    Args:
        child: Runs the command.
        store: The address of the store.
        options: Further flags of the command.
    """

    def __init__(self, child: Child, store: str, options: Sequence[str] = ()) -> None:
        self._child, self._store, self._options = child, store, tuple(options)
        self._tried: Transition | None = None
        self._launched = 0.0

    def predict(self, shadow: Transition, run: Path) -> Predicted | None:
        """What the drafts would cost; see `Scorer`."""
        file = run / f"shadow-{shadow.time:.0f}.json"
        if self._child.is_there and self._child.poll() is None:
            if time.monotonic() - self._launched < PREDICT_SECONDS:
                return None
            log.warning("%s: the cost model took too long, and is not asked", shadow.subject)
            self._child.stop()
        with suppress(OSError, ValueError, KeyError, TypeError):
            found: Predicted = json.loads(file.read_text(encoding="utf-8"))["costs"]
            return found
        # After a failure the distance alone decides: the same command would fail once more.
        if self._tried == shadow or not (run / "cost_model").is_dir():
            return ()
        self._tried, self._launched = shadow, time.monotonic()
        arguments = ["autopilot", "predict", shadow.subject, "--store", self._store, "--out", str(file)]
        try:
            self._child.launch(
                [*arguments, "--since", repr(shadow.time), *self._options], run.with_suffix(".log")
            )
        except AutopilotError as error:
            log.warning("%s", error)
            return ()
        return None

    def stop(self) -> None:
        """Stop the command; see `Scorer`."""
        self._child.stop()


class ShadowCosts:
    """The costs of drafts in the shadow.

    Args:
        store: The store.
        scorer: What predicts costs; None for nothing.
    """

    def __init__(self, store: Store, scorer: Scorer | None = None) -> None:
        self._store, self._scorer = store, scorer

    def measured(self, last: Transition, champion: str, units: Mapping[str, str]) -> list[ShadowPair]:
        """Their costs against what the users ended with.

        Args:
            last: The transition by which the policy reached the shadow.
            champion: The champion, whose drafts nobody saw either.
            units: Whose request it is, by response.
        """
        rows = self._store.read(lambda c: shadow_rounds(c, last.time))
        cost = get_cost(self._store.fact(COST))
        measured = charge_unfinished(
            cost,
            cost([row.response for row in rows], [row.edit for row in rows]),
            [row.finish != "length" for row in rows],
            [row.edit for row in rows],
        )
        return _pairs(_by_request(rows, measured), last.subject, champion, units)

    def predicted(self, last: Transition, champion: str, run: Path | None) -> list[ShadowPair] | None:
        """Their costs by the cost model of the policy's run; None while they are being computed.

        Args:
            last: As for `measured`.
            champion: As for `measured`.
            run: The policy's run folder; None if it is gone.
        """
        if self._scorer is None or run is None:
            return []
        found = self._scorer.predict(last, run)
        requests = None if found is None else {str(i): each for i, each in enumerate(found)}
        return None if requests is None else _pairs(requests, last.subject, champion)


def _by_request(rows: Iterable[Any], costs: Iterable[Any]) -> dict[str, dict[str, float]]:
    """The costs of the drafts of each request, by arm."""
    found: dict[str, dict[str, float]] = {}
    for row, cost in zip(rows, costs, strict=True):
        found.setdefault(row.response_id, {})[row.arm] = float(cost)
    return found


def _pairs(
    requests: Mapping[str, Mapping[str, float]],
    subject: str,
    champion: str,
    units: Mapping[str, str] | None = None,
) -> list[ShadowPair]:
    """The costs of both drafts of each request that has both; without units, whose it is is not kept."""
    return [
        ShadowPair("" if units is None else units.get(name, name), each[subject], each[champion])
        for name, each in requests.items()
        if subject in each and champion in each
    ]


def predict_shadow(
    store: Store, arm: str, since: float, *, device: str = "auto", dtype: str = "auto"
) -> dict[str, Any]:
    """Predict what drafts in the shadow would cost, by the cost model of a policy's run.

    Args:
        store: The store.
        arm: The policy.
        since: Drafts of this time or later, in seconds since 1970, of all policies.
        device: Where the base runs.
        dtype: The precision of its weights.

    Returns:
        `costs`, as of `Predicted`; and `objection`, why there are none, or None.

    Raises:
        AutopilotError: The store does not know the policy.
        RunError: Its run folder is unusable.
    """
    from editloop.offline.cost_model.saved import predicted_costs
    from editloop.offline.rerank import no_reranking
    from editloop.policy import RunFolder
    from editloop.store import reads

    places = store.read(reads.policy_locations)
    if arm not in places:
        raise AutopilotError("the store has no such policy", seen=arm)
    run = RunFolder(places[arm][0])
    objection = no_reranking(run)
    rows = [] if objection else store.read(lambda c: shadow_drafts(c, since))
    if not rows:
        return {"costs": [], "objection": objection or "there are no drafts"}
    base = run.load_base(device=device, dtype=dtype)
    kept = [
        (row, tree)
        for row in rows
        if (tree := base.encoder.tree(json.loads(row.context), [row.response])) is not None
    ]
    # Not kept in the cache of features: what users asked is not to stay beside the store.
    trees = [tree for _, tree in kept]
    values: Iterable[Any] = predicted_costs(run, base, trees, cached=False)[0] if trees else ()
    costs = _by_request((row for row, _ in kept), values)
    return {"costs": list(costs.values()), "objection": None}
