"""Best of n in this process: chooses among the drafts of a response (`offline/rerank.py`).

A policy's drafts are judged by the cost model of its own run, on features that the base alone computes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from editloop.edits import Context
from editloop.errors import RunError
from editloop.offline.cost_model.ridge import CostModel
from editloop.offline.rerank import KAPPA, choice, draft_bounds, no_reranking
from editloop.policy import ContextTree, Policy, RunFolder
from editloop.policy.row_adapters import RowAdapters
from editloop.policy.sampling import Sample
from editloop.serve.backends.base import Completion, Draft

__all__ = ["Chooser", "given"]

log = logging.getLogger("editloop.serve")


class Chooser:
    """Chooses among drafts. `take` and `choose` are called by the thread that works on the models.

    Args:
        n: How many drafts a response has.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._models: dict[Path, tuple[str, CostModel | None]] = {}  # with the run's identity

    def take(self, run: RunFolder) -> None:
        """Read the cost model of a run, unless it is known; say in the log why it may not choose."""
        if self.n == 1:
            return
        identity = run.manifest().identity
        if self._models.get(run.path, ("", None))[0] == identity:
            return
        objection, model = no_reranking(run), None
        if objection is None and (run.cost_model / "adapter").is_dir():
            objection = "its cost model reads features of its own, which would take a second base"
        if objection is None:
            try:
                model = CostModel.load(run.cost_model)
            except RunError as error:
                objection = str(error)
        if objection is not None:
            log.warning("%s: one draft in place of %d: %s", run.path, self.n, objection)
        self._models[run.path] = identity, model

    def count(self, run: Path) -> int:
        """How many drafts a response of a policy of this run has."""
        return 1 if self._models.get(run, ("", None))[1] is None else self.n

    def choose(
        self, run: Path, base: Policy, adapters: RowAdapters, context: Context, drafts: Sequence[Completion]
    ) -> Completion:
        """Return the draft with the least bound; if they cannot be compared, the first that is complete.

        Args:
            run: The run of the policy that wrote them.
            base: The base.
            adapters: The adapters that are on it, which are switched off meanwhile.
            context: What was asked.
            drafts: The drafts [n].
        """
        model = self._models[run][1]
        bounds = [math.nan] * len(drafts)

        def predict(trees: list[ContextTree]) -> NDArray[np.float64]:
            assert model is not None  # else there is one draft (`count`)
            with adapters.switched_off():
                return model.pessimistic(np.concatenate(base.features(trees)[1]), KAPPA)

        try:
            (found,) = draft_bounds(base.encoder, [context], [_samples(drafts)], predict)
            bounds = [bound if math.isfinite(bound) else math.nan for bound in found]
        except Exception as error:  # such as too little memory: the drafts are there, and the user waits
            log.warning("drafts of %s are not compared: %r", run, error)
        return given(drafts, bounds)


def given(drafts: Sequence[Completion], bounds: Sequence[float]) -> Completion:
    """Return the draft with the least bound, with all drafts beside it, and the tokens of all.

    Args:
        drafts: The drafts [n].
        bounds: The predicted cost of each; NaN for those that were not compared [n].
    """
    chosen = drafts[choice(_samples(drafts), bounds)]
    usage = dict(chosen.usage or {})
    usage["completion_tokens"] = sum((each.usage or {}).get("completion_tokens", 0) for each in drafts)
    usage["total_tokens"] = usage.get("prompt_tokens", 0) + usage["completion_tokens"]
    beside = tuple(
        Draft(each.text or "", each.finish, None if math.isnan(bound) else bound)
        for each, bound in zip(drafts, bounds, strict=True)
    )
    return Completion(
        chosen.text, chosen.finish, chosen.message, usage, drafts=beside, logprob=chosen.logprob
    )


def _samples(drafts: Sequence[Completion]) -> list[Sample]:
    return [Sample(each.text or "", 0, each.finish == "stop", 0) for each in drafts]
