"""Weights in safetensors, read and checked without torch: the header, every value, and a hash of the file.

A file that was made elsewhere is not handed to a library before this module has read all of it.
"""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from editloop.errors import RunError
from editloop.io import parse_json

__all__ = [
    "FLOATS",
    "MAX_JSON_BYTES",
    "Header",
    "Tensor",
    "check_weights",
    "file_digest",
    "open_regular",
    "read_header",
]

MAX_JSON_BYTES = 64 * 2**20
"""The longest header or configuration that is parsed."""

CHUNK = 2**25
"""How many bytes of weights are read at a time."""

FLOATS = {
    "F64": (8, 0x7FF0_0000_0000_0000),
    "F32": (4, 0x7F80_0000),
    "F16": (2, 0x7C00),
    "BF16": (2, 0x7F80),
    "F8_E5M2": (1, 0x7C),
    "F8_E4M3": (1, 0x7F),  # this format has no infinity; with all of these bits set it is NaN
}
"""For each floating-point dtype its size in bytes, and the bits that are all set in infinity and NaN."""

INTEGERS = {"BOOL": 1, "U8": 1, "I8": 1, "U16": 2, "I16": 2, "U32": 4, "I32": 4, "U64": 8, "I64": 8}
"""For each other dtype its size in bytes."""


@dataclass(frozen=True)
class Tensor:
    """The header's entry for one tensor.

    Attributes:
        dtype: Its dtype, as safetensors names it.
        shape: Its shape.
        start: Offset of its first byte in the file.
        end: Offset one past its last byte.
    """

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


Header = Mapping[str, Tensor]
"""The tensors of a file, by name."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    Raises:
        RunError: The path is not a regular file, or it cannot be read.
    """
    # Opening a named pipe would block until somebody writes to it, hence O_NONBLOCK. The kind is asked of the
    # open descriptor, so that the path cannot be exchanged between the check and the reading.
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise RunError(f"a file cannot be read, {error.strerror}", seen=str(path)) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RunError("not a regular file", seen=str(path), do="a policy's folder holds files only")
    return os.fdopen(descriptor, "rb")


def file_digest(path: Path) -> bytes:
    """The SHA-256 of a regular file.

    Raises:
        RunError: The path is not a regular file, or it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").digest()


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        RunError: The header is damaged, or does not describe the file exactly.
    """
    with open_regular(path) as file:
        return _read_header(file, path)


def check_weights(path: Path) -> tuple[Header, bytes]:
    """Check that all values of a safetensors file are finite.

    Returns:
        The header, and the SHA-256 of the file that was checked.

    Raises:
        RunError: A value is not finite, or the file is damaged.
    """
    with open_regular(path) as file:
        header = _read_header(file, path)
        # The header's check has shown that the tensors fill the rest of the file without a gap. Read in the
        # order of their offsets, they are the whole file: one pass checks the values and hashes the bytes,
        # and what is hashed is what was checked.
        tensors = sorted(header.items(), key=lambda each: (each[1].start, each[1].end))
        file.seek(0)
        digest = hashlib.sha256(file.read(tensors[0][1].start))
        for name, tensor in tensors:
            for part in _parts(file, tensor, path):
                digest.update(part)
                if not _is_finite(part, tensor.dtype):
                    raise RunError("the weights are not finite", seen=f"{name} in {path}", do="fit it again")
    return header, digest.digest()


def _read_header(file: BufferedReader, path: Path) -> Header:
    size = os.fstat(file.fileno()).st_size
    try:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_JSON_BYTES):
            raise ValueError("the file is shorter than its header")
        content = parse_json(file.read(length))
        if not isinstance(content, dict):
            raise ValueError("the header is not an object")
        content.pop("__metadata__", None)
        header = {name: _tensor(name, each) for name, each in content.items()}
        end = 0
        for name, tensor in sorted(header.items(), key=lambda each: (each[1].start, each[1].end)):
            if tensor.start != end:
                raise ValueError(f"{name!r} does not begin where the tensor before it ends")
            end = tensor.end
        if 8 + length + end != size:
            raise ValueError(f"the file has {size} bytes, its header describes {8 + length + end}")
        if not header:
            raise ValueError("the file holds no tensor")
    except (ValueError, TypeError, KeyError) as error:
        raise RunError(f"the weights are damaged: {error}", seen=str(path), do="fit it again") from error
    return {
        name: Tensor(each.dtype, each.shape, each.start + 8 + length, each.end + 8 + length)
        for name, each in header.items()
    }


def _tensor(name: str, content: Any) -> Tensor:
    """One entry of a header; its offsets still count from the end of the header."""
    dtype, shape, (start, end) = content["dtype"], tuple(content["shape"]), content["data_offsets"]
    # `type(...) is int` and not isinstance: JSON's true is an int to Python.
    if not all(type(each) is int and each >= 0 for each in (*shape, start, end)):
        raise ValueError(f"the shape or the offsets of {name!r} are not natural numbers")
    if dtype not in FLOATS and dtype not in INTEGERS:
        raise ValueError(f"the dtype of {name!r} is unknown")
    width = FLOATS[dtype][0] if dtype in FLOATS else INTEGERS[dtype]
    if end - start != width * math.prod(shape):
        raise ValueError(f"the size of {name!r} does not match its shape")
    return Tensor(dtype, shape, start, end)


def _parts(file: BufferedReader, tensor: Tensor, path: Path) -> Iterator[bytes]:
    """The bytes of a tensor, in chunks that bound the memory.

    Raises:
        RunError: The file was truncated after its header had been checked.
    """
    file.seek(tensor.start)
    left = tensor.end - tensor.start
    while left > 0:
        part = file.read(min(left, CHUNK))
        if len(part) < min(left, CHUNK):
            raise RunError("the weights are damaged: they end too early", seen=str(path))
        left -= len(part)
        yield part


def _is_finite(part: bytes, dtype: str) -> bool:
    """Whether all numbers in these bytes are finite; integers always are."""
    if dtype not in FLOATS:
        return True
    # NumPy has neither bf16 nor the 8-bit floats, so the exponent's bits are looked at: a float is infinite
    # or NaN exactly if all of them are set. A chunk's size is a multiple of every width.
    width, mask = FLOATS[dtype]
    bits = np.frombuffer(part, dtype=f"<u{width}")
    kind = bits.dtype.type
    return not bool(((bits & kind(mask)) == kind(mask)).any())
