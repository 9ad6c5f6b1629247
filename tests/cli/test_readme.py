"""The README's Python runs as it stands, on a log and a base of the lab."""

from __future__ import annotations

import json
import re
from pathlib import Path

from editloop.lab import base_path, get_domain, make_log
from editloop.policy import load_base
from editloop.users import get_user

README = Path(__file__).parents[2] / "README.md"


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert len(code.strip().splitlines()) <= 12
    code, replaced = re.subn("Qwen/Qwen3-0.6B", str(base_path("email")), code)
    assert replaced == 1
    domain = get_domain("email")
    records = make_log(domain, get_user("strong", domain), 60, 0, policy=load_base(base_path("email")))
    foreign = [{"id": r.id, "prompt": r.context, "draft": r.response, "final": r.edit} for r in records[:40]]
    own = [{"id": r.id, "context": r.context, "response": r.response, "edit": r.edit} for r in records[40:]]
    monkeypatch.chdir(tmp_path)
    for name, rows in (("edits.jsonl", foreign), ("held-out.jsonl", own)):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    exec(compile(code, str(README), "exec"), {})
    out = capsys.readouterr().out
    assert "'0.5'" in out  # the cost's quantiles
    assert all(f"'{name}': " in out for name in ("base", "sft", "dpo", "early"))


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert links
    assert [link for link in links if not (README.parent / link).exists()] == []
