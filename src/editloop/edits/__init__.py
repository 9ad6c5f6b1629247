"""The log of edits: the record, reading and checking it, its three views, and what an edit costs.

It imports neither torch nor transformers; datasets, pyarrow and matplotlib are imported only where they are
needed.
"""

from editloop.edits.code_diff import DiffLine, diff_lines, reads_as_code
from editloop.edits.columns import parse_map
from editloop.edits.contexts import ContextLike, as_context, as_contexts
from editloop.edits.cost import Cost, get_cost, register_cost
from editloop.edits.exports import EXPORTS, Exported, export
from editloop.edits.formats import FORMATS, LogAddress, LogFormat, locate
from editloop.edits.log import Log, ReadReport, RecordStream, hash_log
from editloop.edits.plots import plot_costs
from editloop.edits.reading import iter_records, read_log
from editloop.edits.record import Context, Message, Record, Status, context_text
from editloop.edits.redline import Span, count_changes, redline
from editloop.edits.seen import row_hashes
from editloop.edits.split import Split, SplitBy, split
from editloop.edits.splitting import split_log
from editloop.edits.summary import LogSummary, summarize
from editloop.edits.tally import Group
from editloop.edits.views import (
    CostObservation,
    Demonstration,
    Preference,
    View,
    costs,
    preferences,
    supervision,
    view_batches,
)
from editloop.edits.writing import write_log

__all__ = [
    "EXPORTS",
    "FORMATS",
    "Context",
    "ContextLike",
    "Cost",
    "CostObservation",
    "Demonstration",
    "DiffLine",
    "Exported",
    "Group",
    "Log",
    "LogAddress",
    "LogFormat",
    "LogSummary",
    "Message",
    "Preference",
    "ReadReport",
    "Record",
    "RecordStream",
    "Span",
    "Split",
    "SplitBy",
    "Status",
    "View",
    "as_context",
    "as_contexts",
    "context_text",
    "costs",
    "count_changes",
    "diff_lines",
    "export",
    "get_cost",
    "hash_log",
    "iter_records",
    "locate",
    "parse_map",
    "plot_costs",
    "preferences",
    "read_log",
    "reads_as_code",
    "redline",
    "register_cost",
    "row_hashes",
    "split",
    "split_log",
    "summarize",
    "supervision",
    "view_batches",
    "write_log",
]
