"""The runs of a grid: their command lines, their folders, and grids that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from editloop.errors import ConfigError
from editloop.offline.sweep.grid import make_runs, parse_grid, read_grid

INPUTS = {"log": "edits.jsonl", "base": "model"}


def runs(grid: dict[str, Any], rest: tuple[str, ...] = (), **inputs: str) -> list[tuple[str, str]]:
    """The name and the command line of each run."""
    made = make_runs(grid, INPUTS | inputs, Path("out"), rest)
    return [(run.name, " ".join(run.arguments)) for run in made]


def test_every_combination_is_a_command_line_with_a_folder_of_its_own() -> None:
    grid = parse_grid(["seed=0,1", "dpo.beta=0.1,1"])
    assert runs(grid, ("--epochs", "2")) == [
        (
            name,
            f"fit edits.jsonl --base model --out out/{name} --seed {seed} --set dpo.beta={beta} --epochs 2",
        )
        for seed in (0, 1)
        for beta in ("0.1", "1")
        for name in [f"seed={seed},dpo.beta={beta}"]
    ]


def test_fields_of_every_kind_become_their_flags(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        "lora: {rank: [8]}\nmethods: [[sft, dpo]]\nfull: [true, false]\nlog: [a/b.csv]\nlearning_rate: 1e-4\n"
    )
    (first, line), (second, other) = runs(read_grid(file))
    assert line.startswith("fit a/b.csv --base model --out out/")
    assert line.endswith("--lora-rank 8 --methods sft,dpo --full --set learning_rate=1e-4")
    assert "--no-full" in other and first != second
    assert "/" not in first  # a log's path is in the name, and the name is one folder


def test_commas_in_values_are_kept_by_semicolons() -> None:
    assert parse_grid(["methods=sft;sft,dpo"]) == {"methods": ("sft", "sft,dpo")}


def test_names_differ_where_the_values_do_however_long_they_are() -> None:
    logs = (f"{'x' * 300}a", f"{'x' * 300}b", "a/b", "a-b")
    names = [name for name, _ in runs({"log": logs})]
    assert len(set(names)) == 4 and max(map(len, names)) < 120


@pytest.mark.parametrize(
    ("grid", "words"),
    [
        ({}, ["empty"]),
        ({"lora.rnk": ("4",)}, ["lora.rnk", "perhaps lora.rank"]),
        ({"sft.beta": ("1",)}, ["sft.beta", "no such field"]),
        ({"hyperparameters": ("1",)}, ["no such field"]),
        ({"seed": ()}, ["seed", "values"]),
        ({"seed": ("1", "1")}, ["each once"]),
        ({"full": ("perhaps",)}, ["true or false", "perhaps"]),
    ],
)
def test_a_grid_that_is_none_is_refused(grid: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        make_runs(grid, INPUTS, Path("out"), ())
    assert all(word in str(caught.value) for word in words)


def test_a_grid_without_a_log_is_refused() -> None:
    with pytest.raises(ConfigError, match="have no log"):
        make_runs({"seed": ("1",)}, {"log": "", "base": "model"}, Path("out"), ())


@pytest.mark.parametrize(("content", "word"), [("- 1", "mapping"), ("a: [", "YAML"), (None, "cannot read")])
def test_a_file_that_is_no_grid_is_refused(tmp_path: Path, content: str | None, word: str) -> None:
    file = tmp_path / "grid.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=word):
        read_grid(file)


@pytest.mark.parametrize("text", ["seed", "=1", "seed=", "seed= , "])
def test_a_text_that_is_no_field_of_a_grid_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="FIELD=VALUE"):
        parse_grid([text])
