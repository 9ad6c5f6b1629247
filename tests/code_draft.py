"""A function of the lab's little language, for tests."""

from __future__ import annotations

from editloop.lab.code.language import PLAIN

DRAFT = {
    **PLAIN,
    "shape": "numbers",
    "name": "pick",
    "signature": ", limit",
    "guard": "minus",
    "keep": "above",
    "keep_by": "3",
    "change": "times",
    "change_by": "limit",
    "gather": "sum",
    "finish": "cap",
    "finish_by": "9",
}
