"""The rooms import downward only, export what they say, and stay light where they are to be light."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import editloop
from editloop import errors

SOURCE = Path(editloop.__file__).parent
# Top to bottom, as in docs/design.md; a room may import those after it.
ROOMS = [
    "cli",
    "serve",
    "autopilot",
    "diagnosis",
    "theory",
    "lab",
    "users",
    "online",
    "offline",
    "policy",
    "store",
    "edits",
    "sandbox",
]
GROUND = {
    "configuration",
    "errors",
    "estimates",
    "intervals",
    "io",
    "extras",
    "journal",
    "lazy",
    "parallel",
    "progress",
    "registry",
    "results",
}  # modules that every room may import
FILES = sorted(path for path in SOURCE.rglob("*.py") if path.parent != SOURCE)


def imported_rooms(path: Path) -> set[str]:
    """Rooms and ground modules that a file imports, at its top or inside its functions."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    parts = [name.split(".") for name in names]
    known = set(ROOMS) | GROUND
    return {p[1] for p in parts if p[0] == "editloop" and len(p) > 1 and p[1] in known}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(SOURCE)))
def test_a_room_imports_downward_only(path):
    room = path.relative_to(SOURCE).parts[0]
    below = set(ROOMS[ROOMS.index(room) :]) | GROUND
    assert imported_rooms(path) <= below


@pytest.mark.parametrize("name", sorted(GROUND))
def test_a_ground_module_imports_the_ground_alone(name):
    assert imported_rooms(SOURCE / f"{name}.py") <= GROUND


def test_every_folder_is_a_room_that_is_named_here():
    folders = {path.relative_to(SOURCE).parts[0] for path in FILES}
    assert folders <= set(ROOMS)
    assert {path.stem for path in SOURCE.glob("*.py")} <= GROUND | {"__init__", "__main__"}


@pytest.mark.parametrize(
    "room",
    [
        "edits",
        "policy",
        "offline",
        "online",
        "users",
        "lab",
        "theory",
        "diagnosis",
        "serve",
        "store",
        "sandbox",
    ],
)
def test_names_of_a_room_agree_with_what_it_imports(room):
    module = importlib.import_module(f"editloop.{room}")  # ruff keeps __all__ sorted
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    mine = [node for node in found if node.module.startswith(f"editloop.{room}.")]
    imported = [alias.name for node in mine for alias in node.names]
    assert sorted(module.__all__) == sorted(imported)
    assert all(hasattr(module, name) for name in module.__all__)  # some are loaded when they are asked for


def test_top_level_names_are_there_and_no_others():
    assert set(editloop.__all__) == {name for names in editloop._MODULES.values() for name in names}
    for name in editloop.__all__:
        assert getattr(editloop, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = editloop.nonsense


def test_what_a_package_has_is_listed_before_it_is_used():
    code = (
        "import editloop, editloop.policy, editloop.serve\n"
        "for package in (editloop, editloop.policy, editloop.serve):\n"
        "    assert set(package.__all__) <= set(dir(package)), package"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert {*errors.__all__, "Bandit", "BanditConfig", "diagnose"} <= set(editloop.__all__)


@pytest.mark.parametrize("room", ["", *ROOMS])
def test_no_name_of_a_lazy_package_is_that_of_a_module_in_it(room):
    """Once the module is imported, the package's attribute would be the module, and not what is meant."""
    package = importlib.import_module(f"editloop.{room}".rstrip("."))
    lazy = {name for names in getattr(package, "_MODULES", {}).values() for name in names}
    assert {path.stem for path in (SOURCE / room).iterdir()} & lazy == set()


@pytest.mark.parametrize(
    "code",
    [
        "import editloop",
        "import editloop.edits",
        "import editloop.online",
        "from editloop.policy import RunFolder",
        "import editloop.serve.backends.upstream",
        "from editloop.cli import app",
        "import sys; sys.argv = ['editloop', '--help']\nfrom editloop.cli import main\n"
        "try: main()\nexcept SystemExit: pass",
    ],
)
def test_light_imports_load_no_model_library(code):
    check = "\nimport sys\nprint('LOADED', sorted({'torch', 'transformers', 'datasets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "LOADED []"


def test_a_client_needs_no_server():
    code = "import editloop, sys; editloop.Client('http://x')\n"
    code += "print({'fastapi', 'sqlalchemy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_no_file_is_long():
    files = SOURCE.rglob("*.py")
    lengths = {str(path.relative_to(SOURCE)): len(path.read_text().splitlines()) for path in files}
    assert {name: length for name, length in lengths.items() if length > 400} == {}


def test_benchmarks_serve_no_other_tests():
    tests = Path(__file__).parent
    users = [
        str(path.relative_to(tests))
        for path in tests.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "benchmarks"
    ]
    assert users and {name for name in users if not name.startswith("benchmarks")} == set()
