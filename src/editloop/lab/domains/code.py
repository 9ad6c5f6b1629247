"""The code domain: small functions that an agent fixes, changes and refactors, with a hidden style per
repository.

========  ==========================================================================================
kind      the style that is wanted
========  ==========================================================================================
api       telling names, a loop, early return, a docstring and type hints
science   short names, a comprehension, a single return, neither docstring nor hints
tool      plain names, a comprehension, early return, hints
course    telling names, a loop, a single return, a docstring
========  ==========================================================================================
"""

from __future__ import annotations

from pathlib import Path

from editloop.lab.code.world import CodeDomain
from editloop.lab.domains.tuned import TUNED_EARLY, TUNED_RL, TUNED_SFT

__all__ = ["CODE"]


def _style(names: str, form: str, exits: str, docstring: str, hints: str) -> dict[str, str]:
    return {"names": names, "form": form, "exits": exits, "docstring": docstring, "hints": hints}


CODE = CodeDomain(
    name="code",
    styles={
        "api": _style("telling", "loop", "early", "yes", "yes"),
        "science": _style("short", "comprehension", "single", "no", "no"),
        "tool": _style("plain", "comprehension", "early", "no", "yes"),
        "course": _style("telling", "loop", "single", "yes", "no"),
    },
    cost="levenshtein:code/response",
    base=Path(__file__).parents[1] / "assets" / "code",
    pretraining={"steps": 3000, "diversity": 0.2, "awareness": 0.2},
    tuned={
        "sft": TUNED_SFT,
        "dpo": {"learning_rate": 2e-4, "beta": 1.0},
        "rl": TUNED_RL,
        "early": TUNED_EARLY,
    },
)
