"""Configurations: models whose fields are the only place for a default, a range and a help text.

The command's flags (`editloop.cli.configured`), YAML files and the documentation are made from the fields.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from editloop.errors import ConfigError

__all__ = ["Configuration", "read_yaml", "setting"]


class Configuration(BaseModel):
    """A frozen configuration. A wrong value is a `ConfigError` of one line, wherever the value comes from.

    Pydantic calls `__init__` for `model_validate` and for a model in a model, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "configuration"
            # Pydantic's own words before the text of a ValueError that a validator raised.
            message = str(first["msg"]).removeprefix("Value error, ")
            # Without a field, the input is the whole configuration, which says nothing.
            seen = first["input"] if first["loc"] else None
            raise ConfigError(f"{where}: {message}", seen=seen) from error


def setting(
    default: Any,
    description: str,
    *,
    section: str = "",
    common: bool = False,
    flat: bool = False,
    **limits: Any,
) -> Any:
    """A field of a configuration.

    Args:
        default: Its default.
        description: What it is, in a sentence or two.
        section: The heading under which help and documentation show it.
        common: Whether the short help shows it.
        flat: For a field that is a configuration itself: whether its fields' flags are named without its
            name, `--alpha` instead of `--bandit-alpha`.
        **limits: Those of pydantic's `Field`: `gt`, `ge`, `lt`, `le`.
    """
    extra: dict[str, Any] = {"section": section, "common": common} | ({"flat": True} if flat else {})
    return Field(default=default, description=description, json_schema_extra=extra, **limits)


def read_yaml(path: Path, what: str) -> Any:
    """Return the content of a YAML file.

    Args:
        path: The file.
        what: What it holds, for the error message.

    Raises:
        ConfigError: The file cannot be read, or is not YAML.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the {what}: {error.strerror}", seen=str(path)) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"the {what} is not YAML", seen=str(path)) from error
