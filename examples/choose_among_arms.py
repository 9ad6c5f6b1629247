"""A bandit over arms of your own, which learns from the cost of users' edits which arm to play.

    python examples/choose_among_arms.py

It needs only `pip install editloop`. Anything can be an arm, such as a prompt, a template or a model: the
bandit sees nothing of it but the costs of its drafts.
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

# Thompson sampling chooses at random, and logs the probability of each choice, its propensity. With
# propensities, the same log can later be used to evaluate other ways of choosing.
bandit = editloop.Bandit(ARMS, editloop.BanditConfig(algorithm="thompson"))
rng = random.Random(0)
plays: Counter[str] = Counter()
for round in range(200):
    decision = bandit.decide(f"response-{round}", scope="ada")
    plays[decision.arm] += 1
    response = ARMS[decision.arm]
    edit = WANTED if rng.random() < 0.8 else response  # one draft in five is left as it is
    (cost,) = COST([response], [edit])
    bandit.edited(decision.response_id, float(cost))

for arm, count in plays.most_common():
    (full,) = COST([ARMS[arm]], [WANTED])
    print(f"{arm:10} played {count:3} times, an edit costs {full:.2f}")
print(f"the last decision: {decision.arm} with probability {decision.propensity:.2f}")

# A snapshot of the bandit restores it exactly.
assert editloop.Bandit.from_json(bandit.to_json()).to_json() == bandit.to_json()
