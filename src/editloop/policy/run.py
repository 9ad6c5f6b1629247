"""The run folder: what a fit read, decided and produced, written so that a kill damages nothing.

run.json               what was read, the configuration, the metrics, the library versions
policies/<name>/       a PEFT adapter, or a whole model after full fine-tuning
cost_model/            with RL: the cost model, and the adapter of its features if they are tuned
rows.npy               hashes of the rows that were trained and validated on
report.html            the same for people
.work/                 checkpoints of a fit that is under way; gone when it is done

It is read without torch; that is loaded where a policy is.
"""

from __future__ import annotations

import json
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
from pydantic import ValidationError

from editloop.errors import RunError
from editloop.extras import requires
from editloop.io import UnsafeJSONError, atomic_file, atomic_folder, parse_json, write_json
from editloop.policy.manifest import FORMAT, Manifest, MixtureRecord, upgraded

if TYPE_CHECKING:
    from editloop.policy.model import Policy

__all__ = ["RunFolder", "library_versions", "load_policy"]

LIBRARIES = ("editloop", "torch", "transformers", "peft", "accelerate", "rapidfuzz")


class RunFolder:
    """A run folder on disk; wherever a path is asked for, it can be given itself.

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
        """Where `run.json` lies."""
        return self.path / "run.json"

    @property
    def report(self) -> Path:
        """Where `report.html` lies, if it was written."""
        return self.path / "report.html"

    @property
    def work(self) -> Path:
        """Where a fit that is under way keeps its checkpoints."""
        return self.path / ".work"

    @property
    def cost_model(self) -> Path:
        """Where the cost model lies, if the run trained with RL."""
        return self.path / "cost_model"

    @property
    def rows(self) -> Path:
        """Where the hashes of the rows lie that were trained and validated on."""
        return self.path / "rows.npy"

    def exists(self) -> bool:
        """Whether there is a manifest."""
        return self.manifest_path.is_file()

    def manifest(self) -> Manifest:
        """The content of `run.json`; what an older version wrote is read as what it means now.

        Raises:
            RunError: There is none, it is damaged, or a newer version wrote it.
        """
        if not self.exists():
            raise RunError(
                "no run folder: no run.json in it", seen=str(self.path), do="make one by editloop fit"
            )
        try:
            content = parse_json(self.manifest_path.read_text(encoding="utf-8"))
            _check_texts(content)
            if not isinstance(content, dict):
                raise ValueError("not an object")
            if content.get("format") not in range(1, FORMAT + 1):
                known = f"expected up to {FORMAT}"
                raise RunError("run.json has another format", seen=content.get("format"), do=known)
            return Manifest.model_validate(upgraded(content))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(
                f"run.json is damaged{_reason(error)}", seen=str(self.path), do="fit again into a new folder"
            ) from error

    def write_manifest(self, manifest: Manifest) -> None:
        """Replace `run.json`; the library versions are added, NaN and infinity become null."""
        full = manifest.model_copy(update={"format": FORMAT, "versions": library_versions()})
        write_json(self.manifest_path, full.model_dump(exclude_none=True), RunError)

    def write_rows(self, hashes: NDArray[np.uint64]) -> None:
        """Keep the hashes of the rows that are trained and validated on (`editloop.edits.row_hashes`).

        Raises:
            RunError: The folder cannot be written to.
        """
        with atomic_file(self.rows, RunError) as unfinished, unfinished.open("wb") as file:
            np.save(file, np.sort(hashes), allow_pickle=False)

    def seen(self, hashes: NDArray[np.uint64]) -> NDArray[np.bool_] | None:
        """Which of these rows the run was trained or validated on; None if it was made before that was kept.

        Raises:
            RunError: What was kept is damaged.
        """
        if not self.rows.is_file():
            return None
        try:
            return np.isin(hashes, np.load(self.rows, allow_pickle=False).astype(np.uint64, casting="equiv"))
        except (ValueError, TypeError, EOFError) as error:
            raise RunError("rows.npy is damaged", seen=str(self.path), do="fit again") from error

    def remove_leftovers(self) -> None:
        """Remove what a kill left of files and policies that were being written."""
        left = (".run.json.*", ".rows.npy.*", ".cost_model.*", "policies/.*")
        for path in [path for pattern in left for path in self.path.glob(pattern)]:
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):  # a folder that cannot be written to is told where it is written to
                    path.unlink()

    def keep_mixture(self, mixture: Mapping[str, Any]) -> None:
        """Make a mixture of the run's policies its own, in place of the one that it has.

        Args:
            mixture: `Mixture.to_json` of a fit by likelihood or by cost (`editloop.offline.mix_by_cost`).

        Raises:
            RunError: A policy of the mixture is not in the run.
        """
        manifest = self.manifest()
        record = MixtureRecord.model_validate(mixture, strict=False)
        if unknown := [name for name in record.weights if name not in manifest.policies]:
            have = ", ".join(manifest.policies)
            raise RunError("a policy of the mixture is not in the run", seen=unknown[0], do=f"have {have}")
        self.write_manifest(manifest.model_copy(update={"mixture": record}))

    def policy_names(self) -> list[str]:
        """Names of the policies in the folder, in the order in which they were trained."""
        return list(self.manifest().policies)

    def arm_names(self) -> list[str]:
        """All that can be asked for a response: the base, the trained policies, and their mixture."""
        manifest = self.manifest()
        return ["base", *manifest.policies, *(["mixture"] if manifest.mixture else [])]

    def policy_path(self, name: str) -> Path:
        """Folder of a policy."""
        return self.path / "policies" / name

    def save_policy(self, name: str, save: Callable[[Path], None]) -> Path:
        """Let `save` write a policy into a folder that appears only when it is whole.

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
        """The policy of that name, on a base that is loaded already.

        `base` is the base itself, `mixture` the fitted mixture.

        Raises:
            RunError: There is no such policy, or the base is another one.
        """
        from editloop.policy import MixedPolicy, load_adapter, load_base

        manifest = self.manifest()
        if name == "base":
            return base
        if name == "mixture" and manifest.mixture:
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
                do="see base in run.json",
            )
        return load_adapter(base, folder)

    @contextmanager
    def policy(self, name: str, base: Policy) -> Iterator[Policy]:
        """Within it, the policy of that name; afterwards the base carries no adapter again."""
        from editloop.policy import detach_adapter

        policy = self.load_policy(name, base)
        try:
            yield policy
        finally:
            if policy is not base and hasattr(policy.model, "peft_config"):
                detach_adapter(policy)

    def load_base(self, **options: Any) -> Policy:
        """The base that the run was trained on, loaded as it was then.

        Args:
            **options: As of `editloop.policy.load_base`, in place of what was recorded; None and `auto`
                leave that as it is.

        Raises:
            RunError: The base runs code of its own, which a run folder alone may not ask for.
        """
        from editloop.policy import load_base

        base = self.manifest().base
        recorded = base.model_dump(include={"max_length", "end_token", "quantize", "dtype"})
        asked = {key: value for key, value in options.items() if value not in (None, "auto")}
        if base.trust_remote_code and not asked.get("trust_remote_code"):
            do = "allow it by trust_remote_code"
            raise RunError("the base runs code of its own", seen=base.name, do=do)
        return load_base(base.name, **{k: v for k, v in (recorded | asked).items() if v is not None})


def load_policy(run: str | os.PathLike[str], name: str = "base", **options: Any) -> Policy:
    """One policy of a run folder, ready to sample from; or a base, given its name or folder.

    Args:
        run: A run folder, as `fit` returns it or its path; or a base as `load_base` takes it.
        name: `sft`, `dpo`, `early` ..., `mixture` or `base`.
        **options: As of `load_base`.

    Raises:
        RunError: The run has no such policy.
        ModelError: The base cannot be loaded.
    """
    from editloop.policy import load_base

    folder = RunFolder(run)
    if not folder.exists():
        if name != "base":
            raise RunError(
                "not a run folder: no run.json in it", seen=str(run), do="make one by editloop fit"
            )
        return load_base(run if isinstance(run, str) else folder.path, **options)
    return folder.load_policy(name, folder.load_base(**options))


def _check_texts(content: Any) -> None:
    """Refuse half a surrogate pair, which JSON can escape and no file or answer can hold."""
    try:
        json.dumps(content, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise UnsafeJSONError("a text in it is not Unicode") from error


def _reason(error: Exception) -> str:
    """Where the content of a manifest is not as it has to be."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        return f", {'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
    if isinstance(error, KeyError):  # of what an older version wrote
        return f", {error.args[0]}: missing"
    if isinstance(error, TypeError | AttributeError):
        return ", policies: not as an older version wrote them"
    return f", {error}" if isinstance(error, UnsafeJSONError) else ""


def library_versions() -> dict[str, str]:
    """Versions of Python and of the libraries that results depend on."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # run from a source tree
            continue
    return found
