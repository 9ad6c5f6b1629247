"""An installed package that brings parts of its own, as the tests of the registries need one."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest


def install_plug_in(
    folder: Path, monkeypatch: pytest.MonkeyPatch, group: str, source: str, **parts: str
) -> None:
    """Write the package `outside_package` with this source, and put it on the path until the test ends.

    Args:
        folder: An empty folder.
        monkeypatch: Undoes it.
        group: The entry point group, `editloop.methods` say.
        source: The module's text.
        parts: Name of each part to its name in the module.
    """
    (folder / "outside_package.py").write_text(source, encoding="utf-8")
    about = folder / "outside_package-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: outside-package\nVersion: 1.0\n", encoding="utf-8"
    )
    lines = "".join(f"{name} = outside_package:{attribute}\n" for name, attribute in parts.items())
    (about / "entry_points.txt").write_text(f"[{group}]\n{lines}", encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "outside_package", raising=False)
