"""Measurements in a process of their own, so that time, memory and caches of one do not touch another's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

from benchmarks import ROOT
from editloop.errors import RunError

__all__ = ["in_process"]


def in_process(module: str, argument: Callable[[str], str], name: str) -> dict[str, Any]:
    """Run a module with one argument, and return the JSON object on the last line that it prints.

    Its caches are in a folder that is empty at the start and removed at the end.

    Args:
        module: The module, as `python -m` takes it.
        argument: Returns the argument, given that folder.
        name: What is measured, for the error.

    Returns:
        What the module printed, with `wall`: the seconds from start to end.

    Raises:
        RunError: It failed; the error has the end of its output.
    """
    with tempfile.TemporaryDirectory() as folder:
        caches = {"HF_DATASETS_CACHE": f"{folder}/datasets", "EDITLOOP_CACHE": f"{folder}/editloop"}
        environment = os.environ | caches | {"TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-m", module, argument(folder)]
        start = time.perf_counter()
        child = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        wall = time.perf_counter() - start
    if child.returncode:
        raise RunError(f"{name} failed", seen=child.stderr[-2000:])
    measured: dict[str, Any] = json.loads(child.stdout.splitlines()[-1])
    return measured | {"wall": wall}
