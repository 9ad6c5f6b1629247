"""The configuration of a fit: what makes no sense is one line, and the grids of trials are as written."""

from __future__ import annotations

import json
import re
from typing import Any, ClassVar

import pytest

from editloop.errors import ConfigError, EditLoopError
from editloop.offline import METHODS, FitConfig, Hyperparameters, Trial, hyperparameter
from editloop.offline.methods.sft import SFT


def of(name: str, **hyperparameters: Any) -> dict[str, Any]:
    """Options: a method, and what is tried of its hyperparameters."""
    return {"methods": (name,), "hyperparameters": {name: hyperparameters}}


def shown(config: FitConfig, method: str, *fields: str) -> list[Any]:
    """What the trials of a method have in these fields."""
    values = [tuple(getattr(trial.hyperparameters, f) for f in fields) for trial in config.trials(method)]
    return values if len(fields) > 1 else [value for (value,) in values]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"methods": ()}, "name at least one method"),
        ({"full": True, "start": "run/sft"}, "no adapter to start from"),
        ({"methods": ("sft", "sft")}, "each only once"),
        ({"methods": ("ppo",)}, "ppo"),
        ({"methods": "sft"}, "methods"),
        (of("dpo", learning_rate=()), "dpo.learning_rate has no value"),
        (of("dpo", learning_rate=0.0), "dpo.learning_rate: Input should be greater than 0"),
        (of("dpo", learning_rate="fast"), "dpo.learning_rate"),
        (of("dpo", beta=0.0), "dpo.beta: Input should be greater than 0"),
        (of("early", beta=()), "early.beta has no value"),
        (of("rl", beta=float("nan")), "rl.beta"),
        (of("sft", beta=0.1), "sft.beta"),
        (of("rl", kappa=float("inf")), "rl.kappa: Input should be a finite number"),
        ({"hyperparameters": {"sometimes": {"beta": 1.0}}}, "sometimes"),
        ({"hyperparameters": {"rl": 0.1}}, "hyperparameters.rl"),
        ({"hyperparameters": [0.1]}, "hyperparameters"),
        (of("early", dpo_weight=-1.0), "early.dpo_weight: Input should be greater than or equal to 0"),
        (of("rl", kappa=()), "rl.kappa has no value"),
        (of("rl", kappa=float("nan")), "rl.kappa"),
        (of("early", rl_weight=-1.0), "early.rl_weight: Input should be greater than or equal to 0"),
        (of("early", kappa=(0.0, 1.0), rl_weight=1.0), "select cost"),
        (of("sft", reduction=("token", "sequence")), "select cost"),
        ({"select": "cost", "validation_samples": 0}, "need validation_samples"),
        ({"mixture": "cost", "validation_samples": 0}, "need validation_samples"),
        (of("rl", loss="ppo"), "rl.loss: Input should be 'pairwise' or 'weighted'"),
        (of("dpo", beta=(0.1, 0.5)), "the losses of dpo with different hyperparameters"),
        (of("sft", epochs=0), "sft.epochs: Input should be greater than 0"),
        ({"epochs": 0}, "epochs"),
        ({"seed": -1}, "seed: Input should be greater than or equal to 0"),
        ({"seed": 2**32}, "seed: Input should be less than or equal to 4294967295"),
        ({"epochs": float("nan")}, "epochs"),
        ({"validation": 1.0}, "validation"),
        ({"lora": {"rank": 0}}, "lora.rank"),
        ({"lora": {"size": 3}}, "lora.size"),
        ({"learning_rates": {}}, "learning_rates"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_one_line(options: dict[str, Any], words: str) -> None:
    with pytest.raises(EditLoopError) as caught:
        FitConfig(**options)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_hyperparameter_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"dpo\.kappa: .*it has learning_rate, epochs, beta"):
        FitConfig(**of("dpo", kappa=1.0))


def test_the_default_grids() -> None:
    config = FitConfig()
    assert shown(config, "sft", "learning_rate") == [5e-4, 2e-3]
    assert shown(config, "dpo", "learning_rate", "beta") == [(5e-5, 0.1), (2e-4, 0.1)]
    assert shown(config, "early", "learning_rate", "beta", "dpo_weight", "rl_weight") == [
        (5e-4, 0.1, None, 0.0),
        (2e-3, 0.1, None, 0.0),
    ]
    assert shown(config, "rl", "learning_rate", "beta", "kappa", "loss") == [
        (5e-5, 0.1, 1.0, "pairwise"),
        (2e-4, 0.1, 1.0, "pairwise"),
    ]


def test_the_grid_by_hand() -> None:
    made = FitConfig(
        methods=("sft", "dpo", "early"),
        hyperparameters={
            "sft": {"learning_rate": (1e-4, 3e-4)},
            "dpo": {"learning_rate": 1e-5, "beta": (0.1, 0.5)},
            "early": {"learning_rate": 1e-4, "beta": (0.1, 0.5), "dpo_weight": (1, 2)},
        },
        select="cost",
    )
    assert shown(made, "sft", "learning_rate") == [1e-4, 3e-4]
    assert [trial.name for trial in made.trials("dpo")] == ["lr1e-05-beta0.1", "lr1e-05-beta0.5"]
    # The first field that has several values changes last.
    assert shown(made, "early", "beta", "dpo_weight") == [(0.1, 1), (0.1, 2), (0.5, 1), (0.5, 2)]
    written = json.loads(made.model_dump_json())
    assert written["hyperparameters"]["early"]["dpo_weight"] == [1.0, 2.0]
    assert FitConfig(**written) == made
    apart = FitConfig(methods=("dpo", "early"), hyperparameters={"early": {"beta": 3.0}})
    assert shown(apart, "dpo", "beta") == [0.1, 0.1] and shown(apart, "early", "beta") == [3.0, 3.0]


def test_values_are_numbers_whatever_they_were_written_as() -> None:
    one = FitConfig(**of("dpo", beta="0.5", learning_rate=["1e-5", 2e-5]))
    assert one == FitConfig(**of("dpo", beta=0.5, learning_rate=(1e-5, 2e-5)))
    assert shown(one, "dpo", "beta") == [0.5, 0.5]


def test_each_trial_stands_once_in_its_grid() -> None:
    repeated = METHODS.get("sft").hyperparameters.grid({"learning_rate": (1e-3, 1e-4, 1e-3)})
    assert [trial.learning_rate for trial in repeated] == [1e-3, 1e-4]
    # What is of no use at these values makes no further trial: without a weight there is no RL term.
    rl = {"kappa": (0.0, 1.0), "rl_beta": (0.1, 0.2), "rl_loss": ("pairwise", "weighted")}
    grid = METHODS.get("early").hyperparameters.grid
    assert len(grid({"learning_rate": (1e-4,), "rl_weight": (0.0,), **rl})) == 1
    assert len(grid({"learning_rate": (1e-4,), "rl_weight": (0.5,), **rl})) == 8
    assert len(grid({"learning_rate": (1e-4,), "rl_weight": (0.0, 0.5), **rl})) == 9
    # They differ in what is shown of them, and so do their folders.
    names = [trial.name for trial in grid({"rl_weight": (0.0, 0.5), **rl})]
    assert len(set(names)) == len(names) == 18
    assert not any(word in names[0] for word in ("kappa", "rl_beta", "rl_loss"))


def test_a_trial_without_rl_needs_no_cost_model() -> None:
    without = FitConfig(methods=("sft", "early"))
    assert without.needs == {"reference"} and FitConfig(methods=("sft",)).needs == frozenset()
    with_rl = without.changed({"early.rl_weight": 0.5})
    assert with_rl.needs == {"reference", "cost_model"}
    both = without.changed({"early.rl_weight": (0, 0.5), "select": "cost"})
    assert [bool(trial.needs - {"reference"}) for trial in both.trials("early")] == [False, True] * 2


class Spelled(Hyperparameters):
    """One of each kind of value that a method from outside may have."""

    words: str = hyperparameter("a/b", "../up", "with space", "Zoë", symbol="words", description="Words.")
    size: int = hyperparameter(3, -3, symbol="size", description="A size.")
    strong: bool = hyperparameter(True, False, symbol="strong", description="Yes or no.")


class Outside(SFT):
    """A method that another package brings."""

    name = "outside"
    hyperparameters: ClassVar[type[Hyperparameters]] = Spelled


@pytest.mark.parametrize("name", [*METHODS, "outside"])
def test_the_name_of_a_trial_is_safe_in_a_path_and_its_own(name: str) -> None:
    method = Outside() if name == "outside" else METHODS.get(name)
    fields = method.hyperparameters.model_fields
    small = {"learning_rate": (1e-30, 2.5e-5, 2.5000001e-5, 1e30), "epochs": (None, 0.125, 1e6)}
    grid = method.hyperparameters.grid({key: small[key] for key in small if key in fields})
    trials = [Trial(method, point) for point in grid]
    names = [trial.name for trial in trials]
    assert len(names) >= 12 and len(set(names)) == len(names)
    for each in names:
        assert re.fullmatch(r"[\w.+%-]+", each, re.ASCII) and each[0].isalnum(), each
        assert len(each) < 200


def test_a_configuration_is_changed_field_by_field_and_hyperparameter_by_hyperparameter() -> None:
    before = FitConfig(**of("dpo", beta=0.5, learning_rate=1e-5), lora={"rank": 4}, epochs=7)
    after = before.changed({"dpo.beta": 0.2, "sft.learning_rate": (1e-3, 2e-3), "epochs": 2, "seed": 5})
    assert (after.epochs, after.seed, after.lora.rank, after.methods) == (2, 5, 4, ("dpo",))
    assert shown(after, "dpo", "learning_rate", "beta") == [(1e-5, 0.2)]
    assert shown(after, "sft", "learning_rate") == [1e-3, 2e-3]
    assert (before.epochs, shown(before, "dpo", "beta")) == (7, [0.5])  # is as it was
    assert before.changed({}) == before
    assert after.changed({"dpo.beta": 0.5}).changed({"dpo.beta": 0.2}) == after


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"epoch": 3}, "epoch"),
        ({"epochs": -1}, "epochs"),
        ({"dpo.size": 3}, "dpo.size"),
        ({"dpo.beta": -1}, "dpo.beta"),
        ({"ppo.beta": 1}, "ppo"),
        ({"dpo.beta": (0.1, 1)}, "select cost"),
        ({"dpo.": 1}, "dpo."),
        ({".beta": 1}, ""),
        ({"lora.rank": 4}, "lora"),
    ],
)
def test_a_change_that_makes_no_sense_is_one_line(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(EditLoopError) as caught:
        FitConfig().changed(changes)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    for name, field in FitConfig.model_fields.items():
        assert field.description and field.description.endswith("."), name
        extra = field.json_schema_extra
        assert isinstance(extra, dict) and extra["section"], name
