"""Methods are known by their objects: no code outside of their own files knows one by name."""

from __future__ import annotations

import ast
from pathlib import Path

import editloop
from editloop.offline import METHODS

SOURCE = Path(editloop.__file__).parent
ALLOWED = {
    "offline/methods/": "a method's own file, and the registry",
    "lab/": "the settings of the paper's tables name the paper's methods",
    "theory/": "the paper's claims are about these methods",
    "diagnosis/": "advice on which method suits a log names methods",
    "edits/exports/": "formats that other tools have for these methods",
    "offline/config.py": "the default of FitConfig.methods",
    "cli/serve.py": "what the demo of the server trains for the lab's domain",
    "online/state.py": "the events that came early, which are no method",
}
"""Where the name of a method may stand in code, and why."""


def names_in(path: Path) -> list[int]:
    """Lines of code, without documentation, in which a text is the name of a method."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in set(METHODS):
            found.append(node.lineno)
    return found


def test_no_code_outside_the_methods_knows_one_by_its_name() -> None:
    known = {str(path.relative_to(SOURCE)): names_in(path) for path in sorted(SOURCE.rglob("*.py"))}
    outside = {name: lines for name, lines in known.items() if lines and not name.startswith(tuple(ALLOWED))}
    assert outside == {}
    assert len(known["offline/config.py"]) == 3  # the default, and nothing else
    assert known["offline/methods/sft.py"]  # else this test would find nothing anywhere
