"""The benchmarks of the second write-up on cells whose answers are known by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from random import Random

import numpy as np
import pytest

from benchmarks import code, edit_sizes, weights, winrate, wrong_edits
from benchmarks.cells import Cell, TableSettings
from benchmarks.editors import get_editor
from benchmarks.filters import KEPT, keep_rows
from editloop.edits import Record
from editloop.errors import SandboxError
from editloop.lab import base_path, get_domain
from editloop.lab.code.language import render
from editloop.lab.domains.code import CODE
from editloop.policy import load_base
from editloop.progress import WarningCallback
from editloop.sandbox import Limits, Sandbox
from editloop.users import UnevenUser, WrongUser

Answer = Callable[[str, str], str]
"""A policy's answer to a context."""


def kept(folder: Path, cells: list[Cell], answer: Callable[[Cell, str, str], str], rounds: int) -> None:
    """Write cells whose policies answer by a function of the cell, the policy and the context."""
    for cell in cells:
        contexts = list(islice(cell.world.contexts(cell.seed, stream="online"), rounds))
        names = ("base", "sft", "dpo", "rl", "early", "mixture")
        responses = {name: [answer(cell, name, context) for context in contexts] for name in names}
        path = folder / cell.folder / "responses.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps({"contexts": contexts, "responses": responses, "seconds": 1.0}))


def as_it_was(context: str) -> str:
    return context.partition("\n")[2]


def right(context: str) -> str:
    return render(CODE.wanted(context))


def test_pass_at_1_and_costs_by_hand(tmp_path: Path, make_sandbox: Callable[..., Sandbox]) -> None:
    """SFT is right, DPO leaves everything as it is, RL writes no Python, Early an endless loop."""

    def answer(cell: Cell, name: str, context: str) -> str:
        endless = f"def {CODE.wanted(context)['name']}(*a):\n    while True: pass"
        shown = {"sft": right(context), "mixture": right(context), "rl": "I would be glad to help."}
        return shown.get(name, endless if name == "early" and cell.seed == 1 else as_it_was(context))

    settings = TableSettings(tmp_path / "work", seeds=(1, 2), rows=10, rounds=12)
    cells = [Cell("code", user, seed) for user in ("strong", "weak") for seed in (1, 2)]
    kept(settings.folder, cells, answer, settings.rounds)
    found = code.run(tmp_path, settings=settings, limits=Limits(seconds=1.0))
    for trained in ("strong", "weak"):
        strata = found["results"][trained]
        assert strata["all"]["sft"]["pass"] == [1.0, 1.0, 1.0]
        assert strata["all"]["sft"]["cost"] == [0.0, 0.0, 0.0]
        assert strata["refactor"]["dpo"]["pass"][0] == 1.0
        assert strata["modify"]["dpo"]["pass"][0] == 0.0
        assert strata["all"]["rl"]["pass"][0] == 0.0
        assert strata["all"]["early"]["pass"][0] < strata["all"]["dpo"]["pass"][0]
        arms = [strata["all"][arm] for arm in ("sft", "dpo", "rl", "early")]
        for late in (strata["all"]["late"], strata["all"]["default"]):
            assert min(arm["cost"][0] for arm in arms) < late["cost"][0] < max(arm["cost"][0] for arm in arms)
            assert 0 < late["pass"][0] < 1
    assert found["sandbox"]["timeout"] == 24
    assert found["sandbox"]["failed"] == 48  # no Python
    assert found["not of the language"] == [72, 0]
    page = (tmp_path / "code.md").read_text()
    assert "| SFT | 1.000 [1.000, 1.000]" in page
    # Verdicts are kept, and nothing is run again.
    assert code.run(tmp_path, settings=settings)["results"] == found["results"]


def test_without_a_sandbox_the_code_benchmark_does_not_begin(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(SandboxError, match="needs Linux"):
        code.run(tmp_path)


def test_an_interval_is_over_seeds_and_requests():
    values = np.array([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0]])
    mean, low, high = code._interval(values, np.ones((2, 4), bool)) or []
    assert mean == 0.75
    assert 0 < low < 0.75 < high == 1.0
    assert code._interval(np.full((2, 4), np.nan), np.ones((2, 4), bool)) is None


def spoiled(cell: Cell, context: str, parts: int) -> str:
    world = cell.world
    draft = dict(world.wanted(context))
    for name in list(world.attributes)[:parts]:
        draft[name] = next(v for v in world.attributes[name] if v != draft[name])
    return world.render(draft)


def test_wins_by_hand(tmp_path: Path) -> None:
    """SFT is always better than the base, DPO always worse, the others are as good."""
    parts = {"base": 2, "sft": 0, "dpo": 4, "rl": 2, "early": 2, "mixture": 2}
    settings = TableSettings(tmp_path / "work", seeds=(1,), rows=10, rounds=20)
    cells = [Cell(domain, "heavy", 1) for domain in ("email", "summary")]
    kept(settings.folder, cells, lambda cell, name, context: spoiled(cell, context, parts[name]), 20)
    for cell in cells:
        made = winrate.CellResponses(
            **json.loads((settings.folder / cell.folder / "responses.json").read_text())
        )
        wins = winrate._wins([(cell, made)])
        assert wins["sft"].mean() > 0.9
        assert wins["dpo"].mean() < 0.1
        assert wins["rl"].tolist() == [0.5] * 20
        assert 0.3 < wins["late"].mean() < 1


def test_the_break_even_is_where_a_line_meets_the_base():
    costs = {"0": (1.0, 0.2), "0.2": (1.0, 0.6), "0.4": (1.0, 1.4)}
    table = {p: {"base": [base, 0.0], "sft": [sft, 0.0], "rl": None} for p, (base, sft) in costs.items()}
    # The gain falls from .4 at .2 to −.4 at .4: it is 0 at .3.
    assert wrong_edits._break_even(table, "sft") == pytest.approx(0.3)
    assert wrong_edits._break_even(table, "rl") is None
    assert wrong_edits._break_even({"0": table["0"]}, "sft") is None
    assert wrong_edits._break_even({"0": table["0.4"]}, "sft") == 0


def test_filters_apply_where_they_can():
    assert wrong_edits._applies("tests", "code")
    assert not wrong_edits._applies("tests", "email")
    assert wrong_edits._applies("agreement", "email")
    assert wrong_edits._cell(("email", 0.3, "agreement"), 2) == Cell(
        "email", "strong-wrong.3", 2, kept="agreement"
    )
    assert wrong_edits._cell(("email", 0.0, ""), 2) == Cell("email", "strong", 2)


def test_editors_by_name():
    world = get_domain("email")
    wrong = get_editor("strong-wrong.3", world, seed=1)
    assert isinstance(wrong, WrongUser)
    assert (wrong.probability, wrong.name) == (0.3, "strong")
    uneven = get_editor("uneven.1", world, seed=1)
    assert isinstance(uneven, UnevenUser)
    assert (uneven.probability, uneven.usual.name, uneven.rare.name) == (0.1, "weak", "strong")
    assert get_editor("medium", world, seed=1).name == "medium"


def wrong_log(domain: str, n: int) -> tuple[list[Record], list[bool]]:
    """Rows of a strong user who makes mistakes, and which of them are wrong."""
    world = get_domain(domain)
    someone = get_editor("strong-wrong.3", world, seed=3)
    rows, wrong = [], []
    for i, context in enumerate(islice(world.contexts(3), n)):
        draft = world.wanted(context) if i % 2 else world.redraw(world.read(context), 0.3, Random(i))
        response = world.render(draft)
        edit = someone.edit(context, response)
        rows.append(Record(id=str(i), context=context, response=response, edit=edit, user="strong"))
        wrong.append(someone.is_wrong(context, response))
    return rows, wrong


@pytest.mark.parametrize("name", ["agreement", "predicted", "tests"])
def test_a_filter_leaves_out_more_wrong_rows_than_right_ones(name: str) -> None:
    domain = "code" if name == "tests" else "email"
    rows, wrong = wrong_log(domain, 120)
    base = load_base(base_path("email"))
    left = keep_rows(name, rows, "strong-wrong.3", get_domain(domain), base)
    assert [row.id for row in left] == sorted((row.id for row in left), key=int)
    if name != "tests":
        assert len(left) == round(KEPT * len(rows))
    ids = {row.id for row in left}
    kept_wrong = np.mean([row.id in ids for row, bad in zip(rows, wrong, strict=True) if bad])
    kept_right = np.mean([row.id in ids for row, bad in zip(rows, wrong, strict=True) if not bad])
    assert kept_wrong < kept_right


def test_weights_by_hand() -> None:
    """Of two policies the first is likelier on three quarters of the rows, and costs less on all."""
    log_probs = np.log(np.array([[0.9, 0.1]] * 30 + [[0.1, 0.9]] * 10))
    costs = np.array([[0.2, 0.4], [0.3, 0.5]] * 20)
    uniform = np.array([0.5, 0.5])
    free = weights.fitted(log_probs, costs, weights.Way("likelihood", "uniform", 0.0), uniform)
    # α .9 + (1 − α) .1 on 30 rows, α .1 + (1 − α) .9 on 10: the maximum is at (30/40 − .1) / .8.
    assert free[0] == pytest.approx(0.8125, abs=1e-3)
    shrunk = weights.fitted(log_probs, costs, weights.Way("likelihood", "uniform", 1000.0), uniform)
    assert 0.5 < shrunk[0] < 0.52
    assert weights.fitted(log_probs, costs, weights.Way("cost", "uniform", 0.0), uniform).tolist() == [
        1.0,
        0.0,
    ]
    soft = weights.fitted(log_probs, costs, weights.Way("cost", "uniform", 1e6), uniform)
    assert 0.5 < soft[0] < 0.6


def test_the_spread_of_weights_falls_with_rows_and_with_shrinkage() -> None:
    generator = np.random.default_rng(0)
    log_probs = np.log(generator.uniform(0.2, 1.0, (400, 3)))
    tables = weights.Tables(("dpo", "sft", "rl"), log_probs, generator.uniform(0, 1, (400, 3)))
    found = weights._judged(tables, [tables], (10, 100), 12)
    spread = {way: [np.mean(by[n]["sd"]) for n in ("10", "100")] for way, by in found["ways"].items()}
    assert spread["likelihood"][1] < spread["likelihood"][0]
    assert spread["likelihood, 30 rows toward uniform"][0] < spread["likelihood"][0] / 2
    assert spread["cost, 30 rows toward uniform"][0] < spread["cost"][0]
    for by_size in found["ways"].values():
        assert sum(by_size["10"]["weights"]) == pytest.approx(1)


def test_edit_sizes_are_measured_and_resumed(tmp_path: Path) -> None:
    fits = (
        edit_sizes.Fit("edits", (("methods", ("sft",)),)),
        edit_sizes.Fit("rl-1", (("methods", ("cost_gradient",)),)),
    )
    settings = TableSettings(
        tmp_path / "work", seeds=(1,), rows=30, rounds=8, changes=(("epochs", 1.0), ("validation_samples", 0))
    )
    found = edit_sizes.run(tmp_path, settings=settings, fits=fits, callback=WarningCallback())
    uneven, strong = found["sizes"]["uneven.1"], found["sizes"]["strong"]
    assert uneven["variation"] > strong["variation"]
    for user in edit_sizes.USERS:
        assert found["results"][user]["sft"] is not None
        assert found["results"][user]["rl, κ 1"] is None
    assert edit_sizes.run(tmp_path, settings=settings, fits=fits)["results"] == found["results"]
