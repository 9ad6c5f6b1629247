"""How many edits a second a server records on SQLite: in batches, in batches again, and one request each.

The machine may be busy with other work, so the processor time of the server is counted, too.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.served import Process, editloop_server
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve import Client
from editloop.serve.testing import make_run, stub_server

WORDS = tuple("abcdefghijklmno")


def run(
    out: str | Path, *, rows: int = 20_000, single: int = 1000, callback: ProgressCallback | None = None
) -> dict[str, Any]:
    """Measure and write `edits-batch.json` and `edits-batch.md`.

    Args:
        out: The folder for the results.
        rows: The rows of the batches.
        single: The edits that are sent by a request each.
        callback: Receives progress.

    Raises:
        RunError: The server does not start.
    """
    callback = callback or WarningCallback()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made, log = make_run(folder / "run"), folder / "server.log"
        with stub_server(folder / "stub.log") as upstream:
            server = editloop_server(made, str(folder / "edits.db"), upstream, log)
            server.start()
            try:
                results = _measured(server, rows, single, callback)
            finally:
                server.stop()
    measured = {"rows": rows, "single": single, "words": 4 * len(WORDS), "results": results}
    write_result("edits-batch", measured, _markdown(measured), out)
    return measured


def _row(number: int) -> dict[str, Any]:
    """An edit that changes two words of 60, of a response from elsewhere."""
    words = [*WORDS * 4]
    changed = words.copy()
    changed[number % (len(words) - 1)], changed[-1] = f"word{number}", "less"
    about = {"context": f"Write letter {number}.", "response": " ".join(words), "edit": " ".join(changed)}
    return about | {"user": f"user-{number % 50}", "time": 1_760_000_000 + number}


def _measured(server: Process, rows: int, single: int, callback: ProgressCallback) -> dict[str, Any]:
    url = f"http://127.0.0.1:{server.port}"

    def batches(begin: int) -> Iterator[dict[str, Any]]:
        with Client(url) as client:
            yield from client.edits(map(_row, range(begin, begin + rows)))

    found: dict[str, Any] = {}
    for name, wanted in (("in batches", False), ("in batches, sent again", True)):
        callback.message(f"{rows} edits {name}")
        with _timed(server, rows, found, name):
            repeated = [each["repeated"] for each in batches(0)]
        assert repeated == [wanted] * rows
    callback.message(f"{single} edits, a request each")
    with (
        closing(httpx.Client(base_url=url, timeout=60)) as http,
        _timed(server, single, found, "a request each, one after another"),
    ):
        for number in range(rows, rows + single):
            row = _row(number)
            del row["time"]
            http.post("/v1/edits", json=row).raise_for_status()
    return found


@contextmanager
def _timed(server: Process, rows: int, found: dict[str, Any], name: str) -> Iterator[None]:
    """Keep how long a block took, and how much of the processor the server used meanwhile."""
    began, used = time.perf_counter(), server.processor_seconds() or 0.0
    yield
    seconds, used = time.perf_counter() - began, (server.processor_seconds() or 0.0) - used
    found[name] = {
        "rows": rows,
        "seconds": round(seconds, 2),
        "per_second": round(rows / seconds),
        "processor_ms_each": round(1000 * used / rows, 2),
    }


def _markdown(measured: Mapping[str, Any]) -> str:
    table = [
        [
            name,
            f"{each['rows']:,}",
            f"{each['seconds']:.1f}",
            f"{each['per_second']:,}",
            f"{each['processor_ms_each']:.2f}",
        ]
        for name, each in measured["results"].items()
    ]
    headings = ["sent", "edits", "seconds", "edits a second", "processor time of the server, ms each"]
    return (
        f"Edits of responses from elsewhere, of {measured['words']} words each, by one client to a server "
        "with a SQLite store on the same machine. Each is on the disk when it is acknowledged.\n\n"
        + markdown_table(headings, table)
    )
