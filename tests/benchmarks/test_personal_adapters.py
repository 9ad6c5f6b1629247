"""The benchmark of personal adapters: users of different taste, a small run, and its page."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from benchmarks.personal_adapters import OWN, STARTS, Person, PersonalSettings, Pool, run, taste
from benchmarks.personal_adapters_page import cautious, enough, personal_page
from editloop.errors import RunError
from editloop.lab import get_domain
from editloop.policy import RunFolder, arm_name

SMALL: dict[str, Any] = {
    "kinds": ("strong",),
    "seeds": (1,),
    "pool": 2,
    "pool_rows": 6,
    "users": 1,
    "edits": (5, 10),
    "held": 4,
    "steps": 2,
    "batch": 4,
    "changes": (("evaluations", 1), ("lora", {"rank": 2, "alpha": 4})),
}


def test_a_user_wants_some_values_of_their_own_whatever_the_kind() -> None:
    domain = get_domain("email")
    own = [taste(domain, key) for key in range(30)]
    for each in own:
        for context in islice(each.contexts(0), 20):
            wanted, usual = each.wanted(context), domain.wanted(context)
            assert sum(wanted[name] != usual[name] for name in wanted) <= OWN
            assert each.parse(each.render(wanted)) == wanted
        moved = {
            name for name in domain.attributes if len({style[name] for style in each.styles.values()}) == 1
        }
        assert len(moved) >= OWN
    assert len({each.fingerprint for each in own}) > 20
    assert taste(domain, 3).styles == own[3].styles


def test_nobody_is_in_the_pool_and_measured() -> None:
    settings = PersonalSettings()
    for seed in settings.seeds:
        pool = {1000 * seed + number for number in range(settings.pool)}
        keys = {Person(Pool("strong", seed, settings), number).key for number in range(settings.users)}
        assert len(keys) == settings.users and not keys & pool


@pytest.mark.usefixtures("one_process")
def test_a_run_is_kept_and_read_again(tmp_path: Path) -> None:
    settings = PersonalSettings(folder=tmp_path / "work", **SMALL)
    data = run(tmp_path, settings=settings)
    costs = data["kinds"]["strong"]["cost"]
    assert set(costs) == {"base", "pooled", *(f"{start}-{n}" for start in STARTS for n in settings.edits)}
    assert all(len(each) == 1 and 0 <= each[0] < 5 for each in costs.values())
    user = settings.folder / "strong-1" / "user-0"
    pooled = arm_name(RunFolder(settings.folder / "strong-1" / "run"), "sft")
    assert RunFolder(user / "pooled-5").manifest().start == pooled
    assert RunFolder(user / "base-5").manifest().start is None
    before = (user / "pooled-10" / "run.json").stat().st_mtime_ns
    assert run(tmp_path, settings=settings)["kinds"] == data["kinds"]
    assert (user / "pooled-10" / "run.json").stat().st_mtime_ns == before
    page = (tmp_path / "personal-adapters.md").read_text()
    assert "## strong users (1)" in page and "| 10 |" in page and "![personal-adapters]" in page
    assert json.loads((tmp_path / "personal-adapters.json").read_text())["kinds"] == data["kinds"]
    with pytest.raises(RunError, match="another pool"):
        run(tmp_path, settings=settings._replace(held=5))


def test_from_how_many_edits_on_counts_from_the_end() -> None:
    kind = {
        "cost": {
            "pooled": [0.5, 0.6, 0.7],
            "base": [0.8, 0.8, 0.8],
            "pooled-10": [0.3, 0.4, 0.5],  # by chance: more edits are worse again
            "pooled-20": [0.4, 0.7, 0.7],
            "pooled-40": [0.3, 0.35, 0.4],
            "pooled-80": [0.2, 0.3, 0.4],
            **{f"base-{n}": [0.9, 0.9, 0.9] for n in (10, 20, 40, 80)},
        },
        "improved": {str(n): [True, False, True] for n in (10, 20, 40, 80)},
    }
    kind["strong_cost"] = kind["cost"]
    assert enough(kind, (10, 20, 40, 80), "pooled") == 40
    assert enough(kind, (10, 20, 40, 80), "base") is None
    assert cautious(kind, 20).tolist() == [0.4, 0.6, 0.7]
    settings = {"domain": "email", "pool": 2, "pool_rows": 3, "users": 3, "held": 9, "steps": 1, "batch": 1}
    data = {
        "cost_name": "words",
        "own": 2,
        "seeds": [1],
        "settings": {**settings, "edits": [10, 20, 40, 80]},
        "kinds": {"weak": {**kind, "users": [[1, 0], [1, 1], [1, 2]]}},
    }
    page = personal_page(data)
    assert "begins at the pooled one costs less than the pooled one from 40 edits on" in page
    assert "begins at the base is at no number of edits shown to cost less" in page
    assert "judged by a strong user" in page and "| 3 of 3 |" in page
