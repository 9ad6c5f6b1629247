"""What a log says about its users, and which method to expect to win on it."""

from __future__ import annotations

from editloop.diagnosis.analysis import Advice, Diagnosis, Estimate, Finding, advise, diagnose

__all__ = ["Advice", "Diagnosis", "Estimate", "Finding", "advise", "diagnose"]
