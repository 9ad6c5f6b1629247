"""The script that is served is what the source in `clients/js` builds to; needs Node.js (`make clients`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "clients" / "js"


def npm(*arguments: str) -> None:
    if shutil.which("npm") is None:
        pytest.skip("Node.js is not installed")
    if not (PACKAGE / "node_modules").is_dir():
        pytest.skip("the client's tools are not installed: make clients")
    done = subprocess.run(["npm", *arguments], cwd=PACKAGE, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_script_is_what_the_source_builds_to(tmp_path: Path) -> None:
    npm("run", "bundle", "--", f"--outfile={tmp_path / 'client.js'}")
    served = files("editloop.serve.api").joinpath("static", "client.js").read_bytes()
    assert (tmp_path / "client.js").read_bytes() == served, "run make client"


def test_the_source_has_no_error_of_types(tmp_path: Path) -> None:
    npm("exec", "--", "tsc", "--outDir", str(tmp_path))
    types = (tmp_path / "client.d.ts").read_text(encoding="utf-8")
    for name in ("attach", "edited", "accepted", "discarded", "resend", "EditError", "Options", "Receipt"):
        assert f" {name}" in types


def test_the_package_has_the_version_of_the_library_and_no_dependency() -> None:
    package = json.loads((PACKAGE / "package.json").read_text(encoding="utf-8"))
    library = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert (package["version"], package["license"]) == (library["version"], library["license"])
    assert "dependencies" not in package
