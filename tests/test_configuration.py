"""Configurations: frozen, and a wrong value is one line that says where, what and why."""

from __future__ import annotations

import math
from typing import Any

import pytest

from editloop.configuration import Configuration, setting
from editloop.errors import ConfigError
from editloop.offline import FitConfig
from editloop.online import BanditConfig


class Oven(Configuration):
    heat: float = setting(180.0, "Degrees.", section="Heat", common=True, gt=0, le=300)
    steps: tuple[int, ...] = setting((1, 2), "Minutes of each step.")


def test_a_field_says_all_that_is_known_of_it() -> None:
    field = Oven.model_fields["heat"]
    assert (field.default, field.description) == (180.0, "Degrees.")
    assert field.json_schema_extra == {"section": "Heat", "common": True}
    assert Oven(heat=200, steps=[3]).model_dump() == {"heat": 200.0, "steps": (3,)}


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"heat": 0}, "heat: Input should be greater than 0: 0"),
        ({"heat": math.nan}, "heat: Input should be a finite number: nan"),
        ({"heat": "hot"}, "heat: Input should be a valid number, unable to parse string as a number: 'hot'"),
        ({"steps": [1, "two"]}, "steps.1: Input should be a valid integer"),
        ({"cold": 1}, "cold: Extra inputs are not permitted: 1"),
    ],
)
def test_a_wrong_value_is_one_line(values: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as failure:
        Oven(**values)
    assert str(failure.value).startswith(line) and "\n" not in str(failure.value)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Oven().heat = 1.0  # type: ignore[misc]


@pytest.mark.parametrize("model", [FitConfig, BanditConfig])
def test_every_field_has_a_description_and_a_section(model: type[Configuration]) -> None:
    for name, field in model.model_fields.items():
        extra: Any = field.json_schema_extra
        assert field.description and field.description.endswith("."), name
        assert extra["section"], name
