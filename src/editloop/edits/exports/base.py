"""What an export is: a function from records to rows of another tool's format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from editloop.edits.cost import Cost
from editloop.edits.record import Record

__all__ = ["Export", "Row"]

Row = dict[str, Any]
"""A row, as JSON types."""

Export = Callable[[Sequence[Record], Cost], tuple[Iterator[Row], Counter[str]]]
"""Takes records and the cost of an edit; returns the rows, and the number of records left out, by reason."""
