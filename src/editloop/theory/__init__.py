"""The exact lab: worlds in which the paper's quantities are all known, and its claims as experiments."""

from __future__ import annotations

from editloop.theory.balance import Description, Solution, Solutions, around, balanced, metropolis
from editloop.theory.distributions import total_variation
from editloop.theory.learners import METHODS, Seen, dpo, early, limit, rl, seen, sft
from editloop.theory.responses import abstract_distances, edit_distances, neighbours, strings
from editloop.theory.violations import VIOLATIONS, violated
from editloop.theory.world import Rows, World

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
