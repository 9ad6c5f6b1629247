"""What all tests share: a cache of their own, and tiny random models in Hugging Face format."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from editloop.errors import SandboxError
from editloop.registry import Registry
from editloop.sandbox import Limits, Sandbox
from editloop.store.testing import Postgres, find_binaries
from llm_server import Server
from tiny import tiny_model, tiny_tokenizer

# A run says today what it said yesterday, on a machine of any speed; to search, load another profile.
settings.register_profile("alike", derandomize=True, deadline=None)
settings.load_profile("alike")


REGISTRIES = {
    "editloop.edits.cost": "COSTS",
    "editloop.edits.exports": "EXPORTS",
    "editloop.edits.formats": "FORMATS",
    "editloop.lab.domains": "DOMAINS",
    "editloop.serve.backends": "BACKENDS",
    "editloop.online.algorithms": "ALGORITHMS",
    "editloop.serve.in_context": "IN_CONTEXT",
    "editloop.serve.in_context.similarity": "SIMILARITIES",
}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's cache of reference passes."""
    monkeypatch.setenv("EDITLOOP_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def _own_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part that a test registers is no other test's."""
    for module, name in REGISTRIES.items():
        if module in sys.modules:  # not imported for this: the lab loads torch
            registry: Registry[Any] = getattr(sys.modules[module], name)
            monkeypatch.setattr(registry, "registered", dict(registry.registered))


@pytest.fixture(scope="session")
def make_sandbox() -> Callable[..., Sandbox]:
    """Make a sandbox with other limits than the usual ones."""
    try:
        Sandbox()
    except SandboxError as error:
        # Where it is known to be possible, its absence is a fault and not a reason to skip.
        if os.environ.get("EDITLOOP_NEEDS_SANDBOX"):
            raise
        pytest.skip(str(error))
    return lambda **limits: Sandbox(Limits(**limits))


@pytest.fixture(scope="session")
def sandbox(make_sandbox: Callable[..., Sandbox]) -> Sandbox:
    """A sandbox with the usual limits."""
    return make_sandbox()


@pytest.fixture
def server() -> Iterator[Server]:
    """An OpenAI-compatible endpoint on loopback."""
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


Base = Callable[..., Path]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    """Folders with a tiny model and tokenizer; equal arguments give the same folder: change a copy only."""
    made: dict[str, Path] = {}

    def make(
        family: str = "llama",
        *,
        chat: bool = False,
        pad: bool = True,
        eos: bool = True,
        seed: int = 0,
        **changes: Any,
    ) -> Path:
        key = repr((family, chat, pad, eos, seed, sorted(changes.items())))
        if key not in made:
            folder = tmp_path_factory.mktemp(f"base-{family}")
            tiny_model(family, seed=seed, **changes).save_pretrained(folder)
            tiny_tokenizer(chat=chat, pad=pad, eos=eos).save_pretrained(folder)
            made[key] = folder
        return made[key]

    return make


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    binaries = find_binaries()
    if binaries is None:
        if os.environ.get("EDITLOOP_TEST_ALL"):
            pytest.fail("PostgreSQL is not installed")
        pytest.skip("PostgreSQL is not installed")
    server = Postgres(binaries)
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/edits.db"
    return str(request.getfixturevalue("postgres").new())
