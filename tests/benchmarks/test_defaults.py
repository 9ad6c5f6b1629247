"""The evidence for the defaults, here on a tiny base: what is kept and left out, and correlations."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks import defaults
from editloop.offline import FitConfig
from small_log import small_log


def test_a_rank_correlation_by_hand() -> None:
    assert defaults._rank_correlation([(1.0, 5.0), (2.0, 6.0), (3.0, 8.0)]) == "+1.00"
    assert defaults._rank_correlation([(1.0, 5.0), (2.0, 8.0), (3.0, 6.0)]) == "+0.50"  # 1 − 6·2/24
    assert defaults._rank_correlation([(1.0, 5.0), (2.0, 5.0), (3.0, 5.0)]) == ""
    assert defaults._rank_correlation([(1.0, 5.0), (2.0, 6.0)]) == ""


def test_every_trial_has_a_name_of_its_own() -> None:
    assert len({trial.name for trial in defaults.TRIALS}) == len(defaults.TRIALS)


@pytest.fixture
def small(
    base: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, one_process: None
) -> Callable[[], dict[str, Any]]:
    """A run of two trials in this process, on edits alone, of which KTO can learn nothing."""
    log = [record for record in small_log(60) if record.edit != record.response]

    monkeypatch.setattr(defaults, "BASE", str(base(chat=True)))
    monkeypatch.setattr(defaults, "real_files", lambda *_: [])
    monkeypatch.setattr(defaults, "rows_of", lambda *_: (log[:32], log[32:40]))
    monkeypatch.setattr(
        defaults, "FitConfig", partial(FitConfig, evaluations=1, lora={"rank": 2}, max_new_tokens=6)
    )
    trials = (defaults._trial("sft", 1e-2, 1.0), defaults._trial("kto", 1e-3, 1.0))
    return partial(defaults.run, tmp_path, work=tmp_path / "work", trials=trials, logs=("mlqe",))


def test_a_trial_is_measured_once_and_one_without_rows_is_named(
    small: Callable[[], dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = small()["results"]
    assert [each["trial"] for each in found][:2] == ["base", "sft-learning_rate0.01-epochs1"]
    base, sft, kto = found
    assert base["held"]["chosen_shift"] == 0 and sft["held"]["chosen_shift"] > 0
    assert "accepted unchanged" in kto["left_out"]
    page = (tmp_path / "defaults.md").read_text(encoding="utf-8")
    assert "kto-learning_rate0.001-epochs1: KTO needs rows" in page

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(defaults, "_figures", never)
    assert small()["results"][:2] == found[:2]
