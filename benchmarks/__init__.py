"""The tables of the paper, and side-by-sides with other libraries; each module is one benchmark."""

from __future__ import annotations

from pathlib import Path

__all__ = ["ROOT"]

ROOT = Path(__file__).parents[1]
"""The repository, from which `python -m benchmarks...` finds this package."""
