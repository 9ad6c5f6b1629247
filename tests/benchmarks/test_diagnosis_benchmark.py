"""How `diagnose` is scored: by the cost of the advised method above the best."""

from __future__ import annotations

import pytest

from benchmarks import diagnosis


def test_scores_by_hand() -> None:
    costs = {"sft": 0.5, "dpo": 0.3, "rl": 0.6, "early": 0.32}
    results = [
        {"costs": costs, "advised": ["early", "sft"]},
        {"costs": costs | {"sft": 0.1}, "advised": ["sft", "sft"]},
    ]
    scores = diagnosis._scores(results)
    assert scores["diagnose"]["near"] == 0.75
    assert scores["diagnose"]["mean_above"] == pytest.approx((0.02 + 0.2 + 0 + 0) / 4)
    assert scores["always sft"] == pytest.approx({"near": 0.5, "mean_above": 0.1, "worst_above": 0.2})
    assert scores["always early"]["worst_above"] == pytest.approx(0.22)
