"""Best of n in this process: chooses among the drafts of a response (`offline/rerank.py`).

A policy's drafts are judged by the cost model of its own run, on features that the base alone computes.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from editloop.edits import Context
from editloop.offline.cost_model.ridge import CostModel
from editloop.offline.rerank import KAPPA, choice, compared, no_reranking
from editloop.policy import Policy, RunFolder
from editloop.policy.row_adapters import RowAdapters
from editloop.policy.sampling import Sample
from editloop.serve.backends.base import Completion, Draft

__all__ = ["Chooser"]

log = logging.getLogger("editloop.serve")


class Chooser:
    """Chooses among drafts. All but the constructor is called by the thread that works on the models.

    Args:
        n: How many drafts a response has.
    """

    def __init__(self, n: int) -> None:
        self.n = n
        self._models: dict[Path, CostModel | None] = {}

    def take(self, run: RunFolder) -> None:
        """Read the cost model of a run, unless it is known; tell why it may not choose."""
        if self.n == 1 or run.path in self._models:
            return
        objection = no_reranking(run)
        if objection is None and (run.cost_model / "adapter").is_dir():
            objection = "its cost model reads features of its own, which would take a second base"
        if objection is not None:
            log.warning("%s: one draft in place of %d: %s", run.path, self.n, objection)
        self._models[run.path] = None if objection else CostModel.load(run.cost_model)

    def count(self, run: Path) -> int:
        """How many drafts a response of a policy of this run has."""
        return self.n if self._models.get(run) is not None else 1

    def choose(
        self, run: Path, base: Policy, adapters: RowAdapters, context: Context, drafts: Sequence[Completion]
    ) -> Completion:
        """Return the draft with the least bound, with all of them beside it, and the tokens of all.

        Args:
            run: The run of the policy that wrote them.
            base: The base.
            adapters: The adapters that are on it, which are switched off meanwhile.
            context: What was asked.
            drafts: The drafts [n].
        """
        texts = [each.text or "" for each in drafts]
        samples = [
            Sample(text, 0, each.finish == "stop", 0) for text, each in zip(texts, drafts, strict=True)
        ]
        bounds, places = [math.nan] * len(drafts), compared(samples)
        model = self._models[run]
        tree = base.encoder.tree(context, [texts[place] for place in places])
        if model is not None and tree is not None and len(places) > 1:
            with adapters.switched_off():
                features = base.features([tree])[1]
            for place, bound in zip(places, model.pessimistic(np.concatenate(features), KAPPA), strict=True):
                bounds[place] = float(bound)
        given = drafts[choice(samples, bounds)]
        usage = dict(given.usage or {})
        usage["completion_tokens"] = sum((each.usage or {}).get("completion_tokens", 0) for each in drafts)
        usage["total_tokens"] = usage.get("prompt_tokens", 0) + usage["completion_tokens"]
        beside = tuple(
            Draft(text, each.finish, None if math.isnan(bound) else bound)
            for text, each, bound in zip(texts, drafts, bounds, strict=True)
        )
        return Completion(given.text, given.finish, given.message, usage, drafts=beside)
