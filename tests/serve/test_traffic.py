"""Simulated people write with a real server, which learns about its policies."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
from site_server import served

from editloop.edits import read_log
from editloop.lab import get_domain
from editloop.lab.traffic import PEOPLE, write_and_edit
from editloop.serve import AsyncClient


def test_people_write_and_edit(tmp_path: Path) -> None:
    with served(tmp_path) as (url, backend):
        text = "Hello Yuki,\nI see the budget is new.\nPlease reply by Thursday!\nRegards, Alex"
        backend.says = lambda arm, request: text

        async def write() -> int:
            async with AsyncClient(url) as client:
                return await write_and_edit(client, get_domain("email"), pause=0, seed=1, rounds=30)

        sent = asyncio.run(write())
        arms = httpx.get(f"{url}/v1/models").json()["data"]
        assert [each["id"] for each in arms] == ["editloop", "a@1", "b@2"]
    log = read_log(f"sqlite:///{tmp_path}/edits.db")
    seen = [record for record in log if record.is_observed]
    assert len(log) == 30 and 20 <= len(seen) == sent < 30
    assert {record.user for record in log} == set(PEOPLE)
    assert any(record.status == "edited" for record in seen)
