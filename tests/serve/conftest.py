"""Fixtures of the dashboard's tests: a server on loopback, and pages of a real Chromium."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsers import launched
from browsing import SIZES, Open
from site_server import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with launched() as browser:
        yield browser


@pytest.fixture
def open_page(chromium: Any, site: Site) -> Iterator[Open]:
    """Opens a page at a size. At the end, no page may have written to its console."""
    said: list[str] = []
    contexts = []

    def opened(name: str = "overview", size: str = "desktop", expected: str = "", **options: Any) -> Any:
        width, height = SIZES[size]
        context = chromium.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(15_000)
        contexts.append(context)
        page = context.new_page()

        def hear(message: Any) -> None:
            if not (expected and re.search(expected, message.text)):
                said.append(message.text)

        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: said.append(f"a dialog: {dialog.message}"))
        page.goto(f"{site.url}/#{name}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []
