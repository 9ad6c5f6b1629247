"""A cost of your own: here only the numbers in a draft matter, not how many words were changed.

    python examples/custom_cost.py

It needs only `pip install editloop`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import editloop

NUMBER = re.compile(r"\d+")


def wrong_numbers(responses: Sequence[str], edits: Sequence[str]) -> list[float]:
    """Return the share of each draft's numbers that its user changed, in [0, 1]; 0 without numbers."""
    costs = []
    for response, edit in zip(responses, edits, strict=True):
        ours, theirs = NUMBER.findall(response), set(NUMBER.findall(edit))
        costs.append(sum(each not in theirs for each in ours) / max(len(ours), 1))
    return costs


# This registers the cost in this process. A package names it in the entry point group `editloop.costs`, and
# then the command knows it, too.
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

# Everything that computes costs takes the registered cost: summarize, diagnose, fit, evaluate and serve.
print(editloop.summarize(log, cost=editloop.get_cost("wrong-numbers")).cost_quantiles)
