"""Python as it is after `pip install editloop`: what only an extra installs is not found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PRELUDE = """
import sys

class Blocked:
    modules = {modules!r}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.modules:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Blocked())
"""


def python(code: str, blocked: set[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own in which these modules cannot be found."""
    code = PRELUDE.format(modules=blocked) + code
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=folder)


def command(arguments: list[str], blocked: set[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command `editloop` in a process of its own in which these modules cannot be found."""
    code = f"sys.argv = ['editloop', *{arguments!r}]\nfrom editloop.cli import main\nmain()\n"
    return python(code, blocked, folder)
