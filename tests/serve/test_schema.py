"""Schemathesis over the OpenAPI document: whatever is sent, no 500."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import httpx
from site_server import served


def test_no_request_is_answered_by_a_server_error(tmp_path: Path) -> None:
    with served(tmp_path) as (url, _):
        document = httpx.get(f"{url}/openapi.json").json()
        for path in ("/v1/chat/completions", "/v1/responses", "/v1/edits", "/v1/arms"):
            body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
            assert body["schema"]["properties"]
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{url}/openapi.json", "--seed", "1"]
        command += ["--checks", "not_a_server_error", "--max-examples", "25", "--phases", "coverage,fuzzing"]
        # It knows no lines of JSON; `test_fuzz_routes` sends such to the batch.
        command += ["--exclude-path", "/readyz", "--exclude-path", "/v1/edits:batch", "--no-color"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-3000:]
        assert re.search(r"(\d{3,}) generated, \1 passed", done.stdout), done.stdout[-3000:]
        assert "Unresolvable" not in done.stdout
