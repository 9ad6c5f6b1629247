"""What the server needs of an operating system: a lock that ends with its process, and nothing special."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from editloop.errors import StoreError
from editloop.store.database import Store

HOLD = """
import sys
from editloop.store.database import Store
Store(sys.argv[1]).open()
print("mine", flush=True)
input()
"""

# What Python's own asyncio takes from the system is its own affair; after that there is no fcntl any more.
WITHOUT = """
import asyncio, subprocess, sys, tempfile
sys.modules["fcntl"] = None
import editloop, editloop.serve
for module in (editloop, editloop.serve):
    for name in module.__all__:
        getattr(module, name)
import editloop.cli.serve, editloop.store.database
print("imported")
"""


def test_a_store_is_one_process_s_until_that_ends(tmp_path: Path) -> None:
    """Also if the process is killed: no file that is left behind keeps the next process out."""
    path = str(tmp_path / "edits.db")
    for _ in range(2):
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        try:
            assert holder.stdout is not None and holder.stdout.readline() == "mine\n"
            with pytest.raises(StoreError, match="another process serves from this store"):
                Store(path).open()
            tool = Store(path)
            tool.open(claim=False)  # a tool may look, and make keys
            tool.close()
        finally:
            holder.kill()
            holder.communicate()
    store = Store(path)
    store.open()
    store.close()


def test_nothing_of_one_operating_system_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.stdout == "imported\n", done.stderr
