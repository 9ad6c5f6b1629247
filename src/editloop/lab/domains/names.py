"""The domains by name, and where the base model of each lies."""

from __future__ import annotations

from pathlib import Path

from editloop.errors import ConfigError
from editloop.lab.free import FreeTexts
from editloop.lab.world import LabDomain
from editloop.registry import Registry

__all__ = ["DOMAINS", "base_path", "free_texts", "get_domain"]

DOMAINS: Registry[LabDomain] = Registry(
    "domain",
    "editloop.domains",
    {
        "email": "editloop.lab.domains.email:EMAIL",
        "summary": "editloop.lab.domains.summary:SUMMARY",
        "code": "editloop.lab.domains.code:CODE",
    },
    attributes=("name", "contexts", "read", "wanted", "render", "parse", "base"),
)


def get_domain(name: str) -> LabDomain:
    """Return the domain of that name.

    Raises:
        ConfigError: There is no such domain.
    """
    return DOMAINS.get(name)


def free_texts(name: str) -> FreeTexts:
    """Return the free texts of the domain of that name.

    Raises:
        ConfigError: There is no such domain, or it has no free texts.
    """
    found = get_domain(name).free
    if found is None:
        raise ConfigError("this domain has no free texts", seen=name, do="use its own texts")
    return found


def base_path(name: str) -> Path:
    """Return the folder of the domain's base model (the base `lab:NAME`), in Hugging Face format.

    Raises:
        ConfigError: There is no such domain, or it comes without a base model.
    """
    folder = get_domain(name).base
    if folder is None:
        raise ConfigError("this domain has no base model", seen=name, do="train one by editloop lab pretrain")
    return folder
