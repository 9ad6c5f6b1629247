"""The page on methods: ORPO as it stands there, brought by an installed package, trained by the command."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from calling import rows
from editloop.cli.app import app
from editloop.errors import ConfigError
from editloop.offline import METHODS, Batch, Completions, FitConfig, Layout
from editloop.policy import ContextTree, RunFolder
from plug_in import install_plug_in

PAGE = Path(__file__).parents[3] / "docs" / "methods.md"


@pytest.fixture
def orpo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The method of the page, found by its entry point."""
    (source,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    folder = tmp_path / "package"
    folder.mkdir()
    with pytest.raises(ConfigError, match="unknown method"):
        FitConfig(methods=["orpo"])
    install_plug_in(folder, monkeypatch, "editloop.methods", source, orpo="METHOD")
    return METHODS.get("orpo")


def test_its_loss_by_hand(orpo: Any) -> None:
    pair = Completions(ContextTree((1,), ((2, 3), (4,))), {"edit": (0,), "response": (1,)})
    layout = Layout([pair], torch.tensor([2, 1]))
    log_probs = torch.tensor([2 * math.log(0.5), math.log(0.2)])
    batch = Batch(layout, log_probs, orpo.totals(layout))
    odds = math.log(0.5 / 0.5) - math.log(0.2 / 0.8)  # log odds 0 against −log 4
    expected = math.log(2) + 0.3 * math.log1p(math.exp(-odds))
    assert float(orpo.loss(batch, orpo.hyperparameters(odds_weight=0.3))) == pytest.approx(expected)


def test_the_command_trains_it_and_the_report_shows_it(
    orpo: Any, base: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = rows(tmp_path / "log.jsonl", 40)
    settings = ["learning_rate=5e-3", "orpo.odds_weight=0.2"]
    flags = ["--base", str(base()), "--methods", "sft,orpo", "--epochs", "2", "--batch-size", "8"]
    flags += [part for setting in settings for part in ("--set", setting)]
    done = CliRunner().invoke(
        app, ["fit", str(log), *flags, "--validation-samples", "4", "--max-new-tokens", "4"]
    )
    assert done.exit_code == 0, done.output
    assert "with lr0.005-odds0.2" in done.output
    run = RunFolder(tmp_path / "run")
    best = run.manifest().policies["orpo"].best
    assert best.hyperparameters["odds_weight"] == 0.2
    assert best.initial_loss is not None and best.validation_loss is not None
    assert best.validation_loss < best.initial_loss
    assert (run.policy_path("orpo") / "adapter_config.json").is_file()
    assert best.settings == "lr 0.005, odds 0.2"
    assert "lr 0.005, odds 0.2" in run.report.read_text(encoding="utf-8")


def test_the_page_lists_every_method() -> None:
    listed = re.findall(r"^\| `(\w+)` \| (.*?) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == [(method.name, method.summary) for method in METHODS.parts()]
