"""Writes what the documentation takes from the code; `--check` fails where that is stale.

`docs/command.md` is the help of every verb, and `docs/methods.md` has a table of the training methods.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

DOCS = Path(__file__).parent
BEGIN, END = "<!-- methods -->\n", "<!-- /methods -->\n"


def command() -> str:
    """The help of every verb, as on a terminal of 80 columns."""
    os.environ["COLUMNS"] = os.environ["TERMINAL_WIDTH"] = "80"
    from typer.main import get_command
    from typer.testing import CliRunner

    from editloop.cli import app

    runner = CliRunner()
    parts = ["# The command\n\nMade by `make docs`. A `--config` file has the same names as the flags.\n"]
    verbs = [[]]
    for name, command in sorted(get_command(app).commands.items()):
        verbs += [[name]] + [[name, sub] for sub in sorted(getattr(command, "commands", {}))]
    for verb in verbs:
        command = get_command(app)
        for name in verb:
            command = command.commands[name]
        has_more = any(parameter.name == "help_all" for parameter in command.params)
        asked = [*verb, "--help-all" if has_more else "--help"]
        text = runner.invoke(app, asked, prog_name="editloop", env={"COLUMNS": "80"}).output
        title = " ".join(["editloop", *verb])
        parts.append(f"## {title}\n\n```\n{text.strip()}\n```\n")
    return "\n".join(line.rstrip() for line in "\n".join(parts).split("\n"))


def methods(page: str) -> str:
    """The page with its table of methods as the code has them: what each does, learns from, and its loss."""
    from editloop.offline.methods import METHODS

    rows = ["| name | what it does | rows that it needs | its loss |", "|---|---|---|---|"]
    for name in METHODS.built_in:
        method = METHODS.get(name)
        loss = (type(method).loss.__doc__ or "").split("\n")[0].removesuffix(".")
        rows.append(f"| `{name}` | {method.summary} | {method.learns_from} | {loss} |")
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + "\n".join(rows) + "\n" + END + rest.partition(END)[2]


def main() -> int:
    """Write the pages, or check them."""
    about_methods = DOCS / "methods.md"
    fresh = {
        DOCS / "command.md": command(),
        about_methods: methods(about_methods.read_text(encoding="utf-8")),
    }
    for page, text in fresh.items():
        if "--check" not in sys.argv:
            page.write_text(text, encoding="utf-8")
        elif not page.is_file() or page.read_text(encoding="utf-8") != text:
            print(f"{page} is stale: run make docs", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
