"""Where the adapters of a fit begin: at the base, or at the adapter of a policy that was trained before.

Only the first weights change. π_ref stays what `reference` says, so what a loss measures does not depend on
where a training begins, and neither does what a policy is compared with.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from editloop.errors import ConfigError, RunError
from editloop.io import parse_json
from editloop.offline.config import FitConfig
from editloop.offline.reference import Scorer
from editloop.policy import Policy, RunFolder, attach_adapter, detach_adapter, policy_fingerprint
from editloop.policy.identity import SHOWN
from editloop.policy.verify import ADAPTER
from editloop.policy.weights import read_header

__all__ = ["Start", "find_start"]

UNLIKE = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern")
"""What other tools may have switched on in an adapter, and `fit` does not train."""


@dataclass(frozen=True)
class Start:
    """The policy at whose adapter trainings begin.

    Attributes:
        run: Its run folder.
        name: Its name in the run.
        fingerprint: What identifies its weights, wherever the run folder is.
    """

    run: RunFolder
    name: str
    fingerprint: str

    @property
    def arm(self) -> str:
        """The name under which the policy is served."""
        return f"{self.name}@{self.fingerprint[:SHOWN]}"

    def scorer(self, base: Policy) -> Scorer:
        """Scores completions by the policy, for the figure that a training has to improve on."""

        def load() -> AbstractContextManager[Policy]:
            self.folder()  # what other weights say is not to be kept in the cache under this fingerprint
            return self.run.policy(self.name, base)

        return Scorer(self.fingerprint, load)

    def folder(self) -> Path:
        """The folder of the adapter, if it still has the weights that were found at first.

        Raises:
            RunError: It has not.
        """
        # A fit takes hours, and the run may be fitted again meanwhile.
        if policy_fingerprint(self.run, self.name) != self.fingerprint:
            raise RunError(
                "the policy to start from was replaced during the fit",
                seen=str(self.run.policy_path(self.name)),
                do="fit again into a new folder",
            )
        return self.run.policy_path(self.name)


def find_start(policy: Policy, config: FitConfig) -> Start | None:
    """The policy at whose adapter the trainings of a fit begin; None for the base.

    Args:
        policy: The base, which is afterwards as it was.
        config: The fit's configuration.

    Raises:
        RunError: There is no such policy, its folder is not in order, or it is one of another base.
        ConfigError: It has no adapter, or one of another shape.
    """
    if config.start is None:
        return None
    path = Path(config.start)
    run, name = RunFolder(path.parent), path.name
    if not run.exists():
        raise RunError(
            "the policy to start from is in no run folder",
            seen=config.start,
            do="give RUN/NAME, such as run/early",
        )
    manifest = run.manifest()
    if name not in manifest.policies:
        have = f"choose one of {', '.join(manifest.policies) or 'those of another run'}"
        if name in run.arm_names():
            raise ConfigError(f"{name} has no adapter of its own to start from", seen=config.start, do=have)
        raise RunError("the run has no such policy to start from", seen=config.start, do=have)
    if manifest.base.fingerprint != policy.fingerprint:
        raise RunError(
            "the policy to start from was trained on another base",
            seen=config.start,
            do=f"its base is {manifest.base.name}",
        )
    start = Start(run, name, policy_fingerprint(run, name))
    _check_shape(policy, config, run.policy_path(name))
    return start


def _check_shape(policy: Policy, config: FitConfig, folder: Path) -> None:
    """Refuse an adapter that is not like those of the fit, and say by which flags they would be.

    Raises:
        ConfigError: It is of another shape, or the policy is a whole model.
    """
    file = folder / "adapter_config.json"
    if not file.is_file():
        raise ConfigError(
            "the policy to start from is a whole model, without an adapter",
            seen=config.start,
            do="start from one that was fitted without --full",
        )
    own = parse_json(file.read_bytes())
    if strange := [name for name in UNLIKE if own.get(name)]:
        raise ConfigError(
            f"the adapter to start from is of a kind that fit does not train, {', '.join(strange)}",
            seen=config.start,
        )
    fresh = attach_adapter(policy, config.lora, seed=config.seed)
    wanted = _modules(fresh.model.state_dict())
    detach_adapter(fresh)
    rank, alpha, flags = own.get("r"), own.get("lora_alpha"), []
    if rank != config.lora.rank:
        flags.append(f"--lora-rank {rank}")
    if alpha != config.lora.alpha:
        flags.append(
            f"--lora-alpha {alpha:g}" if isinstance(alpha, (int, float)) else f"--lora-alpha {alpha}"
        )
    if _modules(read_header(folder / ADAPTER)) != wanted:
        targets = own.get("target_modules") or ()
        flags.append(f"--lora-targets {targets if isinstance(targets, str) else ','.join(sorted(targets))}")
    if flags:
        raise ConfigError(
            "the adapter to start from is not like those of the fit",
            seen=config.start,
            do=f"give {' '.join(flags)}",
        )


def _modules(names: Iterable[str]) -> set[str]:
    """The modules that the weights of these names adapt."""
    return {name.partition(".lora_")[0] for name in names if ".lora_" in name}
