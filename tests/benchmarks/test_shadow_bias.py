"""The benchmark of the shadow's bias: comparisons whose result is plain, and a small run with its page."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks import shadow_bias
from benchmarks.shadow_bias import PAIRS, Job, Settings, compare, is_rejected, measure, run
from editloop.edits.cost import DEFAULT_COST
from editloop.lab import get_domain

SMALL: dict[str, Any] = {"seeds": (1,), "rows": 30, "steps": 3, "contexts": 24}


def drafted(job: Job, champion: str, new: str) -> dict[str, Any]:
    """Drafts of two policies, each of which writes what the user wants or something that is no email."""
    world = get_domain(job.domain)
    contexts = list(islice(world.contexts(1), job.settings.contexts))
    texts = {"right": [world.render(world.wanted(each)) for each in contexts]}
    texts["wrong"] = ["zz qq xx"] * len(contexts)
    drafts = {name: [[(text, True) for text in texts[kind]]] * 3 for name, kind in
              (("early", champion), ("twin", new))}  # fmt: skip
    weights = {"early twin": [0.0] * len(contexts)}  # as if both were one policy
    return {"contexts": contexts, "drafts": drafts, "log_weights": weights}


@pytest.mark.parametrize(
    ("champion", "new", "difference"),
    [("wrong", "right", -1.0), ("right", "wrong", 1.0), ("right", "right", 0.0)],
)
def test_where_users_rewrite_everything_all_ways_agree(champion: str, new: str, difference: float) -> None:
    job = Job("email", "strong", 1, Settings(**SMALL))
    found = compare(job, drafted(job, champion, new), "early", "twin", DEFAULT_COST)
    for name in ("true", "shadow", "naive"):
        assert found[name].shape == (24,)
        assert found[name].mean() == pytest.approx(difference, abs=0.1), name
    assert [a - b for a, b in found["costs"]] == pytest.approx(found["shadow"].tolist())
    weighed = found["weighed"]
    assert weighed.effective == pytest.approx(24) and weighed.logged == pytest.approx(
        1.0 if champion == "wrong" else 0.0, abs=0.1
    )


def test_the_rule_of_the_autopilot_rejects_what_is_far_worse() -> None:
    assert is_rejected([(0.6, 0.3)] * 60)
    assert not is_rejected([(0.33, 0.3)] * 60) and not is_rejected([(0.2, 0.3)] * 60)
    assert is_rejected([(0.6, 0.3)] * 20) and not is_rejected([(0.6, 0.3)] * 19)  # too few to say


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(folder=tmp_path_factory.mktemp("logs"), **SMALL)


def test_what_is_measured_is_kept(small: Settings) -> None:
    job = Job("email", "medium", 1, small)
    found = measure(job)
    assert measure(job) == found and set(found["drafts"]) == {"base", "few", "early", "twin"}
    assert all(len(drawn) == 24 for each in found["drafts"].values() for drawn in each)
    first, second = found["drafts"]["early"][:2]
    assert first != second
    assert set(found["log_weights"]["early early"]) == {0.0}
    assert max(map(abs, found["log_weights"]["base early"])) > 0.01


def test_a_run_has_a_line_for_each_pair(
    small: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shadow_bias, "in_parallel", lambda work, jobs, *_: ((job, work(job)) for job in jobs))
    run(tmp_path, kinds=("medium",), settings=small)
    data = json.loads((tmp_path / "shadow-bias.json").read_text())
    assert len(data["results"]) == 2 * len(PAIRS)
    same = data["results"][0]
    assert (same["champion"], same["new"], same["shadows"]) == ("early", "early", 0)  # 24 edits are none
    for each in data["results"]:
        assert each["bias"][0] == pytest.approx(each["shadow"][0] - each["true"][0])
    text = (tmp_path / "shadow-bias.md").read_text()
    assert text.count("| email, medium | early → twin |") == 2 and "the largest bias is" in text
