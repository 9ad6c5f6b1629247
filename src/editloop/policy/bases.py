"""What a base may be called: a folder, a hub name, a GGUF file, or a short name such as `lab:email`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from typing import NamedTuple

from editloop.errors import ModelError

__all__ = ["ResolvedBase", "resolve_base"]

SCHEMES = {"lab": "editloop.lab.domains:base_path"}
"""For each scheme of `SCHEME:NAME` the function that returns the folder, as a path to import. It belongs to a
room above this one, and is imported only when such a base is asked for."""

GGUF_NAMES = {"smollm2": "editloop.policy.smollm2:model_file"}
"""For each short name of a GGUF file the function that returns its path, as a path to import."""


class ResolvedBase(NamedTuple):
    """Where a base is.

    Attributes:
        place: A folder in Hugging Face format, or a hub name.
        name: By what a run folder names it, so that it is found again: for a GGUF file its own name, and not
            that of the folder in the cache.
        note: What was made of it, as a line for the user; None if it is used as it is.
    """

    place: str | Path
    name: str
    note: str | None = None


def resolve_base(base: str | Path) -> ResolvedBase:
    """Find a base by its name.

    Raises:
        ConfigError: The scheme is known, and has no base of that name.
        ModelError: A GGUF file is not there, or cannot be read.
        MissingExtraError: Reading a GGUF file needs the extra `smollm2`.
    """
    text = str(base)
    scheme, colon, name = text.partition(":")
    if colon and not isinstance(base, Path) and scheme in SCHEMES:
        find: Callable[[str], Path] = resolve_name(SCHEMES[scheme])
        return _folder(find(name))
    if text in GGUF_NAMES and not isinstance(base, Path):
        return _gguf(resolve_name(GGUF_NAMES[text])(), text)
    if text.endswith(".gguf") and not Path(base).is_dir():
        if Path(base).exists():
            return _gguf(Path(base), str(Path(base).resolve()))
        return _gguf(_hub_file(base), text)
    return _folder(base)


def _folder(base: str | Path) -> ResolvedBase:
    return ResolvedBase(base, str(Path(base).resolve()) if Path(base).is_dir() else str(base))


def _gguf(file: Path, name: str) -> ResolvedBase:
    from editloop.policy.gguf import about, dequantised

    folder = dequantised(file)
    made = about(folder)
    licence = made["license"] or "no licence named"
    note = f"{file.name} ({licence}), its {made['quantisation']} weights dequantised in {folder}"
    return ResolvedBase(folder, name, note)


def _hub_file(base: str | Path) -> Path:
    """Download OWNER/REPOSITORY/FILE.gguf from the hub, unless it is in the hub's own cache."""
    name = str(base)
    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not file or isinstance(base, Path) or name.startswith((".", "/", "~")):
        raise ModelError("no such GGUF file", seen=name, do="check --base")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(hf_hub_download(f"{owner}/{repository}", file))
    except (OSError, ValueError, HfHubHTTPError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ModelError(
            f"the hub does not give this file: {reason}", seen=name, do="check --base"
        ) from error
