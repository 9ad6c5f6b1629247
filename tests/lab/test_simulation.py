"""The online phase: rounds are played, kept, resumed, and not lost."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.edits import get_cost
from editloop.errors import BudgetError, RunError, UserError
from editloop.lab import Simulation, base_path, get_domain, make_log, plot_rounds, simulate, simulation
from editloop.offline import FitConfig, fit, rerank
from editloop.online import BanditConfig
from editloop.policy import ContextTree, Policy, RunFolder, load_base
from editloop.users import DriftingUser, StyleUser, User, get_user
from small_log import RecordingCallback

EMAIL = get_domain("email")
CONTEXTS = list(islice(EMAIL.contexts(0, stream="online"), 12))


@pytest.fixture(scope="module")
def lab_base() -> Policy:
    return load_base(base_path("email"), device="cpu")


@pytest.fixture(scope="module")
def run(lab_base: Policy, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    log = make_log(EMAIL, get_user("strong", EMAIL), 40, 3, policy=lab_base)
    config = FitConfig(
        methods=["sft", "dpo"],
        epochs=1,
        validation_samples=0,
        hyperparameters={name: {"learning_rate": 1e-3} for name in ("sft", "dpo")},
    )
    return fit(log, lab_base, tmp_path_factory.mktemp("simulated") / "run", config)


def play(run: RunFolder, base: Policy, out: Path, user: User | None = None, **options: object) -> Simulation:
    someone = user or get_user("strong", EMAIL)
    return simulate(run, base, CONTEXTS, someone, out, **options)  # type: ignore[arg-type]


def test_rounds_are_played_and_kept_with_costs(run: RunFolder, lab_base: Policy, tmp_path: Path) -> None:
    result = play(run, lab_base, tmp_path)
    assert {each.arm for each in result.rounds[:2]} == {"sft", "dpo"}
    assert {each.arm for each in result.rounds} <= {"sft", "dpo"}
    for played in result.rounds:
        assert played.edit is not None
        assert played.cost == pytest.approx(float(get_cost()([played.response], [played.edit])[0]))
    assert result.mean == pytest.approx(sum(result.costs) / 12)
    tallies = [result.bandit.state.tally("", arm) for arm in ("sft", "dpo")]
    assert sum(tally.observed for tally in tallies) == 12
    assert sum(tally.cost for tally in tallies) == pytest.approx(sum(result.costs))
    kept = [json.loads(line) for line in (tmp_path / "rounds.jsonl").read_text().splitlines()]
    assert [row["cost"] for row in kept] == [each.cost for each in result.rounds]
    left, right = plot_rounds(result).axes
    assert left.lines[0].get_ydata()[-1] == pytest.approx(result.mean)
    assert sum(line.get_ydata()[-1] for line in right.lines) == pytest.approx(1)


def test_of_several_drafts_the_one_with_the_least_predicted_cost_is_shown(
    run: RunFolder, lab_base: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cost model stands in whose predicted cost is the number of tokens."""
    plain = play(run, lab_base, tmp_path / "plain")
    seen = RecordingCallback()
    declined = play(run, lab_base, tmp_path / "declined", best_of=3, callback=seen)
    assert any("one draft in place of 3: the run has no cost model" in line for line in seen.lines)
    assert declined.rounds == plain.rounds

    def tokens(run: RunFolder, base: Policy, trees: Sequence[ContextTree], **_: object) -> tuple[Any, Any]:
        lengths = np.array([len(each) for tree in trees for each in tree.continuations], np.float64)
        return lengths, np.zeros(len(lengths))

    for module in (rerank, simulation):
        monkeypatch.setattr(module, "no_reranking", lambda run: None)
    monkeypatch.setattr(rerank, "predicted_costs", tokens)
    best = play(run, lab_base, tmp_path / "best", best_of=3)
    count = lab_base.encoder.tokenize
    for played in best.rounds:
        assert len(played.drafts) == len(played.bounds) == 3 and played.response in played.drafts
        assert len(count([played.response])[0]) == min(len(ids) for ids in count(list(played.drafts)))
    assert play(run, lab_base, tmp_path / "best", best_of=3).rounds == best.rounds
    with pytest.raises(RunError, match="another simulation"):
        play(run, lab_base, tmp_path / "best", best_of=2)


def test_a_killed_simulation_goes_on_to_the_same_end(
    run: RunFolder, lab_base: Policy, tmp_path: Path
) -> None:
    whole = play(run, lab_base, tmp_path / "whole")
    played = []

    def stop(each: object) -> None:
        played.append(each)
        if len(played) == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(run, lab_base, tmp_path / "cut", on_round=stop)
    with (tmp_path / "cut/rounds.jsonl").open("a") as file:
        file.write('{"number": 5, "arm": "sf')
    resumed = play(run, lab_base, tmp_path / "cut", on_round=played.append)
    assert resumed.rounds == whole.rounds
    assert tuple(played) == whole.rounds
    assert resumed.bandit.to_json() == whole.bandit.to_json()
    assert (tmp_path / "cut/rounds.jsonl").read_bytes() == (tmp_path / "whole/rounds.jsonl").read_bytes()


def test_another_simulation_in_the_folder_is_refused(
    run: RunFolder, lab_base: Policy, tmp_path: Path
) -> None:
    play(run, lab_base, tmp_path, arms=["base"])
    with pytest.raises(RunError, match="holds another simulation"):
        play(run, lab_base, tmp_path, arms=["base"], seed=1)
    (tmp_path / "rounds.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match=r"rounds\.jsonl is damaged"):
        play(run, lab_base, tmp_path, arms=["base"])
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"settings\.json is damaged"):
        play(run, lab_base, tmp_path, arms=["base"])


class Absent:
    """A user who does not answer some rounds."""

    name = "absent"

    settings: Mapping[str, object] = {"name": "absent"}

    def __init__(self, rounds: set[int], error: type[UserError] = UserError) -> None:
        self.rounds, self.error = rounds, error

    def edit(self, context: str, response: str, *, round: int = 0) -> str:
        if round in self.rounds:
            raise self.error("nobody is there")
        return response


def test_a_round_without_an_answer_is_passed_over(run: RunFolder, lab_base: Policy, tmp_path: Path) -> None:
    result = play(run, lab_base, tmp_path, Absent({1, 2, 4}), arms=["base"])
    assert [each.number for each in result.rounds if each.cost is None] == [1, 2, 4]
    tally = result.bandit.state.tally("", "base")
    assert (tally.observed, tally.pending, tally.cost) == (9, 0, 0)


def test_a_user_who_is_gone_ends_it_and_what_was_played_is_kept(
    run: RunFolder, lab_base: Policy, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="nobody is there"):
        play(run, lab_base, tmp_path, Absent(set(range(3, 12))), arms=["base"])
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 3
    result = play(run, lab_base, tmp_path, Absent(set()), arms=["base"])
    assert len(result.costs) == 12  # those that had no answer were asked again


def test_a_spent_budget_ends_it_at_once(run: RunFolder, lab_base: Policy, tmp_path: Path) -> None:
    with pytest.raises(BudgetError):
        play(run, lab_base, tmp_path, Absent({3}, BudgetError), arms=["base"])
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 3


def test_a_simulation_that_played_nothing_does_not_hold_its_folder(
    run: RunFolder, lab_base: Policy, tmp_path: Path
) -> None:
    with pytest.raises(UserError):
        play(run, lab_base, tmp_path, Absent(set(range(12))), arms=["base"])
    assert len(play(run, lab_base, tmp_path, arms=["base"]).costs) == 12


def test_users_who_differ_in_anything_do_not_share_a_folder(
    run: RunFolder, lab_base: Policy, tmp_path: Path
) -> None:
    weak, strong = get_user("weak", EMAIL), get_user("strong", EMAIL)
    users = [
        DriftingUser(weak, strong, start=3),
        DriftingUser(weak, strong, start=4),
        StyleUser(EMAIL, repair=0.5, name="weak to strong"),
        StyleUser(EMAIL.shifted(), repair=0.5, name="weak to strong"),
    ]
    play(run, lab_base, tmp_path, users[0], arms=["base"])
    play(run, lab_base, tmp_path, users[0], arms=["base"])
    for other in users[1:]:
        with pytest.raises(RunError, match="holds another simulation"):
            play(run, lab_base, tmp_path, other, arms=["base"])


def test_a_run_without_policies_or_with_another_base_is_refused(
    run: RunFolder, lab_base: Policy, base: object, tmp_path: Path
) -> None:
    with pytest.raises(RunError, match=r"no such policy in the run: \['rl'\]"):
        play(run, lab_base, tmp_path / "a", arms=["rl"])
    other = load_base(base(chat=True), device="cpu")  # type: ignore[operator]
    with pytest.raises(RunError, match="not the one that the adapters were trained on"):
        play(run, other, tmp_path / "b")
    empty = RunFolder(tmp_path / "empty")
    empty.path.mkdir()
    empty.write_manifest(run.manifest().model_copy(update={"policies": {}}))
    with pytest.raises(RunError, match="the run has no policies"):
        play(empty, lab_base, tmp_path / "c")


def test_one_policy_and_fewer_rounds_than_arms(run: RunFolder, lab_base: Policy, tmp_path: Path) -> None:
    one = play(run, lab_base, tmp_path / "one", arms=["sft"], config=BanditConfig(algorithm="thompson"))
    assert one.share("sft") == 1
    short = simulate(run, lab_base, CONTEXTS[:1], get_user("weak", EMAIL), tmp_path / "short")
    assert len(short.rounds) == 1
