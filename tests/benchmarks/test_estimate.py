"""The benchmark of off-policy estimates: its logs and truths, and its figures by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import estimate
from benchmarks.bandit_settings import KIND_MEANS
from benchmarks.estimate import Found


def test_a_log_says_how_it_was_made() -> None:
    records, truth = estimate.logged("square-cb", 3, 60)
    assert len(records) == 60 and estimate.logged("square-cb", 3, 60) == (records, truth)
    assert all(0 < (record.propensity or 0) <= 1 and record.policy in estimate.NAMES for record in records)
    kinds = [int(record.context.split("word")[0][4:]) for record in records]  # "kind2word5 ..."
    means = KIND_MEANS[kinds].mean(axis=0)
    assert truth["uniform"] == pytest.approx(means.mean())
    assert truth["fixed:arm 4"] == pytest.approx(means[4]) and truth["fixed:arm 0"] == pytest.approx(means[0])


def test_the_figures_by_hand() -> None:
    def found(error: float, low: float, high: float, bounded: bool | None) -> dict[str, Found]:
        one = Found(error, low, high, bounded)
        return dict.fromkeys(estimate.ESTIMATORS, one) | {"ips": Found(error, 2 * low, 2 * high, bounded)}

    made = [found(0.1, -0.1, 0.3, True), found(-0.3, -0.4, -0.2, False), "too little overlap"]
    figures = estimate._figures(made)
    assert figures["refused"] == 1
    dr = figures["estimators"]["dr"]
    assert dr["bias"] == pytest.approx(-0.1) and dr["rmse"] == pytest.approx(0.05**0.5)
    assert dr["covered"] == dr["bounded"] == 0.5
    assert dr["width"] == pytest.approx(0.3) and dr["narrower_than_ips"] == pytest.approx(2)
    assert estimate._figures(["no"]) == {"refused": 1, "estimators": {}}


def test_the_page(tmp_path: Path, one_process: None) -> None:
    data = estimate.run(tmp_path, logs=2, rounds=120)
    assert list(data["loggers"]) == list(estimate.LOGGERS)
    assert all(set(rules) == set(estimate.RULES) for rules in data["loggers"].values())
    assert data["loggers"]["uniform"]["fixed:arm 4"]["refused"] == 0
    page = (tmp_path / "estimate.md").read_text(encoding="utf-8")
    assert "2 logs of 120 rounds" in page and "| uniform | fixed:arm 4 | dr " in page
