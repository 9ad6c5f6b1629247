"""The domains by name, and where the base model of each lies.

This module loads neither torch nor transformers.
"""

from __future__ import annotations

from pathlib import Path

from editloop.errors import ConfigError
from editloop.lab.email import EMAIL
from editloop.lab.grammar import Domain
from editloop.lab.summary import SUMMARY

__all__ = ["base_path", "get_domain"]

_DOMAINS = {domain.name: domain for domain in (EMAIL, SUMMARY)}


def get_domain(name: str) -> Domain:
    """The domain of that name.

    Raises:
        ConfigError: There is no such domain.
    """
    if name not in _DOMAINS:
        raise ConfigError("there is no such domain", seen=name, do=f"use one of {', '.join(_DOMAINS)}")
    return _DOMAINS[name]


def base_path(name: str) -> Path:
    """The folder of the domain's base model (the base `lab:NAME`), in Hugging Face format.

    Raises:
        ConfigError: There is no such domain.
    """
    return Path(__file__).parent / "assets" / get_domain(name).name
