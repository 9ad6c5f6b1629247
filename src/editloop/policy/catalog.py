"""Policies of run folders as arms: permanent names, and whether offline evaluation advises against one.

A run folder may come from elsewhere, so all of it is checked before any of it is used. A folder that fails
a check is refused even if its promotion is forced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.policy import RunFolder, check_name
from editloop.policy.identity import arm_name, mixture_parts, mixture_weights
from editloop.policy.manifest import Manifest, SamplesRecord
from editloop.policy.served import ServedPolicy

__all__ = ["find_policies", "objection", "validation"]


def find_policies(run: str | Path, names: Sequence[str] | None = None) -> list[ServedPolicy]:
    """Return policies of a run folder as arms, after checking the folder.

    Args:
        run: The folder.
        names: The names of its policies; None for all that were trained.

    Raises:
        RunError: There is no such folder or policy, or the folder fails a check.
    """
    folder = RunFolder(run)
    try:
        manifest = folder.manifest()
        for name in manifest.policies:
            check_name(name)
        wanted = list(dict.fromkeys(names or folder.policy_names()))
        have = folder.arm_names()
        if unknown := [name for name in wanted if name not in have]:
            raise RunError("no such policy in the run", seen=unknown[0], do=f"choose of {', '.join(have)}")
        if not wanted:
            raise RunError("the run has no policies", seen=str(run), do="fit some first")
        str(folder.path.resolve()).encode()  # a path that is not valid Unicode cannot be kept in the store
        return [_served(folder, manifest, name) for name in wanted]
    except (OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        # The files may hold anything, so whatever their content breaks is an error of the run.
        raise RunError(f"the run cannot be read: {error!r}", seen=str(run)) from error


def _served(folder: RunFolder, manifest: Manifest, name: str) -> ServedPolicy:
    """A policy under its arm's name, whose hash is one of its weights and of the base's."""
    parts = mixture_parts(folder, manifest) if name == "mixture" else {}
    return ServedPolicy(arm_name(folder, name), name, folder.path.resolve(), parts)


def validation(run: Path, name: str) -> dict[str, Any]:
    """The validation costs that the fit measured: those of the policy's responses, and of the base's.

    Raises:
        RunError: A figure of the run is not a number.
    """
    return _validation(RunFolder(run).manifest(), name)


def _validation(manifest: Manifest, name: str) -> dict[str, Any]:
    base = _cost(manifest.base.sampled)
    if name == "base":
        return {"cost": base, "base": base, "alarms": []}
    if name == "mixture":
        parts = {part: weight for part, weight in mixture_weights(manifest).items() if weight > 0}
        known = {part: _validation(manifest, part)["cost"] for part in parts}
        if None in known.values():
            return {"cost": None, "base": base, "alarms": []}
        # A mixture draws one part for each response, so its mean cost is the weighted mean of theirs. The
        # errors are treated as independent, although the parts were measured on the same contexts.
        mean = sum(parts[part] * each["mean"] for part, each in known.items())
        error = math.hypot(*(parts[part] * (each["se"] or 0.0) for part, each in known.items()))
        n = min(each["n"] for each in known.values())
        return {"cost": {"mean": mean, "se": error, "n": n}, "base": base, "alarms": []}
    policy = manifest.policies[name]
    return {"cost": _cost(policy.best.sampled), "base": base, "alarms": policy.alarms}


def _cost(sampled: SamplesRecord | None) -> dict[str, Any] | None:
    """A mean cost with its standard error; None if it was not measured.

    Raises:
        RunError: It was measured, but it is not a number, or of no responses.
    """
    if sampled is None:
        return None
    cost = sampled.cost
    if cost.mean is None or (cost.se is not None and cost.se < 0):
        seen = {"mean": cost.mean, "se": cost.se}
        raise RunError("a validation cost is not a number", seen=seen, do="fit it again")
    if cost.n is None or cost.n < 1:
        raise RunError("a validation cost without responses", seen=cost.n, do="fit it again")
    return {"mean": cost.mean, "se": cost.se, "n": cost.n}


def objection(measured: Mapping[str, Any]) -> str | None:
    """Why a policy should not answer users; None if offline evaluation does not advise against it.

    Its validation cost may be above the base's by no more than the standard error of their difference.
    """
    cost, base = measured["cost"], measured["base"]
    if cost is None or base is None:
        return "the run has no validation costs"
    error = math.hypot(cost["se"] or 0.0, base["se"] or 0.0)
    if not cost["mean"] <= base["mean"] + error:  # `>` would be false for NaN, and let it pass
        return f"its validation cost is {cost['mean']:.3f}, the base's {base['mean']:.3f} ± {error:.3f}"
    return None
