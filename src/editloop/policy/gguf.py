"""Bases in GGUF files, the format of llama.cpp: dequantised once, into a folder in Hugging Face format.

`transformers` reads such a file, but a model that it has read so cannot be saved, and reading takes longer
than loading. So the weights go into a fresh model of the same configuration, and that is kept in the cache
under the hash of the file.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from editloop.errors import ModelError
from editloop.extras import requires
from editloop.io import atomic_folder, cache_folder, write_json
from editloop.policy.progress_bars import downloads_alone

__all__ = ["about", "dequantised"]

VERSION = 1
"""Part of the folder's name: what another version of this module has written is not read."""

EXACT_BYTES = 1_000_000_000
"""Files above this size are kept in bfloat16: the rounding is far below that of their quantisation, and in
float32 an 8B model would take 32 GB of disk."""

ABOUT = "editloop-gguf.json"
"""The file in the folder that says what it was made of."""

PART = re.compile(r"-\d{5}-of-\d{5}\.gguf$")
"""How llama.cpp names the parts of a model that was split."""

CHOOSE_ANOTHER = "choose a file of another quantisation, such as Q8_0 or Q4_K_M"


def dequantised(file: Path) -> Path:
    """The folder in Hugging Face format of a GGUF file, made if it is not in the cache yet.

    Args:
        file: The GGUF file.

    Raises:
        ModelError: The file is no GGUF file, is cut off or a part of one, or has an architecture or
            quantisation that cannot be read; or the cache cannot be written.
        MissingExtraError: The library `gguf` is not installed.
    """
    requires("smollm2", "gguf")
    if PART.search(file.name):
        do = "merge its parts by llama.cpp's gguf-split --merge"
        raise ModelError("the GGUF file is one part of several", seen=str(file), do=do)
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ModelError("not a GGUF file", seen=str(file), do="check --base")
    folder = cache_folder() / "bases" / f"{file.stem}-{_digest(file)[:16]}-{VERSION}"
    if not (folder / ABOUT).is_file():
        with atomic_folder(folder, ModelError) as unfinished:
            _convert(file, unfinished)
    return folder


def about(folder: Path) -> dict[str, Any]:
    """What the GGUF file of a folder from `dequantised` says of itself.

    Returns:
        `file`, `name`, `license` and `quantisation`; None where it says nothing.
    """
    found: dict[str, Any] = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    return found


def _digest(file: Path) -> str:
    """SHA-256 of a file, remembered by its path, size and time of change: a large file takes long to read."""
    place, stat = str(file.resolve()), file.stat()
    key = hashlib.sha256(f"{place} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:16]
    memory = cache_folder() / "digests" / f"{key}.json"
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(memory.read_text(encoding="utf-8"))["sha256"])
    with file.open("rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    with suppress(ModelError):  # a cache that cannot be written is no reason not to read a base
        write_json(memory, {"file": place, "sha256": digest}, ModelError)
    return digest


def _metadata(file: Path) -> dict[str, Any]:
    """What the file says of itself: name, license, and the most frequent quantisation of its tensors."""
    from gguf import GGMLQuantizationType, GGUFReader

    try:
        reader = GGUFReader(file)
        fields = {key: reader.fields.get(f"general.{key}") for key in ("name", "license")}
        found = {key: field.contents() if field else None for key, field in fields.items()}
    except (ValueError, IndexError, OSError, KeyError) as error:
        # The reader has no error of its own for a number that stands for no quantisation. Its message names
        # the number, as `np.uint32(999) is not a valid GGMLQuantizationType`.
        number, is_kind, _ = str(error).partition(f" is not a valid {GGMLQuantizationType.__name__}")
        if is_kind:
            raise _unreadable(re.findall(r"\d+", number)[-1], file) from error
        raise ModelError(
            f"the GGUF file is cut off or damaged: {error}", seen=str(file), do="download it again"
        ) from error
    kinds = Counter(tensor.tensor_type for tensor in reader.tensors)
    _check_kinds(kinds, file)
    return {"file": file.name, **found, "quantisation": kinds.most_common(1)[0][0].name if kinds else None}


def _check_kinds(kinds: Iterable[Any], file: Path) -> None:
    """Refuse quantisations that have a name, and that the library cannot undo.

    Raises:
        ModelError: There is one.
    """
    import numpy as np
    from gguf import GGML_QUANT_SIZES
    from gguf.quants import dequantize

    for kind in kinds:
        _, block_bytes = GGML_QUANT_SIZES[kind]
        try:
            dequantize(np.zeros((1, block_bytes), np.uint8), kind)
        except NotImplementedError as error:
            raise _unreadable(kind.name, file) from error


def _unreadable(kind: str, file: Path) -> ModelError:
    return ModelError(f"weights in quantisation {kind} cannot be read", seen=str(file), do=CHOOSE_ANOTHER)


def _convert(file: Path, folder: Path) -> None:
    """Write the weights, the configuration and the tokenizer of a GGUF file to a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = _metadata(file)
    dtype = torch.float32 if file.stat().st_size <= EXACT_BYTES else torch.bfloat16
    place: dict[str, Any] = {"gguf_file": file.name}
    with downloads_alone():
        try:
            tokenizer = AutoTokenizer.from_pretrained(str(file.parent), **place)
            read = AutoModelForCausalLM.from_pretrained(str(file.parent), dtype=dtype, **place)
        except Exception as error:  # the library has an error of its own for each thing that it cannot read
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            what = f"the GGUF file cannot be read: {reason}"
            raise ModelError(what, seen=str(file), do="check --base") from error
        config = read.config
        config.__dict__.pop("quantization_config", None)
        fresh = AutoModelForCausalLM.from_config(config, dtype=dtype)
        fresh.load_state_dict(read.state_dict())
        fresh.save_pretrained(str(folder))
        tokenizer.save_pretrained(str(folder))
    (folder / ABOUT).write_text(json.dumps(found), encoding="utf-8")
