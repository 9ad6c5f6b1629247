"""Protocol 1, online: LateEnsemble chooses among the policies of a run while a user edits, round by round.

Every round is a line in `rounds.jsonl` before the next begins, so that a simulation that was killed goes on
where it stopped. Only rounds that the user did not answer wait for the next answer before they are written.
Round t has the same context whichever policy is chosen, and a policy's response to it depends on the seed
alone, so that simulations with one seed can be compared round by round.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from editloop.edits import Context, context_text, get_cost
from editloop.errors import BudgetError, RunError, UserError
from editloop.journal import append_rows, read_rows
from editloop.lab.folder import claim
from editloop.lab.grammar import MAX_NEW_TOKENS
from editloop.offline import BestOf, Reranked, no_reranking
from editloop.offline.plots import colour_of, tidy
from editloop.online import Bandit, BanditConfig, Decided
from editloop.policy import Policy, RunFolder
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.users import User

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Round", "Simulation", "plot_rounds", "simulate"]

MOST_FAILURES = 5
"""Rounds in a row without an answer, after which a simulation stops. They are played again."""


@dataclass(frozen=True)
class Round:
    """A round of the online phase.

    Attributes:
        number: From 0.
        arm: The policy that was chosen.
        propensity: The probability with which it was chosen; None if the algorithm does not draw.
        context: The context, as text.
        response: The policy's response.
        edit: The user's edit of it; None if the user could not answer.
        cost: The cost of the edit; None if there is none, and the round is not counted.
        drafts: All drafts of which the response was chosen; empty if there was no choice.
        bounds: The predicted cost of each of them, by which they were compared; None if it was not.
    """

    number: int
    arm: str
    propensity: float | None
    context: str
    response: str
    edit: str | None
    cost: float | None
    drafts: tuple[str, ...] = ()
    bounds: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Simulation:
    """The rounds of a simulation, and the bandit that played them."""

    rounds: tuple[Round, ...]
    bandit: Bandit

    @property
    def costs(self) -> list[float]:
        """The costs of the rounds that the user answered."""
        return [each.cost for each in self.rounds if each.cost is not None]

    @property
    def mean(self) -> float:
        """The mean cost of a round that the user answered; NaN if there is none."""
        return sum(self.costs) / len(self.costs) if self.costs else float("nan")

    def mean_of(self, arm: str) -> float | None:
        """The mean cost of an arm's rounds that the user answered; None if there is none."""
        costs = [each.cost for each in self.rounds if each.arm == arm and each.cost is not None]
        return sum(costs) / len(costs) if costs else None

    def share(self, arm: str) -> float:
        """The share of the rounds that an arm played."""
        return sum(each.arm == arm for each in self.rounds) / max(len(self.rounds), 1)


def simulate(
    run: RunFolder,
    base: Policy,
    contexts: Sequence[Context],
    user: User,
    out: Path,
    *,
    arms: Sequence[str] | None = None,
    config: BanditConfig | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    seed: int = 0,
    best_of: int = 1,
    callback: ProgressCallback | None = None,
    on_round: Callable[[Round], None] | None = None,
) -> Simulation:
    """Play a round for each context, or the rounds that are left in a folder that holds some.

    It is in one piece because a round must be written before the next one begins.

    Args:
        run: The run whose policies are the arms.
        base: The base that they were trained on.
        contexts: The contexts, one for each round.
        user: Who edits.
        out: The folder for `rounds.jsonl`, and for `settings.json`, which records what is played.
        arms: The names of policies, which may include `base` and `mixture`; by default all that were trained.
        config: How an arm is chosen, and the cost of an edit.
        max_new_tokens: The most tokens of a response.
        seed: The seed of the responses.
        best_of: How many drafts an arm writes, of which the one with the least predicted cost is its response
            (`editloop.offline.rerank`); one if the run's cost model has not earned to choose.
        callback: Receives progress.
        on_round: Called with each round after it was played.

    Raises:
        RunError: The run has no policies, or not the named ones, or the folder holds another simulation.
        UserError: The user could not answer several rounds in a row, or a budget is spent. The rounds
            before are kept.
    """
    callback, config = callback or WarningCallback(), config or BanditConfig()
    cost = get_cost(config.cost, tokenize=base.encoder.tokenize)
    arms = list(arms or run.policy_names())
    if not arms:
        raise RunError("the run has no policies", seen=str(run.path), do="fit some first")
    if unknown := set(arms) - set(run.arm_names()):
        raise RunError("no such policy in the run", seen=sorted(unknown), do=f"use {run.arm_names()}")
    bandit = Bandit(arms, config)
    _claim(out, run, bandit, user, len(contexts), seed, max_new_tokens, best_of)
    if best_of > 1 and (objection := no_reranking(run)):
        callback.warn(f"one draft in place of {best_of}: {objection}")
    texts = [context_text(context) for context in contexts]
    rounds = _resume(out / "rounds.jsonl", bandit, texts)
    responses: dict[str, list[Reranked]] = {}
    # Rounds without an answer are written only when a later answer shows that the user is still there. If
    # none comes, the simulation stops, and they are played again when it goes on.
    unanswered: list[Round] = []
    for number in range(len(rounds), len(contexts)):
        context = texts[number]
        decision = bandit.decide(str(number), context=context)
        # An arm answers all contexts when it is first chosen, though some of the responses will not be used:
        # sampling in batches is many times faster than round by round, an adapter is loaded once, and the
        # response to a context does not depend on the rounds in which the arm is chosen.
        if decision.arm not in responses:
            callback.message(f"{decision.arm} answers {len(contexts)} contexts")
            responses[decision.arm] = BestOf(run, base, [decision.arm], best_of).reranked(
                contexts,
                seed=seed,
                max_new_tokens=max_new_tokens,
                progress=counter(callback, f"drafts of {decision.arm}", len(contexts)),
            )
        written = responses[decision.arm][number]
        response = written.sample.text
        drafts = tuple(draft.text for draft in written.drafts) if len(written.drafts) > 1 else ()
        bounds = tuple(None if math.isnan(bound) else bound for bound in written.bounds[: len(drafts)])
        edit: str | None = None
        try:
            edit = user.edit(context, response, round=number)
        except BudgetError:  # a UserError as well, but it would come back in every round
            raise
        except UserError as error:
            callback.message(f"round {number + 1} has no answer: {error}")
            if len(unanswered) + 1 == MOST_FAILURES:
                raise
        incurred = None if edit is None else float(cost([response], [edit])[0])
        played = Round(
            number, decision.arm, decision.propensity, context, response, edit, incurred, drafts, bounds
        )
        _observe(bandit, played)
        unanswered.append(played)
        if edit is not None or number + 1 == len(contexts):
            append_rows(out / "rounds.jsonl", map(asdict, unanswered))
            unanswered = []
        rounds.append(played)
        if on_round is not None:
            on_round(played)
        callback.progress("rounds", number + 1, len(contexts))
    return Simulation(tuple(rounds), bandit)


def _claim(
    out: Path,
    run: RunFolder,
    bandit: Bandit,
    user: User,
    rounds: int,
    seed: int,
    max_new_tokens: int,
    best_of: int,
) -> None:
    """Write down what is played in a folder, or check that the folder holds rounds of just that.

    Raises:
        RunError: The folder holds another simulation.
    """
    mixture = run.manifest().mixture
    settings = {
        "run": run.manifest().identity,
        "arms": list(bandit.arms),
        "user": dict(user.settings),
        "bandit": bandit.config.model_dump(mode="json"),
        "rounds": rounds,
        "seed": seed,
        "max_new_tokens": max_new_tokens,
        **({"best_of": best_of} if best_of > 1 else {}),
        **({"mixture": mixture.weights} if mixture and "mixture" in bandit.arms else {}),
    }
    if not (out / "rounds.jsonl").exists():
        (out / "settings.json").unlink(missing_ok=True)  # left by a simulation that played no round
    elif not (out / "settings.json").exists():
        raise RunError("the folder holds rounds of another simulation", seen=str(out), do="choose another")
    claim(out, "simulation", settings)


def plot_rounds(simulation: Simulation) -> Figure:
    """The running mean cost, and the share of the rounds that each arm has played, by round."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.6, 2.9), dpi=160, layout="constrained")
    left, right = figure.subplots(1, 2)
    counted = [each for each in simulation.rounds if each.cost is not None]
    numbers = [each.number + 1 for each in counted]
    left.plot(numbers, _running([each.cost or 0.0 for each in counted]), color="#333")
    for arm in simulation.bandit.arms:
        shares = _running([float(each.arm == arm) for each in simulation.rounds])
        right.plot(range(1, len(shares) + 1), shares, color=colour_of(arm), label=arm)
    right.set_ylim(0, 1)
    right.legend(fontsize=8, frameon=False)
    tidy(left, "mean cost so far", "round")
    tidy(right, "share of the rounds so far", "round")
    left.set_ylim(bottom=0)
    return figure


def _running(values: Sequence[float]) -> list[float]:
    """The means of the first one, two, three ... values."""
    return [total / (i + 1) for i, total in enumerate(accumulate(values))]


def _observe(bandit: Bandit, played: Round) -> None:
    """Count a round's cost, or that none will come, so that the pull does not stay in N."""
    if played.cost is None:
        bandit.expired(str(played.number))
    else:
        bandit.edited(str(played.number), played.cost)


def _resume(path: Path, bandit: Bandit, contexts: Sequence[str]) -> list[Round]:
    """The rounds of a file, after the bandit has learned from them."""
    try:
        lists = ("drafts", "bounds")  # JSON has no tuples
        rounds = [
            Round(**row | {key: tuple(row[key]) for key in lists if key in row})
            for row in read_rows(path, RunError)
        ]
    except TypeError as error:
        raise RunError("rounds.jsonl is damaged", seen=str(path), do="choose another folder") from error
    same = all(played.number == i for i, played in enumerate(rounds))
    if (
        not same
        or len(rounds) > len(contexts)
        or any(played.context != contexts[played.number] for played in rounds)
    ):
        raise RunError("the folder holds rounds of another simulation", seen=str(path), do="choose another")
    # The choices of the file are replayed, not made anew: the fold over the same events gives the same state.
    for played in rounds:
        key, features = str(played.number), bandit.features_of(played.context)
        bandit.state.apply(Decided(key, "", played.arm, played.propensity, bandit.state.epoch, features))
        _observe(bandit, played)
    return rounds
