"""What a base may be called: a folder, a hub name, a GGUF file, or a short name such as `lab:email`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
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

HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")
"""A repository of the hub with its owner."""

OTHER_WEIGHTS = (".safetensors", ".bin")
"""How the names of weights end that `transformers` loads as they are."""


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
        ModelError: A GGUF file is not there, or cannot be read; or there are several to choose from.
        MissingExtraError: Reading a GGUF file needs the extra `smollm2`.
    """
    text = str(base)
    scheme, colon, name = text.partition(":")
    if colon and not isinstance(base, Path) and scheme in SCHEMES:
        find: Callable[[str], Path] = resolve_name(SCHEMES[scheme])
        return _folder(find(name))
    if text in GGUF_NAMES and not isinstance(base, Path):
        return _gguf(resolve_name(GGUF_NAMES[text])(), text)
    if Path(base).is_dir():
        file = _only_gguf((each.name for each in Path(base).iterdir()), text)
        return _gguf(Path(base) / file, str(Path(base).resolve() / file)) if file else _folder(base)
    if text.endswith(".gguf"):
        if Path(base).exists():
            return _gguf(Path(base), str(Path(base).resolve()))
        return _gguf(_hub_file(base), text)
    if not isinstance(base, Path) and HUB_NAME.fullmatch(text) and not Path(base).exists():
        file = _only_gguf(_hub_names(text), text)
        if file:
            return _gguf(_hub_file(f"{text}/{file}"), f"{text}/{file}")
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


def _only_gguf(names: Iterable[str], base: str) -> str | None:
    """The GGUF file of a folder or repository that has no other weights; None if there is nothing to read.

    Raises:
        ModelError: There are several.
    """
    names = sorted(names)
    files = [name for name in names if name.endswith(".gguf")]
    if not files or any(name.endswith(OTHER_WEIGHTS) for name in names):
        return None
    if len(files) > 1:
        found = f"{len(files)} GGUF files: {', '.join(files[:6])}{', ...' if len(files) > 6 else ''}"
        do = f"choose one, such as --base {base.rstrip('/')}/{files[0]}"
        raise ModelError(f"the base has {found}", seen=base, do=do)
    return files[0]


def _hub_names(repository: str) -> list[str]:
    """The names of a repository's files: as the hub has them, or as its own cache has where it is not asked.

    The hub is not asked about a repository whose weights are in the cache in the usual format. Nothing is
    raised here: what is wrong with a name is said when the base is loaded.
    """
    from huggingface_hub import list_repo_files, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    cached: list[str] = []
    with suppress(OSError, ValueError, HfHubHTTPError):  # it is not in the cache
        folder = Path(snapshot_download(repository, local_files_only=True))
        cached = [str(file.relative_to(folder)) for file in folder.rglob("*")]
    if any(name.endswith(OTHER_WEIGHTS) for name in cached):
        return cached
    try:
        return list_repo_files(repository)
    except (OSError, ValueError, HfHubHTTPError):
        return cached


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
