"""Check a policy's folder that may come from elsewhere, and refuse it unless everything in it is in order.

The check needs no torch. It looks at the kinds and names of files, at the headers and every value of the
weights, and compares their shapes with the base's. A folder that passes can still hold a bad policy; only
offline evaluation can show that.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from editloop.errors import RunError
from editloop.io import parse_json
from editloop.policy.weights import (
    FLOATS,
    MAX_JSON_BYTES,
    Header,
    check_weights,
    file_digest,
    open_regular,
    read_header,
)

__all__ = ["ADAPTER", "check_name", "check_policy"]

ADAPTER = "adapter_model.safetensors"
"""The file in which PEFT keeps the weights of an adapter."""

WHOLE = ("model.safetensors", "model.safetensors.index.json")
"""The files by which Transformers finds the weights of a whole model."""

NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
AGAIN = "fit it again"

LORA = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?"
)


def check_name(name: object) -> str:
    """Check that the name of a policy or a file is safe in a path, a URL and an HTTP header.

    Returns:
        The name.

    Raises:
        RunError: It is not a text, or has characters other than letters, digits, `.`, `_` and `-`.
    """
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise RunError(
        "not a name for a policy or its file", seen=name, do="use 1 to 64 letters, digits, '.', '_' or '-'"
    )


def check_policy(folder: Path, run: Path, base: str | None = None) -> list[bytes]:
    """Check the folder of a policy.

    Args:
        folder: The folder of an adapter or of a whole model.
        run: The run folder; no link in `folder` may lead out of it.
        base: Name or folder of the base. If its weights are on this machine, the policy's shapes are compared
            with them; otherwise whatever does not fit is found when the policy is loaded.

    Returns:
        The SHA-256 of each file that decides what the policy says: the weights in the order of their names,
        then the adapter's configuration. Weights are read once, so what is hashed is what was checked.

    Raises:
        RunError: The folder is missing, or something in it is not in order.
    """
    if not folder.is_dir():
        raise RunError("the policy's folder is missing", seen=str(folder), do=AGAIN)
    _check_files(folder, run.resolve())
    digests: dict[Path, bytes] = {}
    config_file = folder / "adapter_config.json"
    if os.path.lexists(config_file):
        config = _read_json(config_file)
        if not (folder / ADAPTER).is_file():
            raise RunError(f"the adapter has no {ADAPTER}", seen=str(folder), do=AGAIN)
        header, digests[folder / ADAPTER] = check_weights(folder / ADAPTER)
        _check_adapter(header, config, _base_shapes(base), folder / ADAPTER)
    else:
        if not any((folder / name).is_file() for name in WHOLE):
            raise RunError(f"the policy has neither {ADAPTER} nor {WHOLE[0]}", seen=str(folder), do=AGAIN)
        known = _base_shapes(base)
        for file in sorted(folder.glob("*.safetensors")):
            header, digests[file] = check_weights(file)
            for name, tensor in header.items():
                if known.get(name, tensor.shape) != tensor.shape:
                    raise _shape_error(file, name, tensor.shape, known[name])
    files = (*sorted(folder.glob("*.safetensors")), *folder.glob("adapter_config.json"))
    return [digests[file] if file in digests else file_digest(file) for file in files]


def _check_files(folder: Path, run: Path) -> None:
    """Check that a folder holds only regular files and folders, with safe names, and no link out of the run.

    Raises:
        RunError: Something else is in it.
    """
    # Links may lead to files within the run, so that policies can share one file. Links to folders are
    # refused: `os.walk` does not follow them, and what is behind them would go unchecked.
    if not folder.resolve().is_relative_to(run):
        raise RunError("the policy's folder leads out of the run folder", seen=str(folder))
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / check_name(name)
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind):
                try:
                    target = path.resolve(strict=True)
                # Links in a circle: Python 3.11 and 3.12 raise RuntimeError, later versions OSError. The run
                # folder stands in as the target, and is refused below because it is not a file.
                except (OSError, RuntimeError):
                    target = run
                if not target.is_relative_to(run):
                    raise RunError("a link leads out of the run folder", seen=str(path))
                kind = target.lstat().st_mode
                if not stat.S_ISREG(kind):
                    raise RunError("a link does not lead to a file", seen=str(path))
            if not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
                raise RunError(
                    "not a regular file", seen=str(path), do="a policy's folder holds nothing else"
                )
            if path.suffix in PICKLES:
                raise RunError("a pickle could run code", seen=str(path), do="keep weights as safetensors")


def _read_json(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        text = file.read(MAX_JSON_BYTES + 1)
    try:
        if len(text) > MAX_JSON_BYTES:
            raise ValueError("it is too long")
        found = parse_json(text)
        if not isinstance(found, dict):
            raise ValueError("it is not an object")
    except ValueError as error:
        raise RunError(f"{path.name} is damaged: {error}", seen=str(path), do=AGAIN) from error
    return found


def _check_adapter(
    header: Header, config: Mapping[str, Any], base: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Check that each pair of LoRA matrices has the rank that the configuration names and fits the base.

    Raises:
        RunError: A pair does not, or half of it is missing.
    """
    rank, pattern = config.get("r"), config.get("rank_pattern") or {}
    if type(rank) is not int or not isinstance(pattern, dict):
        raise RunError("adapter_config.json names no rank", seen=rank, do=AGAIN)
    # Tensors that are not LoRA matrices, such as DoRA's magnitudes, are left to `load_adapter`, which refuses
    # what PEFT does not know.
    pairs: dict[tuple[str, bool], dict[str, tuple[int, ...]]] = {}
    for name, tensor in header.items():
        if tensor.dtype not in FLOATS:
            raise RunError("the weights of an adapter are not real numbers", seen=f"{name} in {path}")
        if found := LORA.fullmatch(name):
            pairs.setdefault((found["module"], bool(found["embedding"])), {})[found["side"]] = tensor.shape
    if not pairs:
        raise RunError("the weights hold no adapter", seen=str(path), do=AGAIN)
    ranks = [rank, *pattern.values()]
    for (module, is_embedding), sides in pairs.items():
        a, b = sides.get("A"), sides.get("B")
        if a is None or b is None:
            raise RunError("half of an adapter's pair of matrices is missing", seen=f"{module} in {path}")
        if len(a) != 2 or len(b) != 2 or config.get("target_parameters"):
            continue  # convolutions and experts have other shapes, which PEFT checks when it loads them
        if a[0] != b[1] or a[0] not in ranks:
            raise RunError(
                f"the adapter's rank is {rank}, its matrices are {list(b)} and {list(a)}",
                seen=f"{module} in {path}",
                do=AGAIN,
            )
        # The update is B A, of the shape [out, in] of a linear layer. An embedding's weight, and that of the
        # Conv1D layers of GPT-2, is kept the other way round.
        update = (b[0], a[1])
        if is_embedding or config.get("fan_in_fan_out"):
            update = (a[1], b[0])
        # PEFT names modules from the model with its head; the base's file may lack that first part.
        expected = base.get(f"{module}.weight", base.get(f"{module.partition('.')[2]}.weight", update))
        if expected != update:
            raise _shape_error(path, module, update, expected)


def _shape_error(path: Path, name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> RunError:
    return RunError(
        f"the weights are {list(shape)} where the base's are {list(expected)}",
        seen=f"{name} in {path}",
        do="promote a policy that was fitted on this base",
    )


def _base_shapes(base: str | None) -> dict[str, tuple[int, ...]]:
    """The shapes of a base's floating-point weights, by name; empty if they are not on this machine.

    Integer tensors are left out: they are packed weights of a quantised base, whose shape says nothing.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in _base_files(base) if base else ():
        header = read_header(file)
        found |= {name: each.shape for name, each in header.items() if each.dtype in FLOATS}
    return found


def _base_files(base: str) -> list[Path]:
    """The weight files of a base: those in its folder, or in the cache of the Hugging Face hub."""
    if Path(base).is_dir():
        return sorted(Path(base).glob("*.safetensors"))
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        known = [try_to_load_from_cache(base, name) for name in WHOLE]
    except HFValidationError:
        return []
    folders = {Path(each).parent for each in known if isinstance(each, str)}
    return sorted(file for folder in folders for file in folder.glob("*.safetensors"))
