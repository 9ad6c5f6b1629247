"""The benchmarks of costs and RL on cells with known costs, and that of quality on made-up translations."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import costs, quality, rl
from benchmarks.cells import ARMS, COLUMNS, Cell, TableSettings
from editloop.errors import ConfigError
from editloop.policy import RunFolder
from editloop.progress import WarningCallback
from small_run import make_manifest

ROUNDS = 20
WRONG = {"base": 4, "sft": 0, "dpo": 3, "rl": 2, "early": 1, "mixture": 1}
"""How many attributes of the style each policy has wrong."""


def make(cell: Cell, folder: Path) -> None:
    """Write a cell's responses, and a manifest with what the benchmarks read of its run."""
    contexts = list(islice(cell.world.contexts(cell.seed, stream="online"), ROUNDS))
    responses = {}
    for name, parts in WRONG.items():
        responses[name] = []
        for context in contexts:
            draft = dict(cell.world.wanted(context))
            for attribute in list(cell.world.attributes)[:parts]:
                draft[attribute] = next(v for v in cell.world.attributes[attribute] if v != draft[attribute])
            responses[name].append(cell.world.render(draft))
    place = folder / cell.folder
    (place / "run").mkdir(parents=True)
    content = {"contexts": contexts, "responses": responses, "seconds": 1.0}
    (place / "responses.json").write_text(json.dumps(content))
    rows: dict[str, Any] = {"rows": 20, "covered": [0.5, 0.8, 1.0]}
    predicted = {**rows, "r2": 0.5 if cell.trained == "heavy" else None, "pearson": 0.7}
    manifest = make_manifest(
        mixture={"weights": {"sft": 0.75, "rl": 0.25 if cell.seed == 1 else 0.15, "early": 0.0}},
        policies={arm: {"trials": [{"validation_cost": 0.1 * WRONG[arm] + 0.2}]} for arm in ARMS},
        cost_model={
            "kind": "ridge",
            "settings": {},
            "unit": 1.0,
            "model": predicted,
            "length": {**rows, "r2": 0.1},
            "mean": rows,
        },
    )
    RunFolder(place / "run").write_manifest(manifest)


def test_the_ranking_by_each_cost(tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers")
    settings = TableSettings(tmp_path / "work", seeds=(1,), rounds=ROUNDS)
    for column in COLUMNS:
        make(Cell(*column, 1), settings.folder)
    data = costs.run(tmp_path, settings=settings)
    assert set(data["results"]) == {*costs.COSTS, "semantic"}
    for name, by_column in data["results"].items():
        for title, means in by_column.items():
            assert means["sft"] == 0, (name, title)
            assert means["early"] == means["mixture"]
            assert 0 <= means["early"] < means["base"], (name, title)
            assert data["agreement"][name][title] > 0.5
    assert data["agreement"][costs.PAPER_COST]["emails, weak"] == pytest.approx(1)
    text = (tmp_path / "costs.md").read_text()
    assert "## emails, strong" in text and "| levenshtein:char/response |" in text
    assert "0.000 (1)" in text and "not a trained sentence encoder" in text


def test_agreement_of_rankings_by_hand() -> None:
    one, other = {"a": 1.0, "b": 2.0, "c": 3.0}, {"a": 1.0, "b": 3.0, "c": 2.0}
    assert costs.rank_correlation(one, one) == pytest.approx(1)
    assert costs.rank_correlation(one, other) == pytest.approx(1 / 3)  # one pair of three turns


def test_what_rl_adds(tmp_path: Path) -> None:
    work = tmp_path / "work"
    for folder in ("100", "40", *(f"40-{i}" for i in range(len(rl.VARIANTS)))):
        for user in rl.USERS:
            for seed in (1, 2):
                make(Cell(rl.DOMAIN, user, seed), work / folder)
    data = rl.run(
        tmp_path,
        folder=work,
        seeds=(1, 2),
        rounds=ROUNDS,
        log_sizes=(40, 100),
        varied=40,
        callback=WarningCallback(),
    )
    figures = data["results"]["heavy"]["100"]
    assert figures["sft"][0] == 0 < figures["early"][0] < figures["rl"][0] < figures["base"][0]
    assert figures["RL adds"][0] == pytest.approx(figures["late without RL"][0] - figures["late"][0])
    assert figures["RL adds"][0] <= 0  # the worse arm costs rounds
    assert figures["R²"] == (0.5, 0.0)
    variants = data["variants"]["weak"]
    assert variants["SFT + DPO + RL"][0] == pytest.approx(figures["early"][0])
    assert variants["pairwise, κ 2"][0] == pytest.approx(figures["rl"][0])
    weights = data["weights"]["light"]
    assert list(weights) == list(ARMS)
    assert weights["rl"][0] == pytest.approx(0.2) and weights["dpo"] == (0.0, 0.0)
    assert data["results"]["weak"]["40"]["R²"] is None
    mixtures = data["mixture_costs"]["heavy"]
    assert mixtures["by cost"][0] == pytest.approx(0.2)  # SFT's
    assert mixtures["by likelihood"][0] == pytest.approx(0.75 * 0.2 + 0.2 * 0.4)
    text = (tmp_path / "rl.md").read_text()
    assert "| weak, 40 | – | 0.700 ± 0.000 |" in text
    assert "| heavy, 100 |" in text and "SFT 0.72" in text
    assert (tmp_path / "rl.png").stat().st_size > 10_000


def test_quality_is_measured_on_translations(tmp_path: Path) -> None:
    """The more `um` a source has, the more words its translation gets wrong."""
    random = np.random.default_rng(0)
    for pair in quality.PAIRS:
        for part, rows in (("train", 120), ("test", 60)):
            lines = ["src\tmt\tpe\thter"]
            for i in range(rows):
                words = [f"word{random.integers(30)}" for _ in range(random.integers(3, 9))]
                bad = int(random.integers(0, len(words)))
                draft = ["um"] * bad + words[bad:]
                lines.append(f"sursa {i}\t{' '.join(draft)}\t{' '.join(words)}\t{bad / len(words):.6f}")
            (tmp_path / f"mlqe_pe.{pair}.{part}.tsv").write_text("\n".join(lines) + "\n")
    data = quality.run(tmp_path, data=tmp_path, work=tmp_path / "work", minutes=0.05)
    for found in data["results"].values():
        assert (found["settings"]["rows"], found["rows"]) == (120, 60)
        assert found["model"]["pearson"] > 0.6 > found["length"]["pearson"]
        low, high = found["intervals"]["difference"]
        assert 0 < low < found["model"]["pearson"] - found["length"]["pearson"] < high
    assert "| ro-en | 120 | 60 |" in (tmp_path / "quality.md").read_text()
    with pytest.raises(ConfigError, match="EDITLOOP_DATA"):
        quality.run(tmp_path, data=tmp_path / "nowhere")
