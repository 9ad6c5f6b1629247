"""A state folder has one owner, and what replicas that are gone have left in their spools is not lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from editloop.errors import StoreError
from editloop.journal import append_rows, read_rows
from editloop.serve.loop.state_folder import adopt_spools, claim_folder, worker_folder


def leave(folder: Path, *numbers: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    append_rows(folder / "spool.jsonl", [{"n": n} for n in numbers])


def spooled(folder: Path) -> list[int]:
    return [row["n"] for row in read_rows(folder / "spool.jsonl", StoreError)]


def test_a_folder_has_one_owner(tmp_path: Path) -> None:
    mine = claim_folder(tmp_path / "state")
    with pytest.raises(StoreError, match="another process has this state folder"):
        claim_folder(tmp_path / "state")
    os.close(mine)
    os.close(claim_folder(tmp_path / "state"))
    with pytest.raises(StoreError, match="cannot be written"):
        claim_folder(Path("/proc/none"))


def test_fewer_workers_write_what_more_have_left(tmp_path: Path) -> None:
    leave(tmp_path, 1)
    for number in (1, 2, 3):
        leave(worker_folder(tmp_path, number), 10 * number, 10 * number + 1)
    assert adopt_spools(tmp_path, 2) == 3
    assert spooled(worker_folder(tmp_path, 1)) == [10, 11, 1, 30, 31]
    assert spooled(worker_folder(tmp_path, 2)) == [20, 21]
    assert spooled(tmp_path) == spooled(worker_folder(tmp_path, 3)) == []
    assert adopt_spools(tmp_path, 2) == 0


def test_one_replica_writes_what_workers_have_left(tmp_path: Path) -> None:
    assert adopt_spools(tmp_path / "new") == 0
    leave(worker_folder(tmp_path, 4), 1, 2)
    with (worker_folder(tmp_path, 4) / "spool.jsonl").open("a") as file:
        file.write('{"n": 3, "cut')
    assert adopt_spools(tmp_path) == 2
    assert spooled(tmp_path) == [1, 2]


def test_a_folder_that_is_in_use_is_left_alone(tmp_path: Path) -> None:
    leave(worker_folder(tmp_path, 1), 1)
    held = claim_folder(worker_folder(tmp_path, 1))
    with pytest.raises(StoreError, match="another process has this state folder"):
        adopt_spools(tmp_path)
    os.close(held)
    assert spooled(worker_folder(tmp_path, 1)) == [1]
