"""A cost of your own: what an edit costs is what it costs you, not the number of words that changed.

    python examples/custom_cost.py

It needs nothing but `pip install editloop`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import editloop

NUMBER = re.compile(r"\d+")


def wrong_numbers(responses: Sequence[str], edits: Sequence[str]) -> list[float]:
    """The share of a draft's numbers that its user had to change: in [0, 1], 0 where there are none."""
    costs = []
    for response, edit in zip(responses, edits, strict=True):
        ours, theirs = NUMBER.findall(response), set(NUMBER.findall(edit))
        costs.append(sum(each not in theirs for each in ours) / max(len(ours), 1))
    return costs


# In this process; a package names it in its entry points, group `editloop.costs`, for the command, too.
editloop.register_cost("wrong-numbers", wrong_numbers)

log = [
    editloop.Record(context=context, response=response, edit=edit)
    for context, response, edit in [
        ("Confirm the order.", "Your 3 parcels come on day 12.", "Your 3 parcels come on day 21."),
        ("Confirm the order.", "Your 2 parcels come on day 5.", "Hello! Your 2 parcels come on day 5."),
        ("Say when we meet.", "We meet at 9.", "We meet at 10."),
    ]
]
for name in ("levenshtein:word/response", "wrong-numbers"):
    cost = editloop.get_cost(name)
    values = cost([record.response for record in log], [record.edit or "" for record in log])
    print(f"{name:28}", " ".join(f"{value:.2f}" for value in values))

# Wherever a cost is asked for, its name is enough: summarize, diagnose, fit(select="cost"), evaluate, serve.
print(editloop.summarize(log, cost=editloop.get_cost("wrong-numbers")).cost_quantiles)
