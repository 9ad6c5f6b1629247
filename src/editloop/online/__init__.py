"""Choosing among policies while users edit (Algorithm 1): LateEnsemble and its relatives.

What is known is a fold over events, and an algorithm turns it into a choice. This package needs neither
torch nor transformers. It does not know what an arm writes, who edits, or where events are stored.
"""

from __future__ import annotations

from editloop.online.algorithms import (
    ALGORITHMS,
    KLUCB,
    UCB,
    Algorithm,
    Fixed,
    LinTS,
    RandUCB,
    SquareCB,
    Thompson,
    Uniform,
    get_algorithm,
)
from editloop.online.bandit import Bandit
from editloop.online.config import BanditConfig, resolve_scale
from editloop.online.events import (
    Arms,
    Decided,
    Event,
    Feedback,
    Heir,
    Rerouted,
    append_events,
    event_from_json,
    read_events,
)
from editloop.online.state import State
from editloop.online.tallies import Tally

__all__ = [
    "ALGORITHMS",
    "KLUCB",
    "UCB",
    "Algorithm",
    "Arms",
    "Bandit",
    "BanditConfig",
    "Decided",
    "Event",
    "Feedback",
    "Fixed",
    "Heir",
    "LinTS",
    "RandUCB",
    "Rerouted",
    "SquareCB",
    "State",
    "Tally",
    "Thompson",
    "Uniform",
    "append_events",
    "event_from_json",
    "get_algorithm",
    "read_events",
    "resolve_scale",
]
