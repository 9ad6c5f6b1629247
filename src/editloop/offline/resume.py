"""What a run folder holds before the first training, and whether a fit may continue what it finds there.

A fit that was killed and is continued ends with the same weights, bit for bit, as one that was not (on the
same machine, with the same number of processes). This rests on six facts:

- The split and the order of the rows follow from the seed and the records' ids (`fit`, `RowStream`).
- An adapter's initial weights follow from the seed, or are those of `start`, which the identity of the run
  names; samples follow from the seed. Neither touches a global random state.
- log π_ref is the same whether it is computed or read from the cache.
- A checkpoint holds the optimiser, the learning-rate schedule, the random state that dropout draws from, and
  the count of early stopping.
- What decides only how a step is divided and how much memory it takes may change in between; the sums are
  then in another order, and the weights the same up to rounding and to the draws of dropout.
- Whatever is finished is written before anything tells that it is: a trial's policy before its result, a
  method's policy before its record in `run.json`. After a kill in between, the step is done again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.offline.alarms import SampleCheck
from editloop.offline.config import FitConfig
from editloop.offline.data import FitData
from editloop.offline.examples import REVISION
from editloop.policy import Policy, RunFolder
from editloop.policy.manifest import Manifest, PolicyRecord

__all__ = ["initial_manifest", "open_run", "run_identity"]

RESOURCES = {"micro_batch_size", "gradient_checkpointing", "memory"}
"""The settings that change no result, unless a method depends on what shares a forward."""


def run_identity(policy: Policy, config: FitConfig, data: FitData) -> str:
    """Hash of what a fit depends on: the base and its precision, first weights, settings, every token."""
    # Tokens and not records: a fit may be continued from another file or format with the same content.
    methods = [trial.method for name in config.methods for trial in config.trials(name)]
    kept = {"micro_batch_size"} if any(method.forward_matters for method in methods) else set()
    reads_revisions = any(REVISION in method.roles for method in methods)
    # Where the run folder of `start` lies does not matter; which weights it has does.
    settings = config.model_dump_json(exclude=(RESOURCES - kept) | config.added | {"start"})
    digest = hashlib.sha256(f"{policy.fingerprint} {settings}".encode())
    # A fit that goes on in another precision would compare trials of both. Runs in float32 have the identity
    # that they had before this was looked at.
    if (precision := policy.precision) != "float32":
        digest.update(precision.encode())
    if data.start is not None:
        digest.update(f"from {data.start.fingerprint}".encode())
    for example in data.examples:
        digest.update(repr((example.id, example.tree.context, example.tree.continuations)).encode())
        if reads_revisions:
            digest.update(repr(example.revisions).encode())
        # A run cannot go on with other references: the base takes the place of a policy that has gone.
        digest.update(data.references.identity(example).encode())
    return digest.hexdigest()[:16]


def open_run(run: RunFolder, identity: str) -> Manifest | None:
    """The manifest of the fit that is to be continued; None for a new run.

    Raises:
        RunError: The folder holds another run, or something that is no run.
    """
    if not run.exists():
        if run.path.exists() and (not run.path.is_dir() or any(map(_is_foreign, run.path.iterdir()))):
            raise RunError(
                "the output folder holds something else", seen=str(run.path), do="choose another --out"
            )
        return None
    manifest = run.manifest()
    if manifest.identity != identity:
        raise RunError(
            "the output folder holds the run of another log, base or configuration",
            seen=str(run.path),
            do="choose another --out, or the --dtype in which the run was begun",
        )
    return manifest


def _is_foreign(path: Path) -> bool:
    """Whether an entry of an output folder without a manifest cannot be from a fit that was killed."""
    # A fit that was killed before its first manifest leaves its work folder, and temporary files whose names
    # begin like this (`editloop.io`).
    return path.name != ".work" and not path.name.startswith((".run.json.", ".cost_model."))


def initial_manifest(
    *,
    identity: str,
    read: Mapping[str, Any],
    data: FitData,
    policy: Policy,
    config: FitConfig,
    base_samples: SampleCheck | None,
    cost_model: Mapping[str, Any] | None,
    declined: Mapping[str, str],
    policies: Mapping[str, PolicyRecord],
) -> Manifest:
    """The manifest of a run before its next training.

    Args:
        identity: From `run_identity`.
        read: What was read, and how to recognise it.
        data: The fit's data.
        policy: The base.
        config: The fit's configuration.
        base_samples: What sampled responses of the base look like, if any were sampled.
        cost_model: The report of the cost model, if there is one.
        declined: Why a method, or a part of its trials, is not trained.
        policies: The policies that an earlier process has finished.
    """
    content = {
        "status": "running",
        "identity": identity,
        "read": read,
        "data": {
            part: {"examples": len(s.examples), "pairs": len(s.pairs), "counts": dict(s.counts)}
            for part, s in (("train", data.train), ("validation", data.validation))
        },
        "base": {
            "name": policy.base,
            "fingerprint": policy.fingerprint,
            "max_length": policy.encoder.max_length,
            "end_token": policy.encoder.end_token,
            "quantize": policy.quantize,
            "dtype": policy.dtype,
            "trust_remote_code": policy.trust_remote_code,
            "decisions": policy.decisions,
            "sampled": base_samples.to_json() if base_samples else None,
        },
        "start": None if data.start is None else data.start.arm,
        "config": config.model_dump(mode="json"),
        "cost_model": cost_model,
        "declined": declined,
    }
    manifest = Manifest.model_validate(content, strict=False)
    return manifest.model_copy(update={"policies": dict(policies)})
