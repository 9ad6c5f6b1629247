"""Bases in GGUF files, the format of llama.cpp: dequantised once, into a folder in Hugging Face format.

`transformers` reads such a file, but a model that it has read so cannot be saved, and reading takes longer
than loading. So the weights go into a fresh model of the same configuration, and that is kept in the cache
under the hash of the file.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

from editloop.errors import ModelError
from editloop.extras import requires
from editloop.io import atomic_folder, cache_folder

__all__ = ["about", "dequantised"]

VERSION = 1
"""Part of the folder's name: what another version of this module has written is not read."""

EXACT_BYTES = 1_000_000_000
"""Files above this size are kept in bfloat16: the rounding is far below that of their quantisation, and in
float32 an 8B model would take 32 GB of disk."""

ABOUT = "editloop-gguf.json"
"""The file in the folder that says what it was made of."""


def dequantised(file: Path) -> Path:
    """The folder in Hugging Face format of a GGUF file, made if it is not in the cache yet.

    Args:
        file: The GGUF file.

    Raises:
        ModelError: The file is no GGUF file, is cut off, or has an architecture or quantisation that cannot
            be read; or the cache cannot be written.
        MissingExtraError: The library `gguf` is not installed.
    """
    requires("smollm2", "gguf")
    with file.open("rb") as opened:
        if opened.read(4) != b"GGUF":
            raise ModelError("not a GGUF file", seen=str(file), do="check --base")
        opened.seek(0)
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    folder = cache_folder() / "bases" / f"{file.stem}-{digest[:16]}-{VERSION}"
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


def _metadata(file: Path) -> dict[str, Any]:
    """What the file says of itself: name, license, and the most frequent quantisation of its tensors."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(file)
        kinds = Counter(tensor.tensor_type.name for tensor in reader.tensors)
        fields = {key: reader.fields.get(f"general.{key}") for key in ("name", "license")}
        found = {key: field.contents() if field else None for key, field in fields.items()}
    except (ValueError, IndexError, OSError, KeyError) as error:
        raise ModelError(
            f"the GGUF file is cut off or damaged: {error}", seen=str(file), do="download it again"
        ) from error
    return {"file": file.name, **found, "quantisation": kinds.most_common(1)[0][0] if kinds else None}


def _convert(file: Path, folder: Path) -> None:
    """Write the weights, the configuration and the tokenizer of a GGUF file to a folder."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = _metadata(file)
    dtype = torch.float32 if file.stat().st_size <= EXACT_BYTES else torch.bfloat16
    place: dict[str, Any] = {"gguf_file": file.name}
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
