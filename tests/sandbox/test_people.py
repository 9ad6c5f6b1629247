"""The harness on tasks of people: right solutions pass, and the bugs that people put into them do not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from editloop.sandbox import Program, Sandbox

DATA = Path(os.environ.get("EDITLOOP_DATA", Path(__file__).parents[2] / "../shared/data"))
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no tasks in {DATA}; set EDITLOOP_DATA")


def rows(name: str) -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def passed(sandbox: Sandbox, scripts: list[str]) -> list[bool]:
    return [each.done for each in sandbox.run([Program(script) for script in scripts])]


def test_right_solutions_pass_and_bugs_do_not(sandbox: Sandbox) -> None:
    tasks = rows("humanevalfix_python.jsonl")
    assert len(tasks) == 164
    assert sum(passed(sandbox, [f"{each['edit']}\n{each['test']}" for each in tasks])) == 164
    assert sum(passed(sandbox, [f"{each['response']}\n{each['test']}" for each in tasks])) == 0


def test_the_references_that_pass_elsewhere_pass_here(sandbox: Sandbox) -> None:
    tasks = rows("mbpp_sanitized.jsonl")
    scripts = [f"{each['solution']}\n{each['test']}\ncheck({each['entry_point']})" for each in tasks]
    found = passed(sandbox, scripts)
    assert sum(found) == 416
    assert found == [bool(each["reference_passes"]) for each in tasks]
