"""The LiteLLM proxy as its documentation starts it, to stand beside the server of EditLoop.

It is installed into a virtual environment of its own, as its requirements are not those of EditLoop. One
model behind an OpenAI-compatible API, no database, no key, no callbacks, and no telemetry.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.served import Process
from editloop.errors import RunError
from editloop.progress import ProgressCallback
from editloop.store.testing import free_port

__all__ = ["litellm_proxy"]

VERSIONS = ("1.109.1", "1.102.4", "1.100.5")
"""Those that are tried in turn: an index that lags behind lacks what the newest needs."""

CONFIG = """\
model_list:
  - model_name: editloop
    litellm_params:
      model: openai/stub
      api_base: http://127.0.0.1:{port}/v1
      api_key: none
litellm_settings:
  telemetry: false
"""


def litellm_proxy(upstream: int, folder: Path, work: Path, callback: ProgressCallback) -> tuple[Process, str]:
    """The proxy, ready to be started, and its version.

    Args:
        upstream: Port of the model server.
        folder: For its configuration and what it prints.
        work: Where the virtual environment is kept.
        callback: Receives the installation.

    Raises:
        RunError: It cannot be installed.
    """
    binaries, version = _install(work / "litellm", callback)
    config = folder / "litellm.yaml"
    config.write_text(CONFIG.format(port=upstream), encoding="utf-8")
    port = free_port()
    command = [str(binaries / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
    }
    log = folder / "litellm.log"
    return Process([*command, "--telemetry", "False"], port, "/health/liveliness", log, environment), version


def _install(folder: Path, callback: ProgressCallback) -> tuple[Path, str]:
    binaries = folder / "bin"
    if not (binaries / "litellm").exists():
        callback.message(f"installing the LiteLLM proxy into {folder} (a few minutes)")
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        for version in VERSIONS:
            done = _run(binaries, "-m", "pip", "install", "-q", f"litellm[proxy]=={version}")
            if done.returncode == 0:
                break
        else:
            raise RunError("the LiteLLM proxy cannot be installed", seen=done.stderr.strip()[-300:])
    printed = _run(binaries, "-c", "import importlib.metadata as m; print(m.version('litellm'))")
    return binaries, printed.stdout.strip()


def _run(binaries: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(binaries / "python"), *arguments], capture_output=True, text=True, check=False)
