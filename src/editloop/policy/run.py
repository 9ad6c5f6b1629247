"""The run folder: what a fit read, decided and produced, written so that a killed process damages nothing.

run.json               the log that was read, the configuration, the metrics, the library versions
policies/<name>/       a PEFT adapter, or a whole model after full fine-tuning
cost_model/            the cost model, if a method needed one, with the adapter of tuned features
rows.npy               hashes of the rows that were trained and validated on
report.html            a report for people
.work/                 checkpoints of a fit in progress; removed when it is finished

Reading a run folder needs no torch; loading a policy does.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from editloop.errors import RunError
from editloop.extras import requires
from editloop.io import atomic_file, atomic_folder, write_json
from editloop.policy.manifest import FORMAT, Manifest, MixtureRecord, read_manifest

if TYPE_CHECKING:
    from editloop.policy.model import Policy

__all__ = ["RunFolder", "library_versions", "load_policy"]

LIBRARIES = ("editloop", "torch", "transformers", "peft", "accelerate", "rapidfuzz")


class RunFolder:
    """A run folder on disk; it can be passed wherever a path is expected.

    Args:
        path: The folder; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def __fspath__(self) -> str:
        return os.fspath(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({os.fspath(self)!r})"

    @property
    def manifest_path(self) -> Path:
        """Path of `run.json`."""
        return self.path / "run.json"

    @property
    def report(self) -> Path:
        """Path of `report.html`, which exists if it was asked for."""
        return self.path / "report.html"

    @property
    def work(self) -> Path:
        """Folder of the checkpoints of a fit in progress."""
        return self.path / ".work"

    @property
    def cost_model(self) -> Path:
        """Folder of the cost model, which exists if a method needed one."""
        return self.path / "cost_model"

    @property
    def rows(self) -> Path:
        """Path of the hashes of the rows that were trained and validated on."""
        return self.path / "rows.npy"

    def exists(self) -> bool:
        """Whether there is a manifest."""
        return self.manifest_path.is_file()

    def manifest(self) -> Manifest:
        """The content of `run.json`, also of one that an older version wrote.

        Raises:
            RunError: There is no `run.json`, it is damaged, or a newer version wrote it.
        """
        if not self.exists():
            raise RunError(
                "not a run folder: it has no run.json", seen=str(self.path), do="make one by editloop fit"
            )
        return read_manifest(self.manifest_path)

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace `run.json`, with the library versions added; NaN and infinity become null."""
        full = manifest.model_copy(update={"format": FORMAT, "versions": library_versions()})
        write_json(self.manifest_path, full.model_dump(exclude_none=True), RunError)

    def write_rows(self, hashes: NDArray[np.uint64]) -> None:
        """Save the hashes of the rows that are trained and validated on (`editloop.edits.row_hashes`).

        Raises:
            RunError: The folder cannot be written to.
        """
        # Sorted, the file does not tell the order of the rows; it holds hashes and no texts, so a run folder
        # can be passed on without the log.
        with atomic_file(self.rows, RunError) as unfinished, unfinished.open("wb") as file:
            np.save(file, np.sort(hashes), allow_pickle=False)

    def seen(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
        """Which of these rows the run was trained or validated on; None if it does not know.

        Raises:
            RunError: The saved hashes are damaged.
        """
        if not self.rows.is_file():
            return None
        try:
            return np.isin(hashes, np.load(self.rows, allow_pickle=False).astype(np.uint64, casting="equiv"))
        except (ValueError, TypeError, EOFError) as error:
            raise RunError("rows.npy is damaged", seen=str(self.path), do="fit again") from error

    def remove_leftovers(self) -> None:
        """Remove the unfinished files and policies of a process that was killed."""
        # `editloop.io` names what it has not finished after the target, with a dot in front.
        left = (".run.json.*", ".rows.npy.*", ".cost_model.*", "policies/.*")
        for path in [path for pattern in left for path in self.path.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # if the folder cannot be written to, the first write reports it
                    path.unlink()

    def keep_mixture(self, mixture: Mapping[str, Any]) -> None:
        """Save a mixture of the run's policies in the run, in place of the one that it has.

        Args:
            mixture: What `Mixture.to_json` returns, of a fit by likelihood or by cost
                (`editloop.offline.mix_by_cost`).

        Raises:
            RunError: A policy of the mixture is not in the run.
        """
        manifest = self.manifest()
        record = MixtureRecord.model_validate(mixture, strict=False)
        if unknown := [name for name in record.weights if name not in manifest.policies]:
            do = f"mix policies of the run: {', '.join(manifest.policies)}"
            raise RunError("a policy of the mixture is not in the run", seen=unknown[0], do=do)
        self.write_manifest(manifest.model_copy(update={"mixture": record}))

    def policy_names(self) -> list[str]:
        """Names of the policies in the folder, in the order in which they were trained."""
        return list(self.manifest().policies)

    def arm_names(self) -> list[str]:
        """Names of everything that can be sampled from: the base, the trained policies, and their mixture."""
        manifest = self.manifest()
        return ["base", *manifest.policies, *(["mixture"] if manifest.mixture else [])]

    def policy_path(self, name: str) -> Path:
        """The folder of a policy."""
        return self.path / "policies" / name

    def save_policy(self, name: str, save: Callable[[Path], None]) -> Path:
        """Let `save` write a policy into a folder, which appears in the run only when it is complete.

        Raises:
            RunError: There is no space or permission to write.
        """
        requires("train", "safetensors")
        from safetensors import SafetensorError

        target = self.policy_path(name)
        with atomic_folder(target, RunError, failures=(SafetensorError,)) as unfinished:
            save(unfinished)
        return target

    def load_policy(self, name: str, base: Policy) -> Policy:
        """Load a policy of the run on its base.

        Args:
            name: A policy's name; `base` for the base itself, `mixture` for the fitted mixture.
            base: The run's base, loaded.

        Raises:
            RunError: The run has no such policy, or `base` is not its base.
        """
        from editloop.policy import MixedPolicy, load_adapter, load_base

        manifest = self.manifest()
        if name == "base":
            return base
        if name == "mixture" and manifest.mixture:
            used = [each for each, weight in manifest.mixture.weights.items() if weight > 0]
            if len(used) == 1:
                return self.load_policy(used[0], base)
            # Each policy of the mixture is loaded when it is asked, so only one is in memory at a time.
            return MixedPolicy(base, manifest.mixture.weights, lambda one: self.policy(one, base))
        if name not in manifest.policies:
            have = ", ".join(self.arm_names())
            raise RunError("no such policy in the run", seen=name, do=f"choose one of {have}")
        folder = self.policy_path(name)
        if not folder.is_dir():
            raise RunError("the policy's folder is missing", seen=str(folder), do="fit it again")
        if not (folder / "adapter_config.json").is_file():
            return load_base(
                folder,
                device=str(base.device),
                dtype=str(base.model.dtype).removeprefix("torch."),
                max_length=base.encoder.max_length,
                end_token=base.encoder.end_token,
                trust_remote_code=base.trust_remote_code,
            )
        if base.fingerprint != manifest.base.fingerprint:
            raise RunError(
                "the base is not the one that the adapters were trained on",
                seen=base.base,
                do="load the base that run.json names",
            )
        return load_adapter(base, folder)

    @contextmanager
    def policy(self, name: str, base: Policy) -> Iterator[Policy]:
        """A context in which a policy is loaded; afterwards the base carries no adapter again.

        An adapter's layers are put into the base itself, so contexts of one base must not overlap.

        Raises:
            RunError: As for `load_policy`.
        """
        from editloop.policy import detach_adapter

        policy = self.load_policy(name, base)
        try:
            yield policy
        finally:
            if policy is not base and hasattr(policy.model, "peft_config"):
                detach_adapter(policy)

    def load_base(self, **options: Any) -> Policy:
        """Load the base that the run was trained on, with the options of that time.

        Args:
            **options: Options of `editloop.policy.load_base` that replace the recorded ones; None and `auto`
                replace nothing.

        Raises:
            RunError: The base runs code of its own, and `trust_remote_code` is not set.
        """
        from editloop.policy import load_base

        base = self.manifest().base
        recorded = base.model_dump(include={"max_length", "end_token", "quantize", "dtype"})
        asked = {key: value for key, value in options.items() if value not in (None, "auto")}
        # A run folder may come from elsewhere: its record alone must not make this process run foreign code.
        if base.trust_remote_code and not asked.get("trust_remote_code"):
            do = "allow it by trust_remote_code"
            raise RunError("the base runs code of its own", seen=base.name, do=do)
        return load_base(base.name, **{k: v for k, v in (recorded | asked).items() if v is not None})


def load_policy(run: str | os.PathLike[str], name: str = "base", **options: Any) -> Policy:
    """Load one policy of a run folder, ready to sample from, or a base by its name or folder.

    Args:
        run: A run folder or its path; or a base as `load_base` takes it.
        name: `sft`, `dpo`, `early` ..., `mixture` or `base`.
        **options: Options of `load_base`.

    Raises:
        RunError: The run has no such policy.
        ModelError: The base cannot be loaded.
    """
    from editloop.policy import load_base

    folder = RunFolder(run)
    if not folder.exists():
        if name != "base":
            raise RunError(
                "not a run folder: it has no run.json", seen=str(run), do="make one by editloop fit"
            )
        return load_base(run if isinstance(run, str) else folder.path, **options)
    return folder.load_policy(name, folder.load_base(**options))


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # not installed, or the package is run from its source tree
            continue
    return found
