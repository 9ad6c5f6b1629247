"""`editloop serve` and the verbs around it: a real server in a process, and one line for each wrong start."""

from __future__ import annotations

import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from editloop.policy import RunFolder
from editloop.serve.testing import make_run, stub_server


def line(shown: tuple[int, str, str]) -> str:
    """The one line of an error."""
    status, _, error = shown
    assert status == 1 and error.startswith("editloop: error: ") and error.count("\n") == 1, error
    return error


def test_a_wrong_start_is_told_in_a_line(editloop, tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        shown = line(editloop("serve", "--port", taken.getsockname()[1]))
        assert "cannot listen, Address already in use" in shown and "--port" in shown
    upstream = ("--upstream", "http://127.0.0.1:1/v1", "--port", 0)
    assert "without keys only this machine" in line(editloop("serve", "--host", "0.0.0.0", *upstream))
    assert "scope: Input should be 'user' or 'all': 'team'" in line(editloop("serve", "--scope", "team"))
    assert "unknown cost" in line(editloop("serve", "--cost", "nonsense"))
    assert "not the URL" in line(editloop("serve", "--upstream", "127.0.0.1:8000"))
    assert "not an origin: 'https://*.example'" in line(
        editloop(
            "serve", "--allow-origin", "https://app.example", "--allow-origin", "https://*.example", *upstream
        )
    )
    assert "edit_token_minutes: " in line(editloop("serve", "--edit-token-minutes", "0", *upstream))
    assert "redaction cannot be used" in line(editloop("serve", "--redact", "nowhere:none"))
    assert "not a run folder" in line(editloop("serve", "missing", *upstream))
    assert "cannot be written" in line(editloop("serve", "--store", "/proc/none/edits.db", *upstream))
    assert "not the address" in line(editloop("serve", "--store", "://", *upstream))
    assert "scale of this cost is not known" in line(editloop("serve", "--cost", "levenshtein:word/none"))
    shown = line(editloop("serve", "--cost", "ter:word/edit", *upstream))
    assert "measured by alignment:word, not by ter:word/edit" in shown and "--reprice" in shown
    with closing(sqlite3.connect("edits.db")) as store, store:
        store.execute("UPDATE alembic_version SET version_num = '99'")
    store.close()
    assert "newer version: '99'" in line(editloop("serve", *upstream))


def test_a_folder_that_may_not_be_written_is_reported(editloop, tmp_path):
    folder = tmp_path / "kept"
    folder.mkdir()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("root may write everywhere")
    assert "cannot be written" in line(editloop("serve", "--store", folder / "edits.db"))


def test_keys_are_made_listed_and_revoked(editloop, tmp_path):
    status, key, _ = editloop("keys", "create", "app")
    assert status == 0 and re.fullmatch(r"el-\S{43}\n", key)
    assert editloop("keys", "create", "boss", "--role", "admin")[0] == 0
    assert "there is a key of this name" in line(editloop("keys", "create", "app"))
    assert "no such role" in line(editloop("keys", "create", "x", "--role", "king"))
    assert "1 to 64 characters" in line(editloop("keys", "create", "x" * 65))
    assert editloop("keys", "revoke", "app")[1] == "app is revoked\n"
    assert "no such key" in line(editloop("keys", "revoke", "app"))
    rows = [each.split() for each in editloop("keys", "list")[1].splitlines()]
    assert [row[:2] for row in rows] == [["name", "role"], ["app", "app"], ["boss", "admin"]]
    assert len(rows[1]) == 6 and len(rows[2]) == 4
    assert key.strip() not in Path("edits.db").read_bytes().decode(errors="replace")


def test_an_answer_of_another_server_is_reported(editloop, monkeypatch):
    page = httpx.Response(502, text="<html>Bad Gateway</html>")
    monkeypatch.setattr(httpx, "request", lambda *_, **__: page)
    shown = line(editloop("retire", "sft@1a2b3c4d"))
    assert "not that of `editloop serve` (status 502): '<html>Bad Gateway</html>' (check --server)" in shown


def test_a_server_is_started_changed_and_stopped(editloop, tmp_path):
    run = RunFolder(make_run(tmp_path / "run"))
    with stub_server(tmp_path / "stub.log") as port:
        command = ["serve", str(run.path), "--upstream", f"http://127.0.0.1:{port}/v1", "--port", "0"]
        (tmp_path / "serve.yaml").write_text(
            "allow-origin: [https://app.example, 'http://localhost:3000']\nedit-token-minutes: 5\n"
        )
        command += ["--config", str(tmp_path / "serve.yaml")]
        _drive(editloop, run, command)


def _drive(editloop, run, command):
    server = subprocess.Popen([sys.executable, "-m", "editloop", *command], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        shown = []
        while not shown or "dashboard" not in shown[-1]:
            shown.append(server.stdout.readline())
            assert shown[-1], shown
        (url,) = re.findall(r"dashboard (http://127\.0\.0\.1:\d+)/", shown[-1])
        arms = re.findall(r"\w+@[0-9a-f]{8}", shown[-2])
        assert len(arms) == len(run.policy_names()) >= 2
        body = {"model": "editloop", "messages": [{"role": "user", "content": "Hi"}]}
        page = {"Origin": "http://localhost:3000"}
        answer = httpx.post(f"{url}/v1/chat/completions", json=body, headers=page)
        assert answer.json()["model"] in arms
        assert answer.headers["Access-Control-Allow-Origin"] == page["Origin"]
        end = int(answer.json()["edit_token"].split(".")[1])
        assert 200 < end - time.time() <= 300
        assert any("pages of https://app.example, http://localhost:3000 may ask" in each for each in shown)
        assert "Edits" in httpx.get(url).text
        status, out, _ = editloop("retire", arms[0], "--server", url)
        assert status == 0 and out == f"epoch 2: {', '.join(arms[1:])}\n"
        assert "no such arm" in line(editloop("retire", arms[0], "--server", url))
        status, out, _ = editloop("promote", run.path, "--force", "--server", url)
        assert status == 0 and out.startswith("epoch 3: ") and arms[0] in out
        assert "not a run folder" in line(editloop("promote", "nowhere", "--server", url))
        assert "does not answer" in line(editloop("promote", run.path, "--server", "http://127.0.0.1:1"))
        assert "another process serves" in line(editloop("serve", "--upstream", f"{url}/v1", "--port", 0))
    finally:
        server.send_signal(signal.SIGTERM)
        server.communicate(timeout=20)
    assert server.returncode == 0
    assert Path("edits.db.state", "snapshot.json").is_file()
