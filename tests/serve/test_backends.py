"""Serving backends are found by name, and those of other packages are used like the built-in ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving import Parrot, run, serving, sqlite

from editloop.cli import serve as command
from editloop.errors import ConfigError
from editloop.serve.backends import BACKENDS, make_backend
from editloop.serve.backends.base import Backend, BackendOptions


class Echo(Parrot):
    """A backend as another package would define it."""

    answer_seconds: float | None = 5.0

    def __init__(self, greeting: str) -> None:
        super().__init__()
        self.says = lambda arm, request: f"{greeting} from {arm}"

    @classmethod
    def from_options(cls, options: BackendOptions) -> Echo:
        return cls(options.extra["greeting"])


@pytest.fixture
def _echo() -> None:
    BACKENDS.register("echo", Echo)


def test_built_in_backends_are_made_from_the_options_that_concern_them() -> None:
    options = BackendOptions(url="http://127.0.0.1:1/v1", timeout=7.0, max_new_tokens=3)
    assert set(BACKENDS) >= {"local", "upstream"}
    for name, shown, seconds in (("local", "this process", None), ("upstream", "http://127.0.0.1:1/v1", 7.0)):
        backend = make_backend(name, options)
        assert isinstance(backend, Backend)
        assert (str(backend), backend.answer_seconds) == (shown, seconds)


@pytest.mark.parametrize("url", [None, "127.0.0.1:8000", "ftp://host"])
def test_an_upstream_needs_a_url(url: str | None) -> None:
    with pytest.raises(ConfigError, match="not the URL of a server"):
        make_backend("upstream", BackendOptions(url=url))


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown serving backend: 'none'"):
        make_backend("none", BackendOptions())


def test_a_class_that_is_no_backend_is_refused(_echo: None) -> None:
    with pytest.raises(ConfigError, match="lacks from_options"):
        BACKENDS.register("dict", dict)  # type: ignore[arg-type]


def test_a_registered_backend_serves(_echo: None, tmp_path: Path) -> None:
    backend = make_backend("echo", BackendOptions(extra={"greeting": "Good day"}))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, backend=backend) as service:
            answer = await service.ask()
            assert answer.json()["choices"][0]["message"]["content"] == "Good day from a@1"

    run(work())


def test_options_of_another_packages_backend_are_named() -> None:
    with pytest.raises(ConfigError, match="NAME=VALUE"):
        command._options(["greeting"])
    assert command._options(["greeting=a=b", "x="]) == {"greeting": "a=b", "x": ""}
