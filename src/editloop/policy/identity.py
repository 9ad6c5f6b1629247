"""What identifies a policy of a run folder: a fingerprint of its weights, and the arm's name made from it.

An arm's name is permanent: it changes when the weights change, so what was learned of one policy is never
counted for another, and a log says which weights wrote a draft. Reading it needs no torch.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from editloop.errors import RunError
from editloop.policy.manifest import Manifest
from editloop.policy.run import RunFolder
from editloop.policy.verify import check_name, check_policy

__all__ = ["arm_name", "mixture_parts", "mixture_weights", "policy_fingerprint"]

SHOWN = 8
"""The digits of a fingerprint that an arm's name has."""


def policy_fingerprint(folder: RunFolder, name: str) -> str:
    """Hash of a policy's weights and those of its base; of a mixture, of its parts and their weights.

    Args:
        folder: The run folder.
        name: A policy's name; `base` for the base itself, `mixture` for the fitted mixture.

    Returns:
        At least 8 hexadecimal digits: 64, or as many as the fingerprint of the base has.

    Raises:
        RunError: The policy's folder is missing, or something in it is not in order.
    """
    manifest, path = folder.manifest(), folder.path.resolve()
    base = check_name(manifest.base.fingerprint)
    if name == "base":
        return base
    if name == "mixture":
        parts = mixture_parts(folder, manifest)
        return hashlib.sha256(json.dumps(parts, allow_nan=False).encode()).hexdigest()
    weights = hashlib.sha256(base.encode())
    for each in check_policy(folder.policy_path(name), path, manifest.base.name):
        weights.update(each)
    return weights.hexdigest()


def arm_name(folder: RunFolder, name: str) -> str:
    """The name under which a policy of a run folder is served, such as `sft@1f2e3d4c`; see above."""
    return f"{name}@{policy_fingerprint(folder, name)[:SHOWN]}"


def mixture_parts(folder: RunFolder, manifest: Manifest) -> dict[str, float]:
    """The weights of the mixture of a run, by the arms of its parts, without those of weight 0."""
    weights = mixture_weights(manifest)
    return {arm_name(folder, part): weight for part, weight in weights.items() if weight > 0}


def mixture_weights(manifest: Manifest) -> Mapping[str, float]:
    """The weights of a run's mixture, by policy.

    Raises:
        RunError: They are not convex weights over policies of the run.
    """
    weights = manifest.mixture.weights if manifest.mixture else {}
    for name, weight in weights.items():
        if name not in manifest.policies or not 0 <= weight <= 1:
            raise RunError("a weight of the mixture is not valid", seen={name: weight}, do="fit it again")
    if not math.isclose(sum(weights.values()), 1.0, abs_tol=1e-3):
        raise RunError("the mixture's weights do not sum to 1", seen=sum(weights.values()))
    return weights
