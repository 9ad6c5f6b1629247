"""The translation edit rate: as Levenshtein, but a moved stretch of words counts as one edit (by sacrebleu).

The shifts are found greedily, as is usual for TER (Snover et al. 2006), so the count is an upper bound on the
least number of edits. `ter:word/edit` is HTER. A moved stretch has no place in an alignment in reading order,
so the parts of this cost are not shown in a redline.
"""

from __future__ import annotations

from collections.abc import Sequence

from editloop.edits.cost.normalised import edit_distance_family
from editloop.extras import requires

__all__ = ["TER"]


def _edits(response: Sequence[str], edit: Sequence[str]) -> int:
    requires("ter")
    from sacrebleu.metrics.lib_ter import translation_edit_rate

    edits, _ = translation_edit_rate(list(response), list(edit))
    return int(edits)


TER = edit_distance_family("ter", _edits, ("word",))
