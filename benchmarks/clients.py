"""Which features of a server work with which clients of OpenAI's API, each tried with the real client.

The scripts are in `clients/`, and their libraries in environments of their own, which `make clients` makes:
the newest versions of all clients cannot be in one environment. One process tries all features of one client
on a server that runs as a user starts it, in front of the stub model server.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import ROOT
from benchmarks.served import editloop_server
from editloop.errors import RunError
from editloop.progress import ProgressCallback, WarningCallback
from editloop.results import markdown_table, write_result
from editloop.serve.testing import make_run, stub_server

__all__ = ["SCRIPTS", "Script", "page", "run", "server_for_clients", "try_client"]

SECONDS = 280.0
"""Seconds in which one client must be done."""

FEATURES = {
    "chat": "chat",
    "streaming": "chat, streamed",
    "responses": "Responses",
    "responses, streaming": "Responses, streamed",
    "models": "models",
    "tools": "tools",
    "responses, tools": "tools, Responses",
    "structured": "JSON schema",
    "responses, structured": "JSON schema, Responses",
    "choices": "`n=3`",
    "key": "`editloop_key`",
}
"""What the scripts try, and the headings of the table."""


INTRODUCTION = " ".join(
    [
        "Each client with the stub model server behind EditLoop: a chat completion and the Responses API,",
        "whole and streamed; `/v1/models`, the list and one; a tool that is called, and whose result is",
        "sent; an object by a JSON schema; three choices; and an edit by the client's own key. Edits were",
        "sent under the id that the client gives. Where nothing stands, the client has no such feature, or",
        "it was not tried.",
    ]
)


class Script(NamedTuple):
    """The script of one client.

    Attributes:
        name: For tests and messages.
        command: The program and its arguments, below the root of the repository.
        needs: What has to be there, and `make clients` makes.
    """

    name: str
    command: tuple[str, ...]
    needs: str


def _scripts(environment: str, program: str, path: str, *names: str) -> list[Script]:
    """The scripts of one environment, which is complete once it has a file `.installed`."""
    label = Path(environment).name
    return [
        Script(f"{name} ({label})", (program, path.format(name)), f"{environment}/.installed")
        for name in names
    ]


def _python(name: str, *scripts: str) -> list[Script]:
    environment = f".venv-clients/{name}"
    return _scripts(environment, f"{environment}/bin/python", "clients/python/use_{}.py", *scripts)


SCRIPTS = (
    *_python("current", "openai", "langchain", "pydantic_ai", "litellm", "llm"),
    *_python("openai2", "openai", "llama_index", "instructor"),
    *_scripts("clients/node/node_modules", "node", "clients/node/use_{}.mjs", "openai", "ai_sdk"),
)
"""The scripts, in the order of the table's rows."""


@contextmanager
def server_for_clients(folder: Path) -> Iterator[str]:
    """Run a server with the stub model server behind it, and yield its address.

    Raises:
        RunError: It does not start.
    """
    with stub_server(folder / "stub.log") as upstream:
        server = editloop_server(
            make_run(folder / "run"), str(folder / "edits.db"), upstream, folder / "serve.log"
        )
        try:
            server.start()
            yield f"http://127.0.0.1:{server.port}"
        finally:
            server.kill()


def try_client(script: Script, server: str) -> dict[str, Any]:
    """What a script reports: the client, its version, where it has the id, and `ok` or a reason by feature.

    Raises:
        RunError: It reports nothing.
    """
    environment = {**os.environ, "EDITLOOP_SERVER": server, "OPENAI_API_KEY": "none", "NO_PROXY": "127.0.0.1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        script.command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    try:
        found: dict[str, Any] = json.loads(done.stdout.strip().split("\n")[-1])
    except ValueError:
        shown = (done.stderr or done.stdout).strip().split("\n")[-1]
        raise RunError(f"the script of {script.name} has failed", seen=shown) from None
    return found


def run(out: str | Path, *, callback: ProgressCallback | None = None) -> dict[str, Any]:
    """Try all clients, and write `clients.json` and `clients.md`.

    Args:
        out: The folder for the results.
        callback: Receives progress.

    Raises:
        RunError: A client is not installed, or its script fails; or the server does not start.
    """
    callback = callback or WarningCallback()
    missing = [script.name for script in SCRIPTS if not (ROOT / script.needs).exists()]
    if missing:
        raise RunError("clients are not installed", seen=", ".join(missing), do="make clients")
    rows = []
    with tempfile.TemporaryDirectory() as folder, server_for_clients(Path(folder)) as server:
        for script in SCRIPTS:
            callback.message(script.name)
            rows.append(try_client(script, server))
    measured = {"features": FEATURES, "clients": rows}
    write_result("clients", measured, page(measured), out)
    return measured


def page(measured: Mapping[str, Any]) -> str:
    """The table of clients and features; a feature that a client was not tried with is left empty."""
    features = measured["features"]
    rows: list[Sequence[str]] = []
    for each in measured["clients"]:
        found = [each["features"].get(name, "") for name in features]
        rows.append(
            [f"{each['client']} {each['version']}", *("yes" if one == "ok" else one for one in found)]
        )
    ids = [[f"{each['client']} {each['version']}", each["id"]] for each in measured["clients"]]
    return "\n\n".join(
        [
            INTRODUCTION,
            markdown_table(["client", *features.values()], rows, left=1 + len(features)),
            "Where each client has the id under which an edit is sent:",
            markdown_table(["client", "the response's id"], ids, left=2),
        ]
    )
