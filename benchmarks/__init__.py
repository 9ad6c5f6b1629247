"""Benchmarks: the tables of the paper, and comparisons with other libraries.

`benchmarks.__main__` lists them by name; `docs/measurements.md` says what each measures.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT", "WORK"]

ROOT = Path(__file__).parents[1]
"""The repository, from which `python -m benchmarks...` finds this package."""

WORK = Path("benchmarks/work")
"""Where logs, fits and drafts are kept, with which an interrupted benchmark goes on."""
