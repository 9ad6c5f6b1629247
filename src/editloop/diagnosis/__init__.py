"""What a log says about its users, and which method to expect to win on it."""

from __future__ import annotations

from editloop.diagnosis.advice import advise
from editloop.diagnosis.analysis import diagnose
from editloop.diagnosis.model import Advice, Diagnosis, Estimate, Finding

__all__ = ["Advice", "Diagnosis", "Estimate", "Finding", "advise", "diagnose"]
