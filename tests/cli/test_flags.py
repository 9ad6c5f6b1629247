"""The flags of the command and what it prints; no model is trained here."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from calling import fails, rows
from editloop.cli import inspect
from editloop.cli.console import console
from editloop.errors import ConfigError
from editloop.intervals import share_interval
from small_run import make_manifest


def foreign(path: Path, count: int = 40, bad: int = 1) -> Path:
    lines = [json.dumps({"prompt": f"p{i}", "draft": f"d {i}", "final": f"f {i}"}) for i in range(count)]
    path.write_text("\n".join([*lines, *["{broken"] * bad, lines[0]]) + "\n", encoding="utf-8")
    return path


MAP = "context=prompt,response=draft,edit=final"


@pytest.mark.parametrize("verb", [["inspect"], ["export", "--to", "costs"]])
def test_every_verb_tells_alike_what_it_read(editloop, tmp_path, verb):
    log = foreign(tmp_path / "log.jsonl")
    status, out, _ = editloop(verb[0], log, *verb[1:], "--map", MAP, "--out", "made")
    assert status == 0
    quarantine = tmp_path / "made-quarantine.jsonl"
    assert f"read 42 rows of log.jsonl (JSONL): 1 bad, 1 duplicates (1 not JSON; see {quarantine})" in out
    assert json.loads(quarantine.read_text())["line"] == 41


def test_a_quarantine_that_cannot_be_written_is_told(editloop, tmp_path):
    log = foreign(tmp_path / "log.jsonl")
    (tmp_path / "file").touch()
    status, out, _ = editloop("inspect", log, "--map", MAP, "--quarantine", "file/bad.jsonl")
    assert status == 0 and "the quarantine file/bad.jsonl is incomplete: " in out


def test_reading_flags_come_from_the_config_too(editloop, tmp_path):
    log = foreign(tmp_path / "log.jsonl", bad=20)
    config = {"map": {"context": "prompt", "response": "draft", "edit": "final"}, "max-bad-share": 0.5}
    (tmp_path / "c.yaml").write_text(json.dumps(config | {"keep_duplicates": True}), encoding="utf-8")
    status, out, err = editloop("inspect", log, "--config", "c.yaml", "--format", "jsonl")
    assert status == 0, err
    assert "41 records" in out
    fails(editloop("inspect", log, "--config", "c.yaml", "--max-bad-share", "0.1"), "more than 10%")


def test_the_rows_of_some_users_are_read_alone(editloop, tmp_path):
    lines = [{"context": f"c{i}", "response": "a b", "edit": "a c", "user": f"u{i % 3}"} for i in range(9)]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, _ = editloop("inspect", log, "--user", "u0", "--user", "u2")
    assert status == 0 and "6 records" in out and "0 duplicates; 3 of other users" in out
    (tmp_path / "c.yaml").write_text("user: u1")
    status, out, _ = editloop("inspect", log, "--config", "c.yaml")
    assert status == 0 and "3 records" in out
    fails(editloop("inspect", log, "--user", "ann"), "no row of this user", "'ann'", "--user")


def test_export_writes_over_neither_the_log_nor_the_quarantine(editloop, tmp_path):
    log = rows(tmp_path / "log.jsonl", 5)
    before = log.read_bytes()
    fails(editloop("export", log, "--to", "costs", "--out", "./log.jsonl"), "--out")
    fails(editloop("export", log, "--to", "costs", "--out", "q", "--quarantine", "./q"), "--out")
    fails(editloop("export", log, "--to", "costs", "--out", "."), "cannot write")
    assert log.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


def test_a_log_from_a_pipe_is_refused(editloop, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    fails(editloop("inspect", "pipe"), "write it to a file first")


def test_names_are_no_markup(editloop, tmp_path):
    lines = [
        {
            "context": "c",
            "response": f"a b {i}",
            "edit": "a",
            "user": ["[bold]ann[/bold]", "[/x] :smile:"][i % 2],
        }
        for i in range(20)
    ]
    log = tmp_path / "log.jsonl"
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status, out, _ = editloop("inspect", log, "--out", "[red]seen")
    assert status == 0
    assert "[bold]ann[/bold]" in out and "[/x] :smile:" in out and "Written to [red]seen" in out


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["inspect", "--nothing"], "--nothing"),
        (["inspect"], "LOG"),
        (["surprise"], "surprise"),
        (["demo", "--rows", "1"], "--rows"),
        (["demo", "--responses", "1"], "--responses"),
        (["inspect", "log.jsonl", "--max-bad-share", "few"], "--max-bad-share"),
    ],
)
def test_a_wrong_flag_is_one_line_and_status_two(editloop, arguments, word):
    fails(editloop(*arguments), word, status=2)


def test_no_verb_shows_the_help(editloop):
    status, _, err = editloop()
    assert status == 2 and err.startswith("Usage: ") and "inspect" in err


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["lab", "pretrain", "--text", "t.txt", "--steps", "3"], "--steps"),
        (["lab", "pretrain", "--epochs", "3", "--documents", "files"], "--text"),
    ],
)
def test_flags_that_would_be_ignored_are_refused(editloop, monkeypatch, arguments, word):
    monkeypatch.setenv("EDITLOOP_DATA", "nowhere")
    fails(editloop(*arguments), word)


@pytest.mark.parametrize("given", ['["a.txt", "b.txt"]', "a.txt"])
def test_a_flag_that_repeats_takes_a_list_from_the_config(editloop, monkeypatch, tmp_path, given):
    import editloop.lab as world

    seen: list[Path] = []
    monkeypatch.setattr(world, "pretrain_text", lambda text, *_, **__: seen.extend(text) or {})
    (tmp_path / "c.yaml").write_text(f"text: {given}\n")
    status, _, err = editloop("lab", "pretrain", "--config", "c.yaml")
    assert status == 0, err
    assert seen == [Path("a.txt"), Path("b.txt")][: len(seen)] and len(seen) == 1 + ("b.txt" in given)


def test_a_flag_that_repeats_takes_a_mapping_from_the_config(editloop, monkeypatch, tmp_path):
    from editloop.cli import serve

    seen: list[dict[str, str]] = []

    def stopped(settings: Any, device: str, dtype: str, extra: dict[str, str]) -> None:
        seen.append(extra)
        raise ConfigError("stopped")

    monkeypatch.setattr(serve, "_backend", stopped)
    (tmp_path / "c.yaml").write_text("backend_option: {model: mine, threads: 2}\n")
    fails(editloop("serve", "--config", "c.yaml"), "stopped")
    assert seen == [{"model": "mine", "threads": "2"}]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB\nand more"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
    ],
)
def test_out_of_memory_is_one_line(editloop, monkeypatch, tmp_path, error):
    def failing(*_: Any) -> None:
        raise error

    monkeypatch.setattr(inspect, "write_json", failing)
    log = rows(tmp_path / "log.jsonl", 5)
    fails(editloop("inspect", log), "--micro-batch-size", "--gradient-checkpointing")


def test_other_runtime_errors_are_not_hidden(editloop, monkeypatch, tmp_path):
    def failing(*_: Any) -> None:
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(inspect, "write_json", failing)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        editloop("inspect", rows(tmp_path / "log.jsonl", 5))


def test_an_interruption_promises_nothing_that_is_not_kept(editloop, monkeypatch, tmp_path):
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(inspect, "write_json", interrupted)
    result = editloop("inspect", rows(tmp_path / "log.jsonl", 5))
    assert result[0] == 130 and result[2] == "editloop: error: interrupted\n"


def test_a_training_that_diverged_is_shown_with_dashes(capsys, tmp_path):
    from editloop.cli.evaluate import print_evaluation
    from editloop.cli.fit import print_run
    from editloop.offline.page import write_report
    from editloop.offline.report import run_sections
    from editloop.policy import RunFolder

    nan = float("nan")
    best = {
        "hyperparameters": {"learning_rate": 1.0},
        "initial_loss": 1.25,
        "validation_loss": nan,
        "validation_cost": None,
        "validation": {"edit_nll_per_token": {"mean": nan, "se": nan}, "reference_accuracy": None},
        "sampled": None,
        "best_step": None,
        "steps": 1,
        "history": [{"step": 1, "loss": nan}, {"step": 1, "eval_loss": nan}],
    }
    counts = {"examples": 1, "pairs": 1, "counts": {}}
    run = RunFolder(tmp_path / "run")
    data = {"train": counts, "validation": counts}
    run.write_manifest(make_manifest(policies={"sft": {"trials": [best]}}, data=data))
    print_run(run)
    shown = capsys.readouterr().out
    assert "1.250 → –" in shown and "No verdict: no responses were sampled." in shown
    report = write_report(tmp_path / "report.html", "title", "lead", run_sections(run))
    assert "nan" not in report.read_text(encoding="utf-8").split("<img")[0].lower()
    figures = {"edit_nll_per_token": {"mean": nan, "se": nan}, "accuracy": {"mean": 0.5, "se": nan}}
    print_evaluation({"rows": 1, "pairs": 1, "policies": {"sft": figures}})
    out = capsys.readouterr().out
    assert "nan" not in out and "0.500 ± –" in out


@pytest.mark.parametrize(
    "verb",
    [
        "inspect loop",
        "inspect log.jsonl --out loop",
        "inspect log.jsonl --quarantine loop",
        "inspect log.jsonl --config loop",
        "diagnose log.jsonl --out loop",
        "export log.jsonl --to trl-dpo --out loop",
        "fit log.jsonl --base lab:email --out loop",
        "fit log.jsonl --base lab:email --out loop/run",
        "fit log.jsonl --base ./loop",
        "evaluate loop log.jsonl",
        "simulate loop",
        "promote loop",
    ],
)
def test_links_that_lead_in_a_circle_are_one_line(editloop, tmp_path, verb):
    rows(tmp_path / "log.jsonl", 3)
    (tmp_path / "loop").symlink_to("back")
    (tmp_path / "back").symlink_to("loop")
    fails(editloop(*verb.split()), "loop")


def test_an_accuracy_has_one_name_and_is_never_without_what_it_is_worth(capsys, monkeypatch, tmp_path):
    """A policy that moved the right way, and still likes its own response better, in 12 pairs of 12."""
    monkeypatch.setattr(console, "width", 160)
    from editloop.cli.evaluate import print_evaluation
    from editloop.cli.fit import print_run
    from editloop.offline.report import run_sections
    from editloop.policy import RunFolder

    figures = {
        "edit_nll_per_token": {"mean": 2.0, "se": 0.1, "n": 12},
        "accuracy": {"mean": 0.0, "se": 0.0, "n": 12, "interval": list(share_interval(0.0, 12))},
        "reference_accuracy": {"mean": 1.0, "se": 0.0, "n": 12, "interval": list(share_interval(1.0, 12))},
        "chosen_shift": {"mean": 1.0, "se": 0.5, "n": 2},
    }
    best = {
        "hyperparameters": {"learning_rate": 1.0},
        "initial_loss": 2.5,
        "validation_loss": 2.0,
        "validation_cost": 0.5,
        "validation": figures,
        "sampled": {"cost": {"mean": 0.5, "se": 0.0, "n": 2}, "examples": []},
        "best_step": None,
        "steps": 1,
        "history": [{"step": 1, "loss": 2.0}],
    }
    counts = {"examples": 14, "pairs": 12, "counts": {}}
    run = RunFolder(tmp_path / "run")
    data = {"train": counts, "validation": counts}
    run.write_manifest(make_manifest(policies={"dpo": {"trials": [best]}}, data=data))
    print_run(run)
    fitted = capsys.readouterr().out
    print_evaluation({"rows": 14, "pairs": 12, "policies": {"dpo": figures}})
    evaluated = capsys.readouterr().out
    reported = "\n".join(" ".join(row) for row in run_sections(run)[0].table)
    for shown in (fitted, evaluated, reported):
        (heading,) = [line for line in shown.splitlines() if line.startswith("policy ")]
        assert "accuracy reference accuracy" in " ".join(heading.split())
        assert shown.index("0.000 [0.00,0.24]") < shown.index("1.000 [0.76,1.00]")  # Wilson, 12 of 12
    assert all("14 rows, 12 pairs" in each for each in (fitted, evaluated, *run_sections(run)[0].paragraphs))
    assert "0.500 (n = 2)" in fitted and "0.500 (n = 2)" in reported  # two samples that cost the same
    assert "1.000 [-5.35,7.35]" in evaluated  # t of 12.706 with one degree of freedom
