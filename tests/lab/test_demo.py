"""The demo: the verdict follows from the costs, and an interrupted demo goes on to the same numbers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from editloop.errors import RunError
from editloop.lab.demo import DemoSettings, full_settings, quick_settings, run_demo
from editloop.lab.demo.terminal import plot_text
from editloop.lab.demo.verdict import Difference, demo_verdict

N = 200


def costs(mean: float, seed: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Costs with this mean exactly, which differ by 0.1 or so from context to context."""
    noise = np.random.default_rng(seed).normal(0, 0.1, N)
    return mean + noise - noise.mean()


BASE = costs(0.69, 0)
STRONG = {"sft": costs(0.04, 1), "dpo": costs(0.49, 2), "early": costs(0.05, 3)}
WEAK = {"sft": costs(0.61, 4), "dpo": costs(0.55, 5), "early": costs(0.53, 6)}


def test_the_method_is_chosen_that_loses_least_on_any_log() -> None:
    found = demo_verdict(BASE, {"strong": STRONG, "weak": WEAK}, {"strong": 0.05, "weak": 0.54})
    headline = "Train early: .69 to .05 on the strong user's log, .53 on the weak's; serve it."
    assert found.headline == headline and len(headline) <= 80
    assert "With the strong user's log early costs .05, .64 ± .01 less than the base" in found.reasons[1]
    assert "sft is equally good" in found.reasons[1] and "dpo costs .44 ± .01 more" in found.reasons[1]
    assert found.reasons[3] == "No other method is as good as early with every log."


def test_a_method_that_is_as_good_within_the_error_is_named() -> None:
    weak = {**WEAK, "sft": costs(0.535, 4)}
    found = demo_verdict(BASE, {"strong": STRONG, "weak": weak}, {"strong": 0.05, "weak": 0.54})
    assert found.headline.startswith("Train sft: .69 to .04")  # .005 above the best at most; early .01
    assert found.reasons[3] == "As good as sft with every log, within the error: early."


def test_one_near_empty_draft_does_not_decide() -> None:
    """A draft of one word that is rewritten wholly costs as many times its length."""
    early = STRONG["early"].copy()
    early[0] = 25.0
    found = demo_verdict(BASE, {"strong": {**STRONG, "early": early}, "weak": WEAK}, {"strong": 0.05})
    assert found.headline.startswith("Train early: .69 to .17")


def test_a_log_that_does_not_help_is_not_praised() -> None:
    weak = {name: BASE + costs(0.0, seed) for seed, name in enumerate(WEAK, 7)}
    found = demo_verdict(BASE, {"strong": STRONG, "weak": weak}, {"strong": 0.05, "weak": 0.7})
    assert found.headline.endswith("on the strong user's log; serve it for the strong user.")
    neither = demo_verdict(BASE, {"strong": weak, "weak": weak}, {"strong": 0.7, "weak": 0.7})
    assert neither.headline == "Keep the base: no log made a policy that costs significantly less."


def test_a_difference_is_paired_by_context() -> None:
    found = Difference.of(BASE + 0.1, BASE)
    assert found.mean == pytest.approx(0.1) and found.standard_error == pytest.approx(0, abs=1e-12)


def test_the_first_plot_is_plain_text_of_80_columns() -> None:
    lines = plot_text(np.array([0.0, 0.0, 0.5, 0.5, 0.5, 1.0, 1.0, 30.0]))
    assert all(len(line) <= 80 and line.isascii() for line in lines)
    assert lines[0].endswith(" 25%") and lines[-1].endswith("12%")
    shares = [int(line.rpartition(" ")[2].rstrip("%")) for line in lines]
    assert abs(sum(shares) - 100) <= len(lines)  # all rows are somewhere, but for rounding
    assert plot_text(np.zeros(3)) == [f"   unedited {'#' * 40} 100%"]


def test_full_is_the_setting_of_the_tables_and_quick_is_less() -> None:
    full, quick = full_settings(), quick_settings()
    assert (full.rows, full.responses, full.config.epochs, full.config.evaluations) == (1500, 200, 8, 6)
    assert quick.responses == full.responses  # the same evidence
    assert quick.rows * quick.config.epochs < 0.5 * full.rows * full.config.epochs


@pytest.fixture
def tiny() -> DemoSettings:
    changes = {"epochs": 0.5, "evaluations": 1, "validation_samples": 4, "methods": ("sft", "dpo")}
    return DemoSettings(rows=40, responses=6, config=full_settings().config.changed(changes))


def test_a_demo_ends_with_a_verdict_and_goes_on_to_the_same(tmp_path: Path, tiny: DemoSettings) -> None:
    lines: list[str] = []

    class Recorder:
        def message(self, line: str) -> None:
            lines.append(line)

        def warn(self, line: str) -> None:
            lines.append(line)

        def progress(self, task: str, done: int, total: int, note: str = "") -> None:
            pass

    result = run_demo(tmp_path, tiny, callback=Recorder())
    plotted = next(i for i, line in enumerate(lines) if "What the edits of the strong user cost" in line)
    trained = next(i for i, line in enumerate(lines) if line.startswith("sft: validation loss"))
    assert plotted < trained  # there is something to see before the long part begins
    page = result.report.read_text(encoding="utf-8")
    assert page.index(result.verdict.headline) < page.index("<h2>") < page.index("<del>")
    assert [row[0] for row in result.table()[1:]] == [
        "base",
        "sft, strong log",
        "dpo, strong log",
        "late, strong log",
        "sft, weak log",
        "dpo, weak log",
        "late, weak log",
    ]
    first = json.loads((tmp_path / "demo.json").read_text(encoding="utf-8"))
    (tmp_path / "report.html").unlink()
    again = run_demo(tmp_path, tiny)
    assert again.table() == result.table() and again.verdict == result.verdict
    assert json.loads((tmp_path / "demo.json").read_text(encoding="utf-8")) | {"seconds": 0} == first | {
        "seconds": 0
    }


def test_a_demo_does_not_reuse_the_logs_of_another(tmp_path: Path, tiny: DemoSettings) -> None:
    (tmp_path / "settings.json").write_text(json.dumps({"rows": 41, "seed": 0}))
    with pytest.raises(RunError, match="the folder holds another demo"):
        run_demo(tmp_path, tiny)


def test_a_demo_notes_its_settings_from_the_start(
    tmp_path: Path, tiny: DemoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from editloop.lab.demo import loop

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "get_domain", interrupted)
    for _ in range(2):  # the same demo goes on
        with pytest.raises(KeyboardInterrupt):
            run_demo(tmp_path, tiny)
    assert json.loads((tmp_path / "settings.json").read_text()) == {
        "rows": 40,
        "seed": 0,
        "domain": "email",
    }
