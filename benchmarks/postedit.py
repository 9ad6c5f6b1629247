"""Whether policies learn from real post-edits: translators' corrections of Romanian to English.

A small base is pretrained on the English side of the training files, and SFT, DPO and EarlyEnsemble are
fitted on the training rows. The 1,000 test rows then show how likely the edits are under each policy, and how
often it prefers an edit to the response. Hyperparameters are chosen on a validation part of the training rows
alone.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from benchmarks.real_edits import READ, real_files
from editloop.edits import read_log
from editloop.edits.cost import PAPER_COST
from editloop.lab import TextRecipe, pretrain_text
from editloop.offline import FitConfig, evaluate, fit
from editloop.offline.report import show_estimate
from editloop.policy import LoraSettings, load_base
from editloop.policy.manifest import PolicyRecord
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import write_result

FILES = ("ro-en.train", "ro-en.test", "et-en.train")
FIT = FitConfig(
    hyperparameters={
        "sft": {"learning_rate": (1e-3,)},
        "dpo": {"learning_rate": (3e-5, 1e-4)},
        "early": {"learning_rate": (1e-3,)},
    },
    select="cost",
    cost=PAPER_COST,
    epochs=1,
    lora=LoraSettings(rank=32, alpha=64),
    validation=0.05,
    validation_rows=250,
    validation_samples=150,
    evaluations=5,
    max_new_tokens=96,
)
FIGURES = {
    "edit_nll_per_token": "−log-likelihood per token of the edit",
    "accuracy": "accuracy",
    "reference_accuracy": "reference accuracy",
    "chosen_shift": "shift of the edit",
    "rejected_shift": "shift of the response",
}


def run(
    out: str | Path,
    *,
    data: str | Path | None = None,
    work: str | Path | None = None,
    minutes: float = 12.0,
    config: FitConfig = FIT,
    callback: ProgressCallback | None = None,
) -> dict[str, Any]:
    """Measure, and write `postedit.json` and `postedit.md`.

    Args:
        out: The folder for the results.
        data: The folder of real edits; `EDITLOOP_DATA` or `../shared/data` if not given.
        work: Where the base and the run are kept, so that they can be resumed; by default a temporary folder.
        minutes: Limit on the minutes of pretraining.
        config: The configuration of the fit.
        callback: Receives progress.

    Raises:
        ConfigError: A file of the data does not exist.
    """
    callback = callback or WarningCallback()
    train_file, test_file, _ = files = real_files(data, FILES)
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(work or scratch)
        base_folder = make_base(files, place, minutes, callback)
        started = time.monotonic()
        base = load_base(base_folder)
        made = fit(read_log(train_file, **READ), base, place / "run", config, report=False, callback=callback)
        fitted = time.monotonic()
        result = evaluate(made, read_log(test_file, **READ), base=base, samples=200, callback=callback)
        measured = {
            "fit_seconds": round(fitted - started, 1),
            "base": _recipe(base_folder),
            "config": config.model_dump(mode="json"),
            "chosen": {n: _chosen(p) for n, p in made.manifest().policies.items()},
            "alarms": {n: p.alarms for n, p in made.manifest().policies.items()},
            "test": result,
        }
    write_result("postedit", measured, _markdown(measured), out)
    return measured


def make_base(files: Iterable[Path], place: Path, minutes: float, callback: ProgressCallback) -> Path:
    """Return the folder of a base that is pretrained on the English side of the training files in `files`."""
    folder = place / "base"
    if not (folder / "recipe.json").is_file():
        text = _english((file for file in files if ".train." in file.name), place / "english.txt")
        callback.message(f"pretraining on {text.stat().st_size / 1e6:.1f} MB of English")
        pretrain_text(
            [text],
            folder,
            TextRecipe(minutes=minutes),
            progress=lambda done, total, loss: callback.progress(
                "pretraining", done, total, f"loss {loss:.3f}"
            ),
        )
    return folder


def _english(logs: Iterable[Path], file: Path) -> Path:
    """Write the English side of the logs, responses and edits, each text once, and return the file."""
    texts: dict[str, None] = {}
    for log in logs:
        for record in read_log(log, **READ):
            texts[record.response] = texts[record.edit or record.response] = None
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return file


def _recipe(folder: Path) -> Any:
    return json.loads((folder / "recipe.json").read_text(encoding="utf-8"))


def _chosen(policy: PolicyRecord) -> dict[str, Any]:
    figures = {"initial_loss", "validation_loss", "steps", "best_step", "seconds"}
    return policy.best.hyperparameters | policy.best.model_dump(include=figures)


def _markdown(measured: dict[str, Any]) -> str:
    test, base = measured["test"], measured["base"]
    lines = [
        f"A base of {base['parameters']:,} parameters, pretrained on the English side of the training files "
        f"({base['steps']} steps within {base['recipe']['minutes']:g} min, held-out perplexity "
        f"{base['held_out_perplexity']:.0f}); policies "
        f"fitted in {measured['fit_seconds'] / 60:.1f} min on the ro-en training rows, settings chosen on "
        f"{measured['config']['validation']:.0%} of them. {test['rows']} test rows, {test['pairs']} of them "
        "edited; mean ± standard error over rows (logarithms are natural).",
        "",
        "| policy | " + " | ".join(FIGURES.values()) + " | sampled cost |",
        "|---|" + "--:|" * (len(FIGURES) + 1),
    ]
    for name, figures in test["policies"].items():
        cells = [show_estimate(figures.get(key)) for key in FIGURES]
        if name == "base":
            cells[2:] = ["–"] * (len(FIGURES) - 2)
        lines.append(f"| {name} | " + " | ".join([*cells, show_estimate(figures["sampled"]["cost"])]) + " |")
    lines += ["", "Chosen on validation:", ""]
    for name, chosen in measured["chosen"].items():
        lines.append(
            f"- {name}: " + ", ".join(f"{key.replace('_', ' ')} {value:.4g}" for key, value in chosen.items())
        )
    lines += [f"- alarm, {name}: {alarm}" for name, alarms in measured["alarms"].items() for alarm in alarms]
    return "\n".join(lines)
