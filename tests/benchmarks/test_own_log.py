"""Generations on their own log, here small: what is kept, who writes, and whose reference a row has."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import own_log, own_log_exact
from benchmarks.balanced_user import BalancedUser, get_editor
from benchmarks.own_log import LogSettings, Way
from benchmarks.own_log_exact import RESPONSES, World
from editloop.edits import read_log
from editloop.lab import get_domain

WAYS = {"SFT": Way("sft"), "DPO, logged": Way("dpo", "logged", own_log.STEP), "KTO, base": Way("kto")}


@pytest.fixture
def settings(base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> LogSettings:
    """Two generations of a tiny base, in this process; the user repairs some parts of well-formed emails."""

    def in_turn(work: Any, jobs: Sequence[Any], *_: Any) -> Iterator[tuple[Any, Any]]:
        return ((job, work(job)) for job in jobs)

    monkeypatch.setattr(own_log, "in_parallel", in_turn)
    monkeypatch.setattr(own_log, "base_path", lambda _: base())
    changes = (("lora", {"rank": 2}), ("max_new_tokens", 6), ("evaluations", 1))
    return LogSettings(
        tmp_path / "work",
        users=("medium",),
        exact_seeds=(1, 2),
        exact_rows=20,
        seeds=(1,),
        generations=2,
        rows=20,
        held=4,
        steps=2,
        batch=8,
        changes=changes,
    )


def test_each_policy_writes_the_rows_that_the_next_is_fitted_on(
    settings: LogSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str, int, dict[str, str]]] = []
    fit = own_log.fit

    def watched(records: Any, base: Any, out: Path, config: Any, *, policies: Any, **options: Any) -> Any:
        names = {each.policy for each in records}
        assert names == {"base"} | set(policies)
        places = {name: Path(place.run).parts[-3:-1] for name, place in policies.items()}
        seen.append((config.methods[0], config.reference, len(records), places))
        return fit(records, base, out, config, policies=policies, **options)

    monkeypatch.setattr(own_log, "fit", watched)
    data = own_log.run(tmp_path, settings=settings, ways=WAYS)
    # No draft of a tiny base is left as it was, so KTO has no rows of both kinds, and SFT takes its place.
    assert [(m, r, n) for m, r, n, _ in seen] == [
        ("sft", "base", 20),
        ("sft", "base", 40),
        ("dpo", "logged", 20),
        ("dpo", "logged", 40),
        ("kto", "base", 20),
        ("sft", "base", 20),
        ("kto", "base", 40),
        ("sft", "base", 40),
    ]
    assert seen[3][3] == {"generation-1": ("dpo-logged-1", "1")}
    found = data["users"]["medium"]
    assert found["KTO, base"]["by_sft"] == [0, 1, 1] and found["SFT"]["by_sft"] == [0, 0, 0]
    costs = found["DPO, logged"]["cost"]
    assert len(costs) == 3 and costs[0] == found["SFT"]["cost"][0]
    rows = read_log(settings.folder / "medium" / "dpo-logged-1" / "1" / "log.jsonl")
    assert {row.policy for row in rows} == {"generation-1"} and len(rows) == 20
    page = (tmp_path / "own-log.md").read_text(encoding="utf-8")
    assert "KTO, base in generation 1, 2" in page and (tmp_path / "own-log.png").is_file()
    written = json.loads((tmp_path / "own-log.json").read_text(encoding="utf-8"))
    assert written["users"]["medium"] == found

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(own_log, "fit", never)
    monkeypatch.setattr(own_log, "evaluate_on_users", never)
    assert own_log.run(tmp_path, settings=settings, ways=WAYS)["users"]["medium"] == found


def test_a_fit_has_the_same_steps_whatever_the_rows() -> None:
    settings = LogSettings()
    for rows in (150, 1234):
        config = settings.config("dpo", own_log.WAYS["DPO, logged"], 1, rows)
        assert config.epochs is not None
        assert round(config.epochs * rows / settings.batch) == settings.steps
    assert config.reference == "logged" and config.hyperparameters["dpo"]["beta"] == (1.0,)
    # SFT in place of KTO has its own learning rate.
    assert settings.config("sft", own_log.WAYS["KTO, base"], 1, 100).hyperparameters["sft"] == {
        name: (value,) for name, value in get_domain("email").tuned["sft"].items()
    }


def test_the_users_edits_leave_what_they_want_as_it_is() -> None:
    """Detailed balance by counting: as many steps from one value to another as back, if both are from π*."""
    domain = get_domain("email")
    user, context = BalancedUser(domain, seed=3), next(iter(domain.contexts(1)))
    wanted, values = domain.wanted(context), list(domain.attributes["layout"])
    steps: Counter[tuple[str, str]] = Counter()
    for i in range(3000):
        for value in values:
            draft = domain.render({**wanted, "layout": value})
            edit = domain.parse(user.edit(context, draft, round=i))
            assert edit is not None and all(edit[name] == wanted[name] for name in ("name", "day"))
            steps[value, edit["layout"]] += 1
    shares = {value: user.probability("layout", value, wanted["layout"]) for value in values}
    assert sum(shares.values()) == pytest.approx(1.0) and shares[wanted["layout"]] == 0.85
    for a, b in combinations(values, 2):
        forth, back = shares[a] * steps[a, b] / 3000, shares[b] * steps[b, a] / 3000
        error = math.hypot(shares[a] * steps[a, b] ** 0.5, shares[b] * steps[b, a] ** 0.5) / 3000
        assert forth > 0 and abs(forth - back) < 4 * error
    assert domain.parse(user.edit(context, "no email")) == wanted


def test_the_edits_of_a_user_are_repeatable() -> None:
    domain = get_domain("email")
    context = next(iter(domain.contexts(2)))
    draft = domain.render(domain.wanted(context))
    edits = [get_editor("balanced", domain, seed=seed).edit(context, draft) for seed in (1, 1, 2, 3, 4, 5)]
    assert edits[0] == edits[1] and len(set(edits)) > 1
    assert get_editor("medium", domain, seed=1).edit(context, draft) == draft


def test_where_every_quantity_is_known_only_the_writer_as_reference_reaches_the_goal() -> None:
    """DPO at β = 1, on rows of the base and of π*; with the base as reference, they contradict each other."""
    world = World.drawn(4)
    policies = [world.base, world.goal]
    log = [
        replace(example, policy=str(i))
        for i, policy in enumerate(policies)
        for example in own_log_exact._written(world, "balanced", policy, 4, i, 3000)
    ]
    assert world.distance(world.goal) == 0 and world.wrong(world.goal) == pytest.approx(0.15)
    right, between = (
        own_log_exact.learned(own_log_exact.EXACT_WAYS[name], log, policies)
        for name in ("DPO, logged", "DPO, base")
    )
    assert right is not None and between is not None
    assert world.wrong(right) < 0.25 and world.distance(right) < 0.2
    assert world.wrong(between) > 0.35 and world.distance(between) > 0.5


def test_the_tabular_base_and_users_are_what_they_should_be() -> None:
    world = World.drawn(2)
    assert world.base.sum(axis=1) == pytest.approx(np.ones(8)) and 0.7 < world.wrong(world.base) < 0.8
    generator = np.random.default_rng(0)
    (right,) = [y for y in range(27) if (RESPONSES[y] == world.wanted[0]).all()]
    assert world.edited("medium", 0, right, generator) == right
    # π* of the balanced user is left as it is: a draft from it and its edit have the same distribution.
    drafts = generator.choice(27, size=20_000, p=world.goal[0])
    edits = [world.edited("balanced", 0, int(y), generator) for y in drafts]
    shares = np.bincount(edits, minlength=27) / len(edits)
    error = np.sqrt(world.goal[0] * (1 - world.goal[0]) * 2 / len(edits))
    assert (np.abs(shares - world.goal[0]) < 4.5 * error).all()
