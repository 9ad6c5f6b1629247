"""The README's Python runs as it stands, on a log and a base of the lab."""

from __future__ import annotations

import importlib
import json
import re
import sys
from pathlib import Path

from editloop.lab import base_path, get_domain, make_log
from editloop.policy import load_base
from editloop.registry import Registry
from editloop.users import get_user

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    code, replaced = re.subn("Qwen/Qwen3-0.6B", str(base_path("email")), code)
    assert replaced == 1
    domain = get_domain("email")
    records = make_log(domain, get_user("strong", domain), 60, 0, policy=load_base(base_path("email")))
    foreign = [{"id": r.id, "prompt": r.context, "draft": r.response, "final": r.edit} for r in records]
    monkeypatch.chdir(tmp_path)
    for name, rows in (("edits.jsonl", foreign[:40]), ("held-out.jsonl", foreign[40:])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    exec(compile(code, str(README), "exec"), {})
    out = capsys.readouterr().out
    assert "'0.5'" in out  # the cost's quantiles
    assert all(f"'{name}': " in out for name in ("base", "sft", "dpo", "early"))
    for name in ("mean", "se", "n", "interval"):  # an accuracy is never without what it is worth
        assert f"'{name}': " in out


def test_the_readme_says_how_to_install_it_and_where_the_command_is():
    text = README.read_text(encoding="utf-8")
    assert len(text.splitlines()) < 80
    for page in (text, (README.parent / "docs/start.md").read_text(encoding="utf-8")):
        install = page.partition("\n## Install\n")[2].partition("\n## ")[0]
        assert ".venv/bin/pip install -c constraints.txt -e '.[train]'" in install
        assert ".venv/bin/editloop --help" in install
    made = (README.parent / "Makefile").read_text(encoding="utf-8")
    assert "VENV := .venv" in made and 'pip install -q -c constraints.txt -e ".[train]"' in made


def test_hints_can_be_typed(monkeypatch, tmp_path):
    """They call the command as it was called, and read another log as this one was read."""
    from editloop.cli.console import called
    from editloop.cli.reading import Reading

    assert Reading().again() == ""
    given = Reading(map="context=my prompt,edit=final", keep_duplicates=True, quarantine=Path("bad.jsonl"))
    assert given.again() == " --map 'context=my prompt,edit=final' --keep-duplicates"
    assert Reading(user=["ada", "Bo Li"]).again() == " --user ada --user 'Bo Li'"
    script = tmp_path / "bin/editloop"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    for path, typed, expected in [
        ("/nowhere", "bin/editloop", "bin/editloop"),
        (str(script.parent), str(script), "editloop"),
        ("/nowhere", "editloop", "editloop"),
        ("/nowhere", "src/editloop/__main__.py", f"{Path(sys.executable).name} -m editloop"),
    ]:
        monkeypatch.setenv("PATH", path)
        monkeypatch.setattr(sys, "argv", [typed])
        assert called() == expected


def test_the_links_of_all_pages_lead_somewhere():
    root = README.parent
    for page in (*root.glob("*.md"), *root.glob("docs/**/*.md")):
        links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text(encoding="utf-8"))
        assert [link for link in links if not (page.parent / link).exists()] == [], page


def test_the_readme_names_every_verb():
    from typer.main import get_command

    from editloop.cli import app

    text = README.read_text(encoding="utf-8")
    assert [verb for verb in get_command(app).commands if not re.search(rf"`{verb}[ `]", text)] == []


def test_the_parts_that_contributing_names_are_there():
    text = (README.parent / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| [a-z ]+ \| `(\S+)\.(\w+)` \| `(\S+)` \| `(\S+)` \|$", text, re.MULTILINE)
    assert len(rows) == 13
    for module, name, group, example in rows:
        registry = getattr(importlib.import_module(module), name)
        assert isinstance(registry, Registry) and registry.group == group
        assert (README.parent / "src/editloop" / example).is_file()
