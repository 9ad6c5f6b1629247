"""Checks what is in a wheel and in a source distribution: `python .ci/contents.py WHEEL SDIST`."""

from __future__ import annotations

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def check(wheel: str, sdist: str) -> None:
    """Compare both with the source tree, and say what is missing or too much."""
    packed = set(zipfile.ZipFile(wheel).namelist())
    own = {name for name in packed if not name.partition("/")[0].endswith(".dist-info")}
    files = {path for path in (ROOT / "src/editloop").rglob("*") if path.is_file()}
    source = {str(path.relative_to(ROOT / "src")) for path in files if "__pycache__" not in path.parts}
    if own != source:
        raise SystemExit(f"the wheel is not src/editloop: {sorted(own ^ source)}")
    if not any(name.endswith("licenses/LICENSE") for name in packed):
        raise SystemExit("the wheel has no LICENSE")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "Makefile", "constraints.txt", "mkdocs.yml"}
    for folder in ("benchmarks", "clients/python", "docs", "examples", "tests"):
        wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py")}
    wanted |= {f"clients/js/{name}" for name in ("package.json", "package-lock.json", "src/client.ts")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "clients/node").glob("*.mjs")}
    wanted |= {str(path.relative_to(ROOT)) for path in (ROOT / "examples").glob("*.html")}
    if missing := sorted(wanted - names):
        raise SystemExit(f"the source distribution lacks {missing}")
    made = ("clients/js/node_modules", "clients/js/dist", "clients/node/node_modules")
    if built := sorted(name for name in names if name.startswith(made)):
        raise SystemExit(f"the source distribution has {built[0]}")


if __name__ == "__main__":
    check(*sys.argv[1:])
