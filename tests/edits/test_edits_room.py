"""The room as a whole: what it exports, and what it must not import."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import editloop.edits as edits


def test_public_names_are_there() -> None:
    imported = {name for name in vars(edits) if not name.startswith("_") and name != "annotations"}
    modules = {path.stem for path in Path(edits.__path__[0]).iterdir()}
    assert imported - modules == set(edits.__all__) - modules
    assert all(hasattr(edits, name) for name in edits.__all__)


def test_heavy_libraries_are_not_loaded() -> None:
    heavy = ["torch", "transformers", "datasets", "pyarrow", "matplotlib", "pandas", "nltk"]
    code = f"import sys, editloop.edits; print([name for name in {heavy} if name in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


GROUND = ("editloop.errors", "editloop.extras", "editloop.io", "editloop.registry")
"""The modules of the package that the room needs; they import no room."""


def test_nothing_of_the_package_but_its_ground_is_imported() -> None:
    for path in Path(edits.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("editloop"):
                assert node.module.startswith("editloop.edits") or node.module in GROUND
