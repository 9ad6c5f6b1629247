"""For trying an application without a model: a stub model server, and a run folder that it can serve.

    run = make_run(folder / "run")
    with stub_server(folder / "stub.log") as port:
        subprocess.Popen(["editloop", "serve", str(run), "--upstream", f"http://127.0.0.1:{port}/v1"])

The application then talks to a real server, whose responses all have the same text.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from editloop.errors import RunError
from editloop.policy import RunFolder
from editloop.policy.manifest import BaseRecord, Figure, Manifest, PolicyRecord, SamplesRecord, TrialRecord

__all__ = ["make_run", "stub_server"]


def make_run(folder: Path, names: Sequence[str] = ("concise", "formal")) -> Path:
    """Write a run folder with policies of these names, the smallest adapters that pass the server's checks.

    They fit no model, so a real model server cannot load them. The stub does not read them.
    """
    import numpy as np
    from safetensors.numpy import save_file

    run = RunFolder(folder)
    sampled = SamplesRecord(cost=Figure(mean=0.3, se=0.02, n=100))
    policies = {name: PolicyRecord(trials=[TrialRecord(sampled=sampled)]) for name in names}
    for number, name in enumerate(names):
        run.policy_path(name).mkdir(parents=True)
        (run.policy_path(name) / "adapter_config.json").write_text('{"r": 1}')
        weights = {f"layer.lora_{side}.weight": np.full((1, 1), number, np.float32) for side in "AB"}
        save_file(weights, run.policy_path(name) / "adapter_model.safetensors")
    base = BaseRecord(name="stub", fingerprint="0" * 64, sampled=sampled)
    run.write_manifest(Manifest(base=base, policies=policies))
    return folder


@contextmanager
def stub_server(log: Path) -> Iterator[int]:
    """Run the stub model server (`editloop.serve.stub`) in a process of its own, and yield its port.

    Raises:
        RunError: The server does not start.
    """
    command = [sys.executable, "-m", "editloop.serve.stub"]
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line.strip().isdigit():
                raise RunError("the stub model server does not start", seen=line, do=f"see {log}")
            yield int(line)
        finally:
            process.kill()
