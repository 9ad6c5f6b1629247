"""A bandit over arms of your own: here two prompts and a template, chosen by what users' edits cost.

    python examples/choose_among_arms.py

It needs nothing but `pip install editloop`. Anything can write the answers; the bandit needs their costs
only.
"""

from __future__ import annotations

import random
from collections import Counter

import editloop

COST = editloop.get_cost("levenshtein:word/response")
WANTED = "Hi Ada! The demo is on Friday. See you there."
ARMS = {
    "formal": "Dear Ada, I would like to invite you to the demo on Friday.",
    "friendly": "Hi Ada! The demo is on Friday.",
    "template": "Dear NAME, EVENT takes place on DATE.",
}

# Thompson sampling draws its choice, so that each decision has a probability, its propensity. With that,
# other policies can be evaluated on the same log later.
bandit = editloop.Bandit(ARMS, editloop.BanditConfig(algorithm="thompson"))
rng = random.Random(0)
plays: Counter[str] = Counter()
for round in range(200):
    decision = bandit.decide(f"response-{round}", scope="ada")
    plays[decision.arm] += 1
    response = ARMS[decision.arm]
    edit = WANTED if rng.random() < 0.8 else response  # now and then nobody cares
    (cost,) = COST([response], [edit])
    bandit.edited(decision.response_id, float(cost))

for arm, count in plays.most_common():
    (full,) = COST([ARMS[arm]], [WANTED])
    print(f"{arm:10} played {count:3} times, an edit costs {full:.2f}")
print(f"the last decision: {decision.arm} with probability {decision.propensity:.2f}")

# The state is a fold over events: what is kept of it gives the same bandit again, exactly.
assert editloop.Bandit.from_json(bandit.to_json()).to_json() == bandit.to_json()
