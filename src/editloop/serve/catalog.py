"""Policies of run folders as arms: immutable names, and whether offline evaluation lets them in."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.policy import RunFolder
from editloop.serve.backend import Served

__all__ = ["find_policies", "objection", "validation"]


def find_policies(run: str | Path, names: Sequence[str] | None = None) -> list[Served]:
    """Policies of a run folder as arms.

    Args:
        run: The folder.
        names: Which; by default all that were trained.

    Raises:
        RunError: No such folder, or no such policy in it.
    """
    folder = RunFolder(run)
    manifest = folder.manifest()
    wanted = list(dict.fromkeys(names or folder.policy_names()))
    have = folder.arm_names()
    if unknown := [name for name in wanted if name not in have]:
        raise RunError("no such policy in the run", seen=unknown[0], do=f"choose of {', '.join(have)}")
    if not wanted:
        raise RunError("the run has no policies", seen=str(run), do="fit some first")
    return [_served(folder, manifest, name) for name in wanted]


def _served(folder: RunFolder, manifest: Mapping[str, Any], name: str) -> Served:
    path = folder.path.resolve()
    if name == "base":
        return Served(f"base@{manifest['base']['fingerprint'][:8]}", name, path)
    if name == "mixture":
        parts = {
            _served(folder, manifest, part).arm: float(weight)
            for part, weight in manifest["mixture"]["weights"].items()
            if weight > 0
        }
        digest = hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()
        return Served(f"mixture@{digest[:8]}", name, path, parts)
    weights = hashlib.sha256(manifest["base"]["fingerprint"].encode())
    place = folder.policy_path(name)
    files = sorted(place.glob("*.safetensors"))
    if not files:
        raise RunError("the policy's folder is gone", seen=str(place), do="fit it again")
    for file in (*files, *place.glob("adapter_config.json")):
        with file.open("rb") as opened:
            weights.update(hashlib.file_digest(opened, "sha256").digest())
    return Served(f"{name}@{weights.hexdigest()[:8]}", name, path)


def validation(run: Path, name: str) -> dict[str, Any]:
    """What the fit measured: cost of the policy's responses to validation contexts, and the base's."""
    manifest = RunFolder(run).manifest()
    base = (manifest["base"].get("sampled") or {}).get("cost")
    if name == "base":
        return {"cost": base, "base": base, "alarms": []}
    if name == "mixture":
        parts = manifest["mixture"]["weights"]
        known = {part: validation(run, part)["cost"] for part, weight in parts.items() if weight > 0}
        if None in known.values():
            return {"cost": None, "base": base, "alarms": []}
        mean = sum(parts[part] * each["mean"] for part, each in known.items())
        error = math.sqrt(sum((parts[part] * each["se"]) ** 2 for part, each in known.items()))
        n = min(each["n"] for each in known.values())
        return {"cost": {"mean": mean, "se": error, "n": n}, "base": base, "alarms": []}
    policy = manifest["policies"][name]
    chosen = policy["candidates"][policy["chosen"]]
    cost = (chosen.get("sampled") or {}).get("cost")
    return {"cost": cost, "base": base, "alarms": policy["alarms"]}


def objection(measured: Mapping[str, Any]) -> str | None:
    """Why a policy should not answer users; None if offline evaluation has nothing against it.

    Its validation cost may be above the base's by no more than the standard error of their difference.
    """
    cost, base = measured["cost"], measured["base"]
    if cost is None or base is None:
        return "the run has no validation costs"
    error = math.hypot(cost["se"] or 0.0, base["se"] or 0.0)
    if cost["mean"] > base["mean"] + error:
        return f"its validation cost is {cost['mean']:.3f}, the base's {base['mean']:.3f} ± {error:.3f}"
    return None
