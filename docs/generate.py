"""Writes `docs/command.md` from the command itself; `--check` fails where the page is stale."""

from __future__ import annotations

import os
import sys
from pathlib import Path

PAGE = Path(__file__).parent / "command.md"


def page() -> str:
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


def main() -> int:
    """Write the page, or check it."""
    fresh = page()
    if "--check" not in sys.argv:
        PAGE.write_text(fresh, encoding="utf-8")
        return 0
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != fresh:
        print(f"{PAGE} is stale: run make docs", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
