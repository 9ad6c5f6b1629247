"""The language of the code: no retired name or word, and functions that are short enough to read."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "editloop"

RETIRED_NAMES = {
    "Room", "room_of", "Desk", "Question", "Answered", "Streamed", "Pen", "Gate", "Ask", "Finish", "Route",
    "Refused", "Unanswered", "Candidate", "Priced", "price", "paid", "_Told", "told", "heard", "say",
    "Listener", "Silent", "AT_ONCE", "TEND_EVERY", "STANDS_STILL", "lazily", "people", "candidates",
    "alternatives",
}  # fmt: skip
"""Names of the first version; docs/design.md and CONTRIBUTING.md have today's."""

RETIRED_WORDS = ("foretold", "mend", "lazily", "told", "heard", "paid", "listener")
"""Words of the first version's messages and documentation that had no meaning outside it."""


def tracked(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / name for name in listed.stdout.split("\n") if name and (ROOT / name).is_file()]


def names_of(tree: ast.AST) -> Iterator[str]:
    """Every name that a module defines, imports, asks for, or passes by keyword."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node.name
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, (ast.arg, ast.keyword)):
            yield node.arg or ""
        elif isinstance(node, ast.alias):
            yield node.name.rpartition(".")[2]


@pytest.mark.parametrize(
    "path", tracked("src/*.py", "benchmarks/*.py", "examples/*.py"), ids=lambda p: str(p.relative_to(ROOT))
)
def test_no_retired_name_is_left(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {name.lstrip("_") for name in (*names_of(tree), path.stem)}
    assert names & {name.lstrip("_") for name in RETIRED_NAMES} == set()


def test_no_retired_word_is_left() -> None:
    pattern = re.compile(rf"(?<![a-z])({'|'.join(RETIRED_WORDS)})(?![a-z])", re.IGNORECASE)
    files = [*tracked("src/*", "docs/*.md", "*.md", "benchmarks/*.py", "examples/*")]
    texts = [
        path for path in files if path.suffix in (".py", ".md", ".js", ".html", ".toml", ".yaml", ".ipynb")
    ]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in texts
        for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
        # What a model wrote is quoted in the pages of results, and is not ours to word.
        if pattern.search(line) and not (path.parent.name == "results" and line.startswith("> "))
    ]
    assert found == []


def test_functions_and_files_are_short_enough_to_read() -> None:
    long, lengths = [], []
    for path in SOURCE.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        lengths.append(text.count("\n"))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or 0) - node.lineno + 1
                reason = " ".join((ast.get_docstring(node) or "").split()).lower()
                if lines > 60 and not re.search(r"\b(in one piece|long) because ", reason):
                    long.append(f"{path.relative_to(SOURCE)}: {node.name}, {lines} lines")
    assert long == []
    assert statistics.median(lengths) <= 200


def test_no_private_module_or_name_of_another_library_is_imported() -> None:
    found = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("editloop"):
                parts = [*node.module.split("."), *(alias.name for alias in node.names)]
            elif isinstance(node, ast.Import):
                parts = [part for alias in node.names for part in alias.name.split(".")]
            else:
                continue
            if private := [part for part in parts if part.startswith("_") and not part.startswith("__")]:
                found.append(f"{path.relative_to(SOURCE)}: {private}")
    assert found == []
