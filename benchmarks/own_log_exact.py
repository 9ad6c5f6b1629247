"""Generations on their own log where every quantity is known: tabular policies, and exact figures of each.

A response has three attributes of three values, and a policy is a table of logits for each context. The
losses are those of the methods themselves, on logs that are sampled. So whatever differs between the ways to
learn is what the losses do, and not how a language model generalises or how long it was trained.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from editloop.offline import METHODS, Batch, Completions, Example, Layout
from editloop.policy import ContextTree

__all__ = ["EXACT_WAYS", "World", "exact_generations", "learned"]

ATTRIBUTES, VALUES, CONTEXTS = 3, 3, 8
RESPONSES = np.array(list(product(range(VALUES), repeat=ATTRIBUTES)))
"""The value of each attribute in each response [27, 3]."""

WANTED, REPAIR = 0.85, 0.6
"""What π* of the balanced user gives to the wanted value; how often the medium user repairs a wrong one."""

STEPS, RATE = 200, 0.05
"""Steps of Adam in a fit over all rows at once, and its learning rate."""

Floats = NDArray[np.float64]


class ExactWay(NamedTuple):
    """A method with its hyperparameters, and whose log-probabilities are the reference."""

    method: str
    reference: str = "base"
    values: tuple[tuple[str, Any], ...] = ()


EXACT_WAYS: dict[str, ExactWay] = {
    "SFT": ExactWay("sft", values=(("reduction", "sequence"),)),
    "DPO, base": ExactWay("dpo", "base", (("beta", 1.0),)),
    "DPO, logged": ExactWay("dpo", "logged", (("beta", 1.0),)),
    "WPO, base": ExactWay("wpo", "base", (("beta", 1.0),)),
    "WPO, logged": ExactWay("wpo", "logged", (("beta", 1.0),)),
    "EarlyEnsemble, base": ExactWay("early", "base", (("beta", 1.0), ("dpo_weight", 1.0))),
    "EarlyEnsemble, logged": ExactWay("early", "logged", (("beta", 1.0), ("dpo_weight", 1.0))),
    "KTO, base": ExactWay("kto", "base", (("beta", 1.0),)),
    "KTO, logged": ExactWay("kto", "logged", (("beta", 1.0),)),
}


class World(NamedTuple):
    """What is wanted, and the base.

    Attributes:
        wanted: The wanted value of each attribute in each context [contexts, 3].
        base: π_0 of each response in each context [contexts, 27].
    """

    wanted: NDArray[np.int64]
    base: Floats

    @classmethod
    def drawn(cls, seed: int) -> World:
        """A world in which the base gives a quarter to each wanted value."""
        generator = np.random.default_rng([seed, 0])
        wanted = generator.integers(VALUES, size=(CONTEXTS, ATTRIBUTES))
        shares = np.empty((CONTEXTS, ATTRIBUTES, VALUES))
        for x, a in product(range(CONTEXTS), range(ATTRIBUTES)):
            others = generator.dirichlet(np.ones(VALUES - 1)) * 0.75
            shares[x, a] = np.insert(others, wanted[x, a], 0.25)
        return cls(wanted, _joint(np.maximum(shares, 0.01)))

    @property
    def goal(self) -> Floats:
        """π* of the balanced user [contexts, 27]."""
        shares = np.full((CONTEXTS, ATTRIBUTES, VALUES), (1 - WANTED) / (VALUES - 1))
        np.put_along_axis(shares, self.wanted[:, :, None], WANTED, axis=2)
        return _joint(shares)

    def wrong(self, policy: Floats) -> float:
        """The share of attributes that are wrong in a draft of a policy [contexts, 27], exactly."""
        misses = (RESPONSES[None] != self.wanted[:, None]).mean(axis=2)
        return float((policy * misses).sum(axis=1).mean())

    def distance(self, policy: Floats) -> float:
        """KL(π* ‖ π) in nats, mean over contexts, exactly."""
        return float((self.goal * (np.log(self.goal) - np.log(policy))).sum(axis=1).mean())

    def edited(self, user: str, x: int, y: int, generator: np.random.Generator) -> int:
        """The user's edit of a response: of the one who only repairs (`medium`), or of the `balanced` one."""
        values = RESPONSES[y].copy()
        for a, wanted in enumerate(self.wanted[x]):
            if user == "medium":
                values[a] = wanted if generator.random() < REPAIR else values[a]
                continue
            # A Metropolis step: another value, taken by the ratio of π*.
            new = (values[a] + generator.integers(1, VALUES)) % VALUES
            to, at = (
                WANTED if value == wanted else (1 - WANTED) / (VALUES - 1) for value in (new, values[a])
            )
            values[a] = new if generator.random() < to / at else values[a]
        return int(values @ (VALUES ** np.arange(ATTRIBUTES)[::-1]))


def exact_generations(
    user: str, seed: int, *, generations: int = 10, rows: int = 300, ways: Mapping[str, ExactWay] = EXACT_WAYS
) -> dict[str, list[dict[str, float]]]:
    """What the policies of all ways are like, by generation, the base first.

    Args:
        user: `medium` or `balanced`.
        seed: Decides the world and the logs; rows are drawn by the same numbers for all ways.
        generations: How often a policy is fitted.
        rows: Rows that each policy writes.
        ways: The ways to learn.
    """
    world, found = World.drawn(seed), dict[str, list[dict[str, float]]]()
    for name, way in ways.items():
        policies, log = [world.base], list[Example]()
        for number in range(generations):
            log += _written(world, user, policies[-1], seed, number, rows)
            fitted = learned(way, log, policies)
            # KTO cannot be fitted without a draft that was left as it was: the policy stays.
            policies.append(policies[-1] if fitted is None else fitted)
        found[name] = [{"wrong": world.wrong(each), "kl": world.distance(each)} for each in policies]
    return found


def _written(world: World, user: str, policy: Floats, seed: int, number: int, rows: int) -> list[Example]:
    """The rows that a policy writes and the user edits."""
    generator = np.random.default_rng([seed, 1, number])
    made = []
    for i in range(rows):
        x = int(generator.integers(CONTEXTS))
        y = int(np.searchsorted(policy[x].cumsum(), generator.random() * policy[x].sum()))
        edit = world.edited(user, x, y, generator)
        sides = ((edit,),) if edit == y else ((edit,), (y,))
        completions = Completions(ContextTree((x,), sides), {"edit": (0,), "response": (len(sides) - 1,)})
        name = f"{number}-{i}"
        made.append(Example(name, str(x), str(edit), str(y), completions, policy=str(number)))
    return made


def learned(way: ExactWay, log: Sequence[Example], policies: Sequence[Floats]) -> Floats | None:
    """The policy that a way learns from a log, from the first of `policies` on; None if it has no rows.

    Args:
        way: The way.
        log: The rows; each names its policy by the index in `policies`.
        policies: The policies that wrote it [contexts, responses], the base first.
    """
    method = METHODS.get(way.method)
    rows = [example for example in log if method.rows(example)]
    if not method.suffices(log):
        return None
    values = method.settled(method.hyperparameters(**dict(way.values)), rows)
    tables = np.log(np.stack(policies))
    completions = []
    for example, own in zip(rows, method.completions(rows, values), strict=True):
        writer = int(example.policy or 0) if way.reference == "logged" else 0
        (x,) = own.tree.context
        completions.append(own.with_reference([tables[writer, x, y] for (y,) in own.tree.continuations]))
    layout = Layout(completions, torch.ones(sum(map(len, completions)), dtype=torch.long))
    context = torch.tensor([each.tree.context[0] for each in completions for _ in each.tree.continuations])
    y = torch.tensor([ids[0] for each in completions for ids in each.tree.continuations])
    logits = torch.tensor(tables[0], requires_grad=True)
    optimiser, totals = torch.optim.Adam([logits], lr=RATE), method.totals(layout)
    for _ in range(STEPS):
        log_probs = logits.log_softmax(-1)
        squares = (2 * log_probs.detach()).logsumexp(-1)[context]
        optimiser.zero_grad()
        method.loss(Batch(layout, log_probs[context, y], totals, squares), values).backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    found: Floats = logits.detach().softmax(-1).numpy()
    return found


def _joint(shares: Floats) -> Floats:
    """Probabilities of the responses from those of each attribute [contexts, 3, 3]."""
    joint: Floats = np.prod([shares[:, a, RESPONSES[:, a]] for a in range(ATTRIBUTES)], axis=0)
    joint /= joint.sum(axis=1, keepdims=True)
    return joint
