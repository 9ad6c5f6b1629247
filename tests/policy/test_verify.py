"""The content of a policy's folder: whatever is not in order is refused, and no read blocks."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save, save_file

from editloop.errors import RunError
from editloop.policy import (
    LoraSettings,
    RunFolder,
    attach_adapter,
    check_name,
    check_policy,
    load_base,
)
from editloop.policy.weights import _read_header, check_weights, open_regular, read_header
from small_run import IN, MODULE, OUT, RANK, adapter_weights, make_run, save_adapter
from tiny import FAMILIES

A, B = (f"base_model.model.{MODULE}.lora_{side}.weight" for side in "AB")


def check(run: RunFolder) -> None:
    check_policy(run.policy_path("sft"), run.path, run.manifest().base.name)


def written(header: dict[str, Any] | str, numbers: bytes, length: int | None = None) -> bytes:
    """A safetensors file by hand."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def one(dtype: str = "F32", shape: Any = (1, 1), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"w": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def test_what_a_fit_writes_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "run")
    check(run)
    header = read_header(run.policy_path("sft") / "adapter_model.safetensors")
    assert {name: each.shape for name, each in header.items()} == {A: (RANK, IN), B: (OUT, RANK)}
    monkeypatch.chdir(tmp_path)
    check_policy(Path("run/policies/sft"), Path("run"))


def test_the_digests_are_of_the_whole_files_and_weights_are_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_run(tmp_path / "run").policy_path("sft")
    (folder / "another.safetensors").write_bytes(written(one(), b"\0" * 4))
    opened: list[str] = []

    def watched(path: Path) -> Any:
        opened.append(path.name)
        return open_regular(path)

    monkeypatch.setattr("editloop.policy.weights.open_regular", watched)
    names = ["adapter_model.safetensors", "another.safetensors", "adapter_config.json"]
    assert check_policy(folder, tmp_path) == [
        hashlib.sha256((folder / name).read_bytes()).digest() for name in names
    ]
    assert sorted(opened) == sorted(names)


def test_a_file_that_is_cut_while_it_is_read_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "cut.safetensors"
    path.write_bytes(written(one(shape=(4096, 4), offsets=(0, 65536)), b"\0" * 65536))

    def cut_after(file: Any, path: Path) -> Any:
        header = _read_header(file, path)
        os.truncate(path, path.stat().st_size - 2)  # within a number
        return header

    monkeypatch.setattr("editloop.policy.weights._read_header", cut_after)
    with pytest.raises(RunError, match="they end too early"):
        check_weights(path)


def fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as bound:
        here = Path.cwd()
        os.chdir(path.parent)  # its address has a hundred characters at most
        bound.bind(path.name)
        os.chdir(here)


def link_to(target: str) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


@pytest.mark.parametrize(
    ("name", "make", "reason"),
    [
        ("adapter_model.safetensors", fifo, "not a regular file"),
        ("adapter_config.json", fifo, "not a regular file"),
        ("more.safetensors", fifo, "not a regular file"),
        ("adapter_model.safetensors", unix_socket, "not a regular file"),
        ("adapter_model.safetensors", link_to("/dev/zero"), "leads out of the run folder"),
        ("adapter_model.safetensors", link_to("../../../base/model.safetensors"), "leads out of the run"),
        (
            "adapter_model.safetensors",
            link_to("adapter_model.safetensors"),
            "a link does not lead",
        ),
        ("more", link_to("nowhere"), "a link does not lead to a file"),
        ("more", link_to("../dpo"), "a link does not lead to a file"),
        ("a\r\nb", lambda path: path.touch(), "not a name for a policy or its file"),
        ("ü.json", lambda path: path.touch(), "not a name for a policy or its file"),
        ("x" * 65, lambda path: path.touch(), "not a name for a policy or its file"),
        ("adapter_model.bin", lambda path: path.touch(), "a pickle could run code"),
        ("adapter_model.safetensors", Path.unlink, "has no adapter_model.safetensors"),
        ("adapter_config.json", Path.unlink, "has neither adapter_model.safetensors nor"),
        ("adapter_config.json", lambda path: path.write_text("{"), "adapter_config.json is damaged"),
        ("adapter_config.json", lambda path: path.write_text("[]"), "adapter_config.json is damaged"),
        ("adapter_config.json", lambda path: path.write_text("{}"), "names no rank"),
        ("adapter_config.json", lambda path: path.write_text('{"r": 2, "r": 2}'), "the same key twice"),
    ],
)
@pytest.mark.timeout(20)
def test_what_is_not_in_order_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], None], reason: str
) -> None:
    run = make_run(tmp_path / "run")
    make(run.policy_path("sft") / name)
    with pytest.raises(RunError, match=reason):
        check(run)


def test_links_within_the_run_are_files_of_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    weights = run.policy_path("sft") / "adapter_model.safetensors"
    weights.unlink()
    weights.symlink_to("../dpo/adapter_model.safetensors")
    check(run)


def test_a_policys_folder_is_within_its_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    save_adapter(tmp_path / "elsewhere")
    run.policy_path("away").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="leads out of the run folder"):
        check_policy(run.policy_path("away"), run.path)
    with pytest.raises(RunError, match="is missing"):
        check_policy(run.policy_path("none"), run.path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "shorter than its header"),
        (b"\0" * 7, "shorter than its header"),
        (written(one(), b"\0" * 4, length=10_000), "shorter than its header"),
        (written(one(), b"\0" * 3), "its header describes"),
        (written(one(), b"\0" * 5), "its header describes"),
        (written(one(shape=(2, 1)), b"\0" * 4), "does not match its shape"),
        (written(one(shape=(-1, -1)), b"\0" * 4), "are not natural numbers"),
        (written(one(shape="ab"), b"\0" * 4), "are not natural numbers"),
        (written(one(offsets=(4, 8)), b"\0" * 8), "does not begin where"),
        (written(one(offsets=(0, 4, 8)), b"\0" * 8), "damaged"),
        (written(one(dtype="F128"), b"\0" * 4), "is unknown"),
        (written(one(dtype=["F32"]), b"\0" * 4), "damaged"),
        (written({"w": 1}, b""), "damaged"),
        (written([], b""), "not an object"),
        (written({}, b""), "no tensor"),
        (written('{"w": {}, "w": {}}', b""), "the same key twice"),
        (written("[" * 100_000, b""), "nested too deeply"),
        (written(one() | {"v": one()["w"]}, b"\0" * 4), "does not begin where"),
    ],
)
def test_damaged_weights_are_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    file = tmp_path / "w.safetensors"
    file.write_bytes(content)
    with pytest.raises(
        RunError, match=f"the weights are damaged.*{reason}" if reason != "damaged" else reason
    ):
        read_header(file)


KINDS = ["float64", "float32", "float16", "int64", "int8", "uint16", "bool"]


SHAPED = st.tuples(st.sampled_from(KINDS), st.lists(st.integers(0, 4), max_size=3))


@given(st.dictionaries(st.text(max_size=5), SHAPED, min_size=1))
@settings(max_examples=60, deadline=None)
def test_headers_are_read_as_their_library_writes_them(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, tuple[str, list[int]]]
) -> None:
    arrays = {name: np.zeros(shape, kind) for name, (kind, shape) in content.items()}
    file = tmp_path_factory.mktemp("header") / "w.safetensors"
    save_file(arrays, file)
    header, whole = read_header(file), file.read_bytes()
    assert {name: each.shape for name, each in header.items()} == {
        name: array.shape for name, array in arrays.items()
    }
    assert all(whole[each.start : each.end] == arrays[name].tobytes() for name, each in header.items())


@given(st.integers(0, 400), st.integers(0, 255))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_byte_of_a_header_that_is_another_breaks_nothing(tmp_path: Path, place: int, byte: int) -> None:
    whole = bytearray(save(adapter_weights()))
    whole[place % len(whole)] = byte
    folder = tmp_path / "policy"
    save_adapter(folder).write_bytes(whole)
    with suppress(RunError):  # in one line; any other error fails this test
        check_policy(folder, tmp_path)


@pytest.mark.parametrize("cut", [1, 4, 9, 50])
def test_weights_that_were_cut_off_are_refused(tmp_path: Path, cut: int) -> None:
    run = make_run(tmp_path / "run")
    file = run.policy_path("sft") / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(RunError, match="its header describes"):
        check(run)


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [
        ("F64", "000000000000f0bf", ["000000000000f07f", "000000000000f8ff", "010000000000f07f"]),
        ("F32", "ffff7f7f", ["0000807f", "000080ff", "0000c07f"]),
        ("F16", "ff7b", ["007c", "00fc", "007e"]),
        ("BF16", "7f7f", ["807f", "80ff", "c07f"]),
        ("F8_E5M2", "7b", ["7c", "fc", "7d"]),
        ("F8_E4M3", "7e", ["7f", "ff"]),
        ("U8", "ff", []),
        ("I64", "ffffffffffffff7f", []),
    ],
)
def test_numbers_are_finite(tmp_path: Path, dtype: str, good: str, bad: list[str]) -> None:
    """The largest number of each kind is one; infinities and what is not a number are none."""
    width = len(good) // 2
    header = one(dtype, (2, 2), (0, 4 * width))
    (tmp_path / "config.json").write_text("{}")
    for last in (good, *bad):
        (tmp_path / "model.safetensors").write_bytes(written(header, bytes.fromhex(3 * good + last)))
        if last == good:
            check_policy(tmp_path, tmp_path)
        else:
            with pytest.raises(RunError, match="not finite: 'w in"):
                check_policy(tmp_path, tmp_path)


def test_what_is_not_finite_is_found_in_a_large_tensor(tmp_path: Path) -> None:
    big = np.zeros(9_000_000, np.float32)  # more than are looked at together
    big[-1] = np.nan
    save_file({"w": big}, tmp_path / "model.safetensors")
    with pytest.raises(RunError, match="not finite"):
        check_policy(tmp_path, tmp_path)


@pytest.mark.parametrize(
    ("weights", "reason"),
    [
        (adapter_weights(rank=3), r"rank is 2, its matrices are \[6, 3\] and \[3, 4\]"),
        (adapter_weights(out=5), r"the weights are \[5, 4\] where the base's are \[6, 4\]"),
        ({A: adapter_weights()[A]}, "half of an adapter's pair"),
        ({"other": adapter_weights()[A]}, "hold no adapter"),
        ({A: adapter_weights()[A].astype(np.int32), B: adapter_weights()[B]}, "not real numbers"),
    ],
)
def test_shapes_are_the_bases(tmp_path: Path, weights: dict[str, Any], reason: str) -> None:
    run = make_run(tmp_path / "run")
    save_adapter(run.policy_path("sft"), weights)
    with pytest.raises(RunError, match=reason):
        check(run)


def test_a_whole_model_has_the_bases_shapes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    whole = run.policy_path("early")
    whole.mkdir()
    for shape, fits in (((OUT, IN), True), ((OUT, IN + 1), False)):
        save_file({f"{MODULE}.weight": np.ones(shape, np.float32)}, whole / "model.safetensors")
        if fits:
            check_policy(whole, run.path, run.manifest().base.name)
        else:
            with pytest.raises(RunError, match=r"\[6, 5\] where the base's are \[6, 4\]"):
                check_policy(whole, run.path, run.manifest().base.name)


def test_names_go_anywhere() -> None:
    for name in ("sft", "dpo-2", "v1.0_final", "x" * 64):
        assert check_name(name) == name
    for name in ("", ".", "..", "a/b", "a\nb", "a\n", "x" * 65, "é", None, 1):
        with pytest.raises(RunError, match="not a name"):
            check_name(name)


WIDER = {"gpt2": {"n_embd": 64}, "mpt": {"d_model": 64}}


@pytest.mark.parametrize("family", [each for each in FAMILIES if each != "mamba"])  # PEFT does not support it
def test_a_real_adapter_fits_its_base_and_no_other(base: Any, tmp_path: Path, family: str) -> None:
    own, other = base(family), base(family, **WIDER.get(family, {"hidden_size": 64}))
    adapted = attach_adapter(load_base(own, device="cpu"), LoraSettings(rank=2), seed=0)
    adapted.model.save_pretrained(str(tmp_path / "sft"))
    check_policy(tmp_path / "sft", tmp_path, str(own))
    with pytest.raises(RunError, match="where the base's are"):
        check_policy(tmp_path / "sft", tmp_path, str(other))
