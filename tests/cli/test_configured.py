"""Flags made from a configuration: their names, their help, and the values from them and from a file."""

from __future__ import annotations

import json
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from calling import fails, rows
from editloop.cli.configured import configured, parse_settings
from editloop.cli.flags import Config
from editloop.errors import ConfigError
from editloop.offline import FitConfig
from editloop.serve.config import ServeConfig


@pytest.fixture
def fitted(editloop, monkeypatch, tmp_path):
    """Return a function that calls `fit` without a model, and returns the configuration it was given."""
    import editloop as package

    seen: list[FitConfig] = []

    class Stopped(Exception):
        """Instead of a training."""

    def stopped(records: Any, policy: Any, out: Any, config: FitConfig, **_: Any) -> None:
        seen.append(config)
        raise Stopped

    # In the package's dictionary, so that its lazy `__getattr__`, which would import torch, is not called.
    monkeypatch.setitem(package.__dict__, "load_base", lambda *_, **__: None)
    monkeypatch.setitem(package.__dict__, "fit", stopped)
    log = rows(tmp_path / "log.jsonl", 5)

    def call(*arguments: object, file: dict[str, Any] | None = None) -> FitConfig:
        more: list[object] = []
        if file is not None:
            (tmp_path / "fit.yaml").write_text(json.dumps(file), encoding="utf-8")  # which is YAML, too
            more = ["--config", "fit.yaml"]
        with pytest.raises(Stopped):
            editloop("fit", log, "--base", "nowhere", *more, *arguments)
        return seen.pop()

    return call


def words(text: str) -> str:
    return " ".join(text.split())


def test_each_field_is_a_flag_with_its_help_and_default(editloop):
    status, out, _ = editloop("fit", "--help-all")
    assert status == 0
    shown = words(out)
    for name, field in FitConfig.model_fields.items():
        flag = {"hyperparameters": "--set", "lora": "--lora-rank"}.get(name, f"--{name.replace('_', '-')}")
        assert flag in out, name
        if name != "lora":
            assert words(field.description or "")[:40] in shown, name
    assert "[sft,dpo,early]" in shown and "[32]" in shown  # of --methods and --batch-size
    lengths = [out.index(title) for title in ("What is learned", "Training", "Validation and choice")]
    assert lengths == sorted(lengths)  # a section of each, in the order of the fields


def test_the_short_help_shows_what_most_people_need(editloop):
    short = editloop("fit", "--help")[1]
    for name, field in FitConfig.model_fields.items():
        extra = field.json_schema_extra
        assert isinstance(extra, dict)
        if name not in ("hyperparameters", "lora"):
            flag = f"--{name.replace('_', '-')} "
            assert (flag in short) == bool(extra["common"]), name
    assert "--lora-rank" not in short and len(short) < len(editloop("fit", "--help-all")[1])


def test_without_a_flag_the_configuration_is_the_default(fitted):
    assert fitted() == FitConfig()


def test_flags_give_the_fields(fitted):
    found = fitted(
        "--methods",
        "sft, dpo",
        "--epochs",
        "2",
        "--full",
        "--lora-rank",
        "4",
        "--lora-targets",
        "q_proj,v_proj",
    )
    lora = {"rank": 4, "targets": ("q_proj", "v_proj")}
    assert found == FitConfig(methods=("sft", "dpo"), epochs=2, full=True, lora=lora)


def test_a_file_gives_one_hyperparameter_to_all_methods_that_have_it(fitted):
    rate = {"learning_rate": 1e-3}
    found = fitted(file={"hyperparameters": {"dpo": {"beta": 0.5}, **rate}})
    assert found == FitConfig(hyperparameters={"sft": rate, "dpo": {"beta": 0.5, **rate}, "early": rate})


def test_set_gives_hyperparameters_of_one_method_or_of_all_that_have_them(fitted):
    found = fitted("--set", "dpo.beta=0.5", "--set", "learning_rate=1e-3")
    rate = {"learning_rate": 1e-3}
    assert found == FitConfig(hyperparameters={"sft": rate, "dpo": {"beta": 0.5, **rate}, "early": rate})
    several = fitted("--set", "sft.learning_rate=1e-3,2e-3", "--select", "cost")
    assert [t.hyperparameters.learning_rate for t in several.trials("sft")] == [1e-3, 2e-3]
    assert fitted("--set", "dpo.beta=0.5", "--set", "dpo.beta=0.25") == fitted("--set", "dpo.beta=0.25")


def test_a_file_gives_nested_values_and_the_command_line_has_the_last_word(fitted):
    file = {
        "methods": ["sft", "dpo"],
        "epochs": 7,
        "lora": {"rank": 8},
        "hyperparameters": {
            "dpo": {"beta": 0.5, "learning_rate": 1e-5},
            "sft": {"learning_rate": [1e-3, 2e-3]},
        },
    }
    as_written = FitConfig(**file)
    assert fitted(file=file) == as_written
    found = fitted("--epochs", "1", "--set", "dpo.beta=0.25", "--lora-alpha", "3", file=file)
    expected = {"epochs": 1, "dpo.beta": 0.25, "lora": {"rank": 8, "alpha": 3}}
    assert found == as_written.changed(expected)


@pytest.mark.parametrize(
    "file",
    [
        {"port": 80, "bandit": {"algorithm": "thompson", "prior-strength": 3}},
        {"port": 80, "algorithm": "thompson", "prior_strength": 3},
    ],
)
def test_a_file_may_nest_fields_as_the_configuration_does_or_not(tmp_path, file):
    (tmp_path / "serve.yaml").write_text(json.dumps(file), encoding="utf-8")
    seen: list[ServeConfig] = []
    app = typer.Typer()

    @app.command()
    @configured(ServeConfig)
    def verb(given: dict[str, Any], config: Config = None) -> None:
        seen.append(ServeConfig(**given))

    done = CliRunner().invoke(app, ["--config", str(tmp_path / "serve.yaml")], catch_exceptions=False)
    assert (done.exit_code, done.output) == (0, "")
    assert seen == [ServeConfig(port=80, bandit={"algorithm": "thompson", "prior_strength": 3})]


def test_a_field_that_no_nested_model_has_is_refused(editloop, tmp_path):
    (tmp_path / "serve.yaml").write_text("bandit:\n  algorithms: ucb\n", encoding="utf-8")
    status, _, error = editloop("serve", "--config", "serve.yaml")
    assert status and "unknown flag in the configuration: 'bandit.algorithms'" in error


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dpo.beta", "wants NAME.FIELD=VALUES"),
        ("dpo.beta=", "wants NAME.FIELD=VALUES"),
        ("=3", "wants NAME.FIELD=VALUES"),
        ("dpo.beta=warm", "dpo.beta"),
        ("dpo.beta=-1", "dpo.beta"),
        ("dpo.size=1", "dpo.size"),
        ("ppo.beta=1", "ppo"),
        ("size=1", "no method that is trained has this hyperparameter"),
        ("dpo.beta=0.1,1", "select cost"),
    ],
)
def test_a_setting_that_makes_no_sense_is_one_line(editloop, tmp_path, given, message):
    log = rows(tmp_path / "log.jsonl", 5)
    fails(editloop("fit", log, "--base", "nowhere", "--set", given), message)


def test_settings_are_parsed_by_hand():
    assert parse_settings(["dpo.beta=0.1, 1", "lr = 3", "dpo.beta=2"], "--set") == {
        "dpo.beta": ("2",),
        "lr": ("3",),
    }
    with pytest.raises(ConfigError, match=r"--own wants .*'x'"):
        parse_settings(["x"], "--own")
