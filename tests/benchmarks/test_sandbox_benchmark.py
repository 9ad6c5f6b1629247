"""The benchmark of the sandbox, on tasks whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import sandbox as benchmark
from editloop.errors import ConfigError
from editloop.sandbox import Sandbox


def test_right_solutions_pass_and_bugs_do_not(
    tmp_path: Path, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "SMALL", 4)
    check = "assert f(2) == 4"
    fix = {"edit": "def f(x): return 2 * x", "response": "def f(x): return x", "test": check}
    task = {"solution": fix["edit"], "test": f"def check(f): {check}", "entry_point": "f"}
    (tmp_path / "humanevalfix_python.jsonl").write_text(json.dumps(fix) + "\n")
    (tmp_path / "mbpp_sanitized.jsonl").write_text(f"{json.dumps(task)}\n" * 2)
    found = benchmark.run(tmp_path / "out", data=tmp_path)["results"]
    passed = {name: (each["passed"], each["programs"]) for name, each in found.items()}
    assert passed == {
        "small programs": (4, 4),
        "HumanEvalFix, right": (1, 1),
        "HumanEvalFix, with the bug": (0, 1),
        "MBPP references": (2, 2),
    }
    assert found["HumanEvalFix, with the bug"]["became"] == {"failed": 1}
    assert "| MBPP references | 2 | 2 | – |" in (tmp_path / "out/sandbox.md").read_text()


def test_missing_tasks_are_a_line(tmp_path: Path, sandbox: Sandbox) -> None:
    with pytest.raises(ConfigError, match="missing files of real edits"):
        benchmark.run(tmp_path, data=tmp_path)
