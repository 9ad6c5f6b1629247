"""The exact lab: worlds in which every quantity of the paper is known, and its claims as experiments.

The names are loaded when they are first used: they need scipy, which the extra `theory` brings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from editloop.lazy import lazy_getattr

if TYPE_CHECKING:
    from editloop.theory.balance import Description, around, metropolis
    from editloop.theory.distributions import total_variation
    from editloop.theory.fixed_points import Solution, Solutions, balanced
    from editloop.theory.learners import METHODS, Seen, dpo, early, limit, rl, seen, sft
    from editloop.theory.responses import abstract_distances, edit_distances, neighbours, strings
    from editloop.theory.violations import VIOLATIONS, violated
    from editloop.theory.world import Rows, World

_MODULES = {
    "balance": ("Description", "around", "metropolis"),
    "distributions": ("total_variation",),
    "fixed_points": ("Solution", "Solutions", "balanced"),
    "learners": ("METHODS", "Seen", "dpo", "early", "limit", "rl", "seen", "sft"),
    "responses": ("abstract_distances", "edit_distances", "neighbours", "strings"),
    "violations": ("VIOLATIONS", "violated"),
    "world": ("Rows", "World"),
}
__getattr__, __dir__ = lazy_getattr(__name__, _MODULES)

__all__ = [
    "METHODS",
    "VIOLATIONS",
    "Description",
    "Rows",
    "Seen",
    "Solution",
    "Solutions",
    "World",
    "abstract_distances",
    "around",
    "balanced",
    "dpo",
    "early",
    "edit_distances",
    "limit",
    "metropolis",
    "neighbours",
    "rl",
    "seen",
    "sft",
    "strings",
    "total_variation",
    "violated",
]
