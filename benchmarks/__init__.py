"""Benchmarks: the tables of the paper, and comparisons with other libraries.

`benchmarks.__main__` lists them by name; `docs/measurements.md` says what each measures.
"""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT"]

ROOT = Path(__file__).parents[1]
"""The repository, from which `python -m benchmarks...` finds this package."""
