"""The whole loop: a policy is trained from the store and promoted, and the store knows that it learned."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from itertools import islice
from pathlib import Path

from serving import Service, run, serving

from editloop.cli.fit import _read
from editloop.cli.reading import Reading
from editloop.edits import locate
from editloop.lab import get_domain
from editloop.policy import RunFolder
from editloop.progress import WarningCallback
from editloop.users import get_user


async def fill(service: Service, rows: int, first: int = 0) -> None:
    """Rows of the email domain, edited by its strong user."""
    domain = get_domain("email")
    user = get_user("strong", domain, seed=0)
    text = "Hello Yuki,\nSo, teaching, you know? I see the budget is new.\nPlease reply!\nRegards, Alex"
    service.backend.says = lambda arm, request: text
    for i, context in enumerate(islice(domain.contexts(first), rows)):
        answer = await service.ask(context, user=f"u{i % 3}", id=f"r{first}-{i}")
        await service.edit(answer.json()["id"], user.edit(context, text, round=i))


def test_a_policy_is_trained_from_the_store_and_promoted(tmp_path: Path) -> None:
    url, out = f"sqlite:///{tmp_path}/edits.db", tmp_path / "run"
    command = [sys.executable, "-m", "editloop", "fit", url, "--base", "lab:email", "--out", str(out)]
    command += ["--methods", "sft", "--epochs", "1", "--validation-samples", "4", "--validation", "0.2"]

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await fill(service, 40)
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            assert "read 40 rows of edits.db" in done.stdout
            read = RunFolder(out).manifest().read
            assert read.store == service.loop.store.fact("salt") and read.rows == 40
            assert read.path is not None and read.path.startswith(f"sqlite:///{tmp_path}/edits.db?until=")
            body = {"run": str(out), "force": True, "replace": True}
            promoted = (await service.http.post("/v1/arms", json=body)).json()
            assert promoted["arms"][0].startswith("sft@")
            answer = await service.ask("Newcomer", user="u9")
            assert answer.json()["model"] == promoted["arms"][0]
            assert (await service.http.delete("/v1/users/u1")).json()["trained"] == [str(out)]
            assert (await service.http.delete("/v1/users/u9")).json()["trained"] == []

    run(work())


def test_an_interrupted_fit_goes_on_with_what_it_has_read(tmp_path: Path) -> None:
    url, out = f"sqlite:///{tmp_path}/edits.db", tmp_path / "run"

    async def work() -> None:
        async with serving(url, tmp_path) as service:
            await fill(service, 4)
            first, read, policies = _read(Reading(), locate(url), out, WarningCallback())
            assert read is not None and read["rows"] == 4 and policies == {}  # the log knows them
            await fill(service, 3, first=1)
            await service.edit(first.records[0].id, "Another edit")
            again, same, _ = _read(Reading(), locate(url), out, WarningCallback())
            assert again.records == first.records and same == read
            (out / ".work" / "read.json").unlink()
            anew, read, _ = _read(Reading(), locate(url), out, WarningCallback())
            assert len(anew) == 7 and read is not None and read["rows"] == 7

    run(work())
