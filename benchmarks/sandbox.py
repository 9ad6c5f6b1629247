"""The sandbox on tasks of people: what passes, and how many programs it runs in a second.

HumanEvalFix has 164 functions with a bug that people put in, and the right ones; MBPP has references of
which 416 pass their tests elsewhere. A harness that is right passes the right ones and none of the bugs.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.real_edits import real_file
from editloop.progress import ProgressCallback, WarningCallback, counter
from editloop.results import markdown_table, write_result
from editloop.sandbox import Program, Sandbox

SMALL = 200
"""Programs that do next to nothing, so that what is timed is the sandbox."""


def run(
    out: str | Path, *, data: str | Path | None = None, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure and write `sandbox.json` and `sandbox.md`.

    Args:
        out: The folder for the results.
        data: The folder of real tasks; `EDITLOOP_DATA` or `../shared/data` if not given.
        callback: Receives progress.

    Raises:
        ConfigError: A file does not exist.
        SandboxError: No sandbox can be made here.
    """
    callback, sandbox = callback or WarningCallback(), Sandbox()
    fixes = _rows(real_file(data, "humanevalfix_python.jsonl"))
    tasks = _rows(real_file(data, "mbpp_sanitized.jsonl"))
    programs = {
        "small programs": ["x = 1"] * SMALL,
        "HumanEvalFix, right": [f"{each['edit']}\n{each['test']}" for each in fixes],
        "HumanEvalFix, with the bug": [f"{each['response']}\n{each['test']}" for each in fixes],
        "MBPP references": [
            f"{each['solution']}\n{each['test']}\ncheck({each['entry_point']})" for each in tasks
        ],
    }
    results = {name: _measured(name, scripts, sandbox, callback) for name, scripts in programs.items()}
    measured = {"workers": sandbox.workers, "limits": sandbox.limits.model_dump(), "results": results}
    write_result("sandbox", measured, _markdown(measured), out)
    return measured


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def _measured(
    name: str, scripts: Sequence[str], sandbox: Sandbox, callback: ProgressCallback
) -> dict[str, Any]:
    """How many scripts came to which end, and in which time."""
    started = time.monotonic()
    found = sandbox.run(
        [Program(script) for script in scripts], progress=counter(callback, name, len(scripts))
    )
    seconds = time.monotonic() - started
    return {
        "programs": len(scripts),
        "passed": sum(each.done for each in found),
        "became": dict(Counter(each.status for each in found)),
        "seconds": round(seconds, 2),
        "per_second": round(len(scripts) / seconds, 1),
    }


def _markdown(measured: Mapping[str, Any]) -> str:
    rows = []
    for name, found in measured["results"].items():
        others = ", ".join(f"{n} {status}" for status, n in found["became"].items() if status != "done")
        rows.append(
            [name, str(found["programs"]), str(found["passed"]), others or "–", f"{found['per_second']:.1f}"]
        )
    return (
        f"Scripts in the sandbox, {measured['workers']} at a time, each in a process and namespaces of its "
        "own. A script passes if it runs to its end.\n\n"
        + markdown_table(["programs", "run", "passed", "otherwise", "per second"], rows)
    )
