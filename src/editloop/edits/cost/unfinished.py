"""What a draft costs that was cut at the limit of its length: as much as one of which nothing is kept.

Nobody saw the rest of such a draft. Priced by what is there, a draft that never comes to an end can beat one
that does: the longer it is, the more of its words occur in the edit by chance. The limit is by default the
length that 99% of the edits do not exceed, so a draft that reaches it is longer than what people wanted.
Whatever its rest might be, it cannot cost more than this, so no unfinished draft beats a finished one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from editloop.edits.cost.base import Cost

__all__ = ["charge_unfinished"]


def charge_unfinished(
    cost: Cost, costs: NDArray[np.float64], finished: Sequence[bool], edits: Sequence[str]
) -> NDArray[np.float64]:
    """Return the costs of drafts of which some were cut [n].

    Args:
        cost: The cost Δ. An unfinished draft costs at least its scale, which is the largest value of a
            bounded cost. If the cost declares no scale, it costs at least what writing the edit anew does.
        costs: What each draft costs by its text, computed or estimated [n].
        finished: Whether each draft came to its end within the limit [n].
        edits: The edits that the drafts are compared with [n].
    """
    cut = [i for i, ended in enumerate(finished) if not ended]
    charged = np.array(costs, dtype=np.float64)
    if not cut:
        return charged
    if cost.scale is not None:
        least = np.full(len(cut), cost.scale)
    else:
        least = cost([""] * len(cut), [edits[i] for i in cut])
    charged[cut] = np.maximum(charged[cut], least)
    return charged
