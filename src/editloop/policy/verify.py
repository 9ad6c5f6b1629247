"""A policy's folder as it comes from elsewhere: read wholly, and refused unless all of it is in order.

What is checked needs no torch: the kinds and names of files, the headers of the weights, the shapes against
the base's, each value. A folder that passes can still be a bad policy; that is for offline evaluation to say.
"""

from __future__ import annotations

import math
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from editloop.errors import RunError
from editloop.io import parse_json

__all__ = ["ADAPTER", "Header", "Tensor", "check_name", "check_policy", "open_regular", "read_header"]

ADAPTER = "adapter_model.safetensors"
"""Weights of an adapter, as PEFT looks for them."""

WHOLE = ("model.safetensors", "model.safetensors.index.json")
"""Weights of a whole model, as Transformers looks for them."""

NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,64}")
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
AGAIN = "fit it again"
REMOVE = "a policy's folder holds files only"
LONGEST_JSON = 64 * 2**20
CHUNK = 2**25
"""Bytes of weights that are looked at together."""

FLOATS = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F32": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
    "F8_E4M3": (1, 0x7F),  # it has no infinity: all ones are NaN
}
"""Bytes of a number, and the bits that are all set in what is infinite or not a number."""

INTEGERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}

LORA = re.compile(
    r"(?:base_model\.model\.)?(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(\.weight)?"
)


@dataclass(frozen=True)
class Tensor:
    """Where the numbers of a tensor lie, and what they are."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


Header = Mapping[str, Tensor]


def check_name(name: object) -> str:
    """A name of a policy or a file, if it is one that can go anywhere: into a path, a URL, a header.

    Raises:
        RunError: It is another.
    """
    if isinstance(name, str) and NAME.fullmatch(name):
        return name
    raise RunError(
        "not a name for a policy or its file", seen=name, do="1 to 64 of letters, digits, '.', '_' and '-'"
    )


def open_regular(path: Path) -> BufferedReader:
    """Open a file, and nothing else: a pipe or a device would be waited for.

    Raises:
        RunError: It is none, or cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise RunError(f"a file cannot be read, {error.strerror}", seen=str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError("not a regular file", seen=str(path), do=REMOVE)
    return os.fdopen(descriptor, "rb")


def check_policy(folder: Path, run: Path, base: str | None = None) -> None:
    """Check the folder of a policy.

    Args:
        folder: It.
        run: The run folder, which nothing in it may lead out of.
        base: Name or folder of the base, for the shapes; where it is not on this machine, who loads the
            policy finds out.

    Raises:
        RunError: Something in it is not in order.
    """
    if not folder.is_dir():
        raise RunError("the policy's folder is gone", seen=str(folder), do=AGAIN)
    _check_files(folder, run.resolve())
    config_file = folder / "adapter_config.json"
    if os.path.lexists(config_file):
        config = _json(config_file)
        if not (folder / ADAPTER).is_file():
            raise RunError(f"the adapter has no {ADAPTER}", seen=str(folder), do=AGAIN)
        header = _check_weights(folder / ADAPTER)
        _check_adapter(header, config, _shapes_of(base), folder / ADAPTER)
        return
    if not any((folder / name).is_file() for name in WHOLE):
        raise RunError(f"the policy has neither {ADAPTER} nor {WHOLE[0]}", seen=str(folder), do=AGAIN)
    known = _shapes_of(base)
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in _check_weights(file).items():
            if known.get(name, tensor.shape) != tensor.shape:
                raise _misfit(file, name, tensor.shape, known[name])


def _check_files(folder: Path, run: Path) -> None:
    """Regular files and folders only, by names that can go anywhere, and no way out.

    Raises:
        RunError: As of it.
    """
    if not folder.resolve().is_relative_to(run):
        raise RunError("the policy's folder leads out of the run folder", seen=str(folder))
    for place, folders, files in os.walk(folder):
        for name in (*folders, *files):
            path = Path(place) / check_name(name)
            kind = path.lstat().st_mode
            if stat.S_ISLNK(kind):
                try:
                    target = path.resolve(strict=True)
                except (OSError, RuntimeError):  # a loop; Python 3.11 and 3.12 raise RuntimeError
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


def _json(path: Path) -> dict[str, Any]:
    with open_regular(path) as file:
        text = file.read(LONGEST_JSON + 1)
    try:
        if len(text) > LONGEST_JSON:
            raise ValueError("it is too long")
        found = parse_json(text)
        if not isinstance(found, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise RunError(f"{path.name} is damaged: {error}", seen=str(path), do=AGAIN) from error
    return found


def read_header(path: Path) -> Header:
    """The tensors that a safetensors file says it holds, if it can hold them.

    Raises:
        RunError: It is damaged.
    """
    with open_regular(path) as file:
        return _read_header(file, path)


def _read_header(file: BufferedReader, path: Path) -> Header:
    size = os.fstat(file.fileno()).st_size
    try:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, LONGEST_JSON):
            raise ValueError("it is shorter than its header")
        content = parse_json(file.read(length))
        if not isinstance(content, dict):
            raise ValueError("its header is not an object")
        content.pop("__metadata__", None)
        header = {name: _tensor(name, each) for name, each in content.items()}
        end = 0
        for name, tensor in sorted(header.items(), key=lambda each: (each[1].start, each[1].end)):
            if tensor.start != end:
                raise ValueError(f"{name!r} does not begin where the tensor before it ends")
            end = tensor.end
        if 8 + length + end != size:
            raise ValueError(f"it has {size} bytes, its header speaks of {8 + length + end}")
        if not header:
            raise ValueError("it holds no tensor")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"the weights are damaged: {error}", seen=str(path), do=AGAIN) from error
    return {
        name: Tensor(each.dtype, each.shape, each.start + 8 + length, each.end + 8 + length)
        for name, each in header.items()
    }


def _tensor(name: str, content: Any) -> Tensor:
    dtype, shape, (start, end) = content["dtype"], tuple(content["shape"]), content["data_offsets"]
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)):
        raise ValueError(f"{name!r} has no proper shape or place")
    if dtype not in FLOATS and dtype not in INTEGERS:
        raise ValueError(f"{name!r} has numbers of an unknown kind")
    width = FLOATS[dtype][0] if dtype in FLOATS else INTEGERS[dtype]
    if end - start != width * math.prod(shape):
        raise ValueError(f"{name!r} has another size than its shape")
    return Tensor(dtype, shape, start, end)


def _check_weights(path: Path) -> Header:
    """The header of weights all of which are finite.

    Raises:
        RunError: They are not, or the file is damaged.
    """
    with open_regular(path) as file:
        header = _read_header(file, path)
        for name, tensor in header.items():
            if not all(_finite(part, tensor.dtype) for part in _parts(file, tensor, path)):
                raise RunError("the weights are not finite", seen=f"{name} in {path}", do=AGAIN)
    return header


def _parts(file: BufferedReader, tensor: Tensor, path: Path) -> Iterator[bytes]:
    file.seek(tensor.start)
    left = tensor.end - tensor.start
    while left > 0:
        part = file.read(min(left, CHUNK))
        if not part:  # it was cut off meanwhile
            raise RunError("the weights are damaged: they end too early", seen=str(path))
        left -= len(part)
        yield part


def _finite(part: bytes, dtype: str) -> bool:
    if dtype not in FLOATS:
        return True
    width, mask = FLOATS[dtype]
    bits = np.frombuffer(part, dtype=f"<u{width}")
    kind = bits.dtype.type
    return not bool(((bits & kind(mask)) == kind(mask)).any())


def _check_adapter(
    header: Header, config: Mapping[str, Any], base: Mapping[str, tuple[int, ...]], path: Path
) -> None:
    """Each pair of matrices has the rank that the adapter says, and fits the base's.

    Raises:
        RunError: One does not.
    """
    rank, pattern = config.get("r"), config.get("rank_pattern") or {}
    if type(rank) is not int or not isinstance(pattern, dict):
        raise RunError("adapter_config.json tells no rank", seen=rank, do=AGAIN)
    pairs: dict[tuple[str, bool], dict[str, tuple[int, ...]]] = {}
    for name, tensor in header.items():
        if tensor.dtype not in FLOATS:
            raise RunError("the weights of an adapter are no real numbers", seen=f"{name} in {path}")
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
            continue  # of convolutions and experts: their loader knows
        if a[0] != b[1] or a[0] not in ranks:
            raise RunError(
                f"the adapter's rank is {rank}, its matrices are {list(b)} and {list(a)}",
                seen=f"{module} in {path}",
                do=AGAIN,
            )
        changed = (b[0], a[1])
        if is_embedding or config.get("fan_in_fan_out"):
            changed = (a[1], b[0])
        there = base.get(f"{module}.weight", base.get(f"{module.partition('.')[2]}.weight", changed))
        if there != changed:
            raise _misfit(path, module, changed, there)


def _misfit(path: Path, name: str, shape: tuple[int, ...], there: tuple[int, ...]) -> RunError:
    return RunError(
        f"the weights are {list(shape)} where the base's are {list(there)}",
        seen=f"{name} in {path}",
        do="promote what was fitted on this base",
    )


def _shapes_of(base: str | None) -> dict[str, tuple[int, ...]]:
    """The shapes of a base's weights that are not packed, as far as it lies on this machine."""
    found: dict[str, tuple[int, ...]] = {}
    for file in _files_of(base) if base else ():
        header = read_header(file)
        found |= {name: each.shape for name, each in header.items() if each.dtype in FLOATS}
    return found


def _files_of(base: str) -> list[Path]:
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
