"""Which method to train: a rule of a few lines. docs/diagnosis.md says how good it is in the lab."""

from __future__ import annotations

from editloop.diagnosis.model import Advice
from editloop.estimates import Estimate

__all__ = ["advise"]

FEW, MANY = 150, 500
"""The number of edited rows below which only the joint loss is recommended, and that from which DPO is."""

STRONG, WEAK = 0.97, 0.6
"""The user's strength from which SFT is recommended, and up to which DPO is."""


def advise(edited: int, found: dict[str, Estimate | None]) -> Advice:
    """Return which method to train.

    A strong user teaches by example: SFT. A weak one does not, and DPO learns the most from their edits, if
    the log is long enough for it. In between, and where little is known, the joint loss is never far from
    the best.

    Args:
        edited: The number of edited rows.
        found: The findings' estimates by name.
    """
    low, high, source = strength(found)
    reasons = [f"{edited} edited rows; {source}"]
    if edited < FEW:
        reasons.append("too few rows to trust either loss alone")
        return Advice("early", "low", tuple(reasons))
    # Both rules look at the upper bound, because the lower one is 0 in every log that shows no edit again.
    if high >= STRONG:
        reasons.append("a strong user's edits are samples of what they want, so supervision has little bias")
        return Advice("sft", "medium" if low >= STRONG else "low", tuple(reasons))
    if high <= WEAK and edited >= MANY:
        reasons.append("a weak user's edits are far from what they want, but better than the responses")
        return Advice("dpo", "medium" if low > 0 else "low", tuple(reasons))
    reasons.append("between the two, the joint loss is the safe choice")
    return Advice("early", "medium", tuple(reasons))


def strength(found: dict[str, Estimate | None]) -> tuple[float, float, str]:
    """Return a lower and an upper bound on the user's strength, from 0 to 1, and how they are known.

    A user who writes what they like best with probability γ, and else leaves the text as it was, edits a
    share γ of the responses and then keeps what they have written. A user who makes small steps edits more
    often, and edits the result again. So where responses are seldom right, γ is about the share edited times
    what is kept of an edit.
    """
    edited, kept, revised = (
        found.get(name) for name in ("edited", "kept after an edit", "kept in revisions")
    )
    assert edited is not None  # `AnsweredRows.share` always has an estimate
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
