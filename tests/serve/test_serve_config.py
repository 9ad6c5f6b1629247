"""The configuration of a server: every field is described, and its limits are those of the requests."""

from __future__ import annotations

from typing import Any

import pytest

from editloop.errors import ConfigError
from editloop.serve.api.limits import Limits
from editloop.serve.config import ServeConfig


def test_every_field_has_a_description_and_a_section() -> None:
    for name, field in ServeConfig.model_fields.items():
        extra: Any = field.json_schema_extra
        assert field.description and field.description.endswith("."), name
        assert extra["section"], name


def test_the_defaults_are_those_of_the_limits() -> None:
    assert ServeConfig().limits(answer_seconds=120.0) == Limits()
    given = ServeConfig(rate=2, concurrency=8, key_share=0.5, body_timeout=1, max_body=10, max_text=5)
    assert given.limits(None) == Limits(
        body=10, text=5, rate=2.0, concurrency=8, share=0.5, body_seconds=1.0, answer_seconds=None
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", 65536), ("scope", "team"), ("key_share", 0), ("expire_days", -1), ("rate", 0), ("max_body", 0)],
)
def test_a_wrong_value_names_its_field(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{field}: "):
        ServeConfig(**{field: value})


def test_a_wrong_value_of_the_bandit_names_it() -> None:
    with pytest.raises(ConfigError, match=r"discount: Input should be less than or equal to 1: 2"):
        ServeConfig(bandit={"discount": 2})
