"""`editloop serve --workers`: real processes behind one address, one of which dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from editloop.serve.testing import make_run, stub_server
from editloop.store import reads
from editloop.store.database import Store
from editloop.store.testing import Postgres, free_port


def until(true: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def children(process: subprocess.Popen[bytes]) -> list[int]:
    found = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False)
    return sorted(map(int, found.stdout.split()))


def is_there(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@contextmanager
def workers(folder: Path, store: str, upstream: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    port = free_port()
    flags = ["--store", store, "--state", str(folder / "state"), "--workers", "2", "--port", str(port)]
    run = make_run(folder / "run")
    command = [sys.executable, "-m", "editloop", "serve", str(run), *flags]
    command += ["--upstream", f"http://127.0.0.1:{upstream}/v1"]
    with (folder / "log").open("ab") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            until(lambda: (folder / "log").read_text().count("dashboard http") == 1)
            until(lambda: len(workers_shown(f"http://127.0.0.1:{port}")) == 2)
            yield process, f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def ask(url: str, response_id: str | None = None) -> httpx.Response:
    body = {"model": "editloop", "messages": [{"role": "user", "content": "Hi"}]}
    return httpx.post(
        f"{url}/v1/chat/completions", json=body | ({"id": response_id} if response_id else {}), timeout=30
    )


def metrics(url: str) -> str:
    with suppress(httpx.HTTPError):
        return httpx.get(f"{url}/metrics", timeout=30).text
    return ""


def workers_shown(url: str) -> set[str]:
    return set(re.findall(r'editloop_store_up\{worker="(\d+)"\} 1', metrics(url)))


def completions_counted(url: str) -> float:
    found = re.findall(r'editloop_overhead_seconds_count\{worker="\d+"\} (\S+)', metrics(url))
    return sum(map(float, found))


def test_a_worker_that_dies_is_started_again_and_its_spool_is_written(
    postgres: Postgres, tmp_path: Path
) -> None:
    store = postgres.new()
    with stub_server(tmp_path / "stub.log") as upstream, workers(tmp_path, store, upstream) as (parent, url):
        assert {ask(url).status_code for _ in range(8)} == {200}
        until(lambda: completions_counted(url) == 8)  # whichever worker shows them
        first = children(parent)
        assert len(first) == 2
        postgres.stop(at_once=True)
        try:
            until(lambda: httpx.get(f"{url}/readyz", timeout=30).status_code == 503)
            assert ask(url, "spooled").status_code == 200
            until(lambda: list((tmp_path / "state").glob("worker-*/spool.jsonl")))
            for pid in first:
                os.kill(pid, signal.SIGKILL)
            until(lambda: not any(map(is_there, first)))
            for path in (tmp_path / "state").glob("worker-*/metrics.prom"):
                path.unlink()  # what is shown from now on is of the workers that were started again
        finally:
            postgres.start()
        until(lambda: workers_shown(url) == {"1", "2"} and ask(url).status_code == 200)
        opened = Store(store)
        until(lambda: opened.read(lambda c: reads.response_text(c, "spooled")))
        opened.close()
        edit = {"response_id": "spooled", "edit": "Hello", "key": "k"}
        assert httpx.post(f"{url}/v1/edits", json=edit, timeout=30).status_code == 200
        assert not set(first) & set(children(parent))

        second = children(parent)
        parent.send_signal(signal.SIGINT)
        assert parent.wait(60) == 0
        assert not any(map(is_there, second))
        assert "Traceback" not in (tmp_path / "log").read_text()
        assert {path.parent.name for path in (tmp_path / "state").rglob("snapshot.json")} == {
            "worker-1",
            "worker-2",
        }


def test_workers_end_with_their_parent(postgres: Postgres, tmp_path: Path) -> None:
    with (
        stub_server(tmp_path / "stub.log") as upstream,
        workers(tmp_path, postgres.new(), upstream) as (parent, _),
    ):
        mine = children(parent)
        parent.kill()
        until(lambda: not any(map(is_there, mine)))


def test_a_wrong_start_of_workers_is_told_once(editloop, tmp_path: Path) -> None:
    status, _, shown = editloop("serve", "--workers", 2, "--store", tmp_path / "edits.db", "--port", 0)
    assert status == 1 and shown.count("\n") == 1
    assert "one process alone can serve from a SQLite file: '--workers 2'" in shown
    assert "use --store postgresql://..., or leave out --workers" in shown


def test_workers_that_cannot_start_end_the_server(tmp_path: Path) -> None:
    flags = ["--workers", "2", "--store", "postgresql://nobody@127.0.0.1:1/none", "--port", str(free_port())]
    flags += ["--upstream", "http://127.0.0.1:1/v1", "--state", str(tmp_path / "state")]
    command = [sys.executable, "-m", "editloop", "serve", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert done.stderr.count("the store does not answer") == 1
    assert "worker 1 cannot start" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("count", [0, 257])
def test_an_impossible_number_of_workers_is_refused(editloop, count: int) -> None:
    status, _, shown = editloop("serve", "--workers", count)
    assert status == 1 and "workers: Input should be" in shown
