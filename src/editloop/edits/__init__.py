"""The log of edits: the record, reading and checking it, its three views, and what an edit costs.

Imports neither torch nor transformers, nor, until one is needed, datasets, pyarrow or matplotlib.
"""

from editloop.edits.cost import Cost, get_cost, register_cost
from editloop.edits.reading import Log, ReadReport, RecordStream, iter_records, parse_map, read_log
from editloop.edits.record import Context, Message, Record, Status
from editloop.edits.views import (
    CostObservation,
    Demonstration,
    Preference,
    View,
    costs,
    preferences,
    supervision,
)

__all__ = [
    "Context",
    "Cost",
    "CostObservation",
    "Demonstration",
    "Log",
    "Message",
    "Preference",
    "ReadReport",
    "Record",
    "RecordStream",
    "Status",
    "View",
    "costs",
    "get_cost",
    "iter_records",
    "parse_map",
    "preferences",
    "read_log",
    "register_cost",
    "supervision",
]
