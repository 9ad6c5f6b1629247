"""Memory: sizes as text, the limits of control groups, peaks, and bases that do not fit."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from safetensors.numpy import save_file

from editloop.errors import ConfigError, ModelError
from editloop.policy import load_base, memory
from editloop.policy.memory import (
    Heap,
    HeapLimit,
    PeakMemory,
    check_room,
    free_memory,
    group_memory,
    is_out_of_memory,
    parse_size,
    show_size,
    used_memory,
    weights_size,
)

CPU = torch.device("cpu")

with_trim = pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc", reason="other C libraries have no malloc_trim"
)


def test_sizes_are_read_and_shown() -> None:
    texts = ["6GB", "800 MB", "1.5GiB", "2000000", "3g", "512MiB", "1 kB"]
    assert [parse_size(text) for text in texts] == [
        6 * 10**9, 8 * 10**8, 3 * 2**29, 2 * 10**6, 3 * 10**9, 2**29, 1000
    ]  # fmt: skip
    assert [show_size(size) for size in (6_240_000_000, 310_400_000)] == ["6.2 GB", "310 MB"]
    for wrong in ("", "much", "-1GB", "6XB", "0", "GB"):
        with pytest.raises(ConfigError, match="as in 6GB"):
            parse_size(wrong)


def make_group(folder: Path, limit: str, used: int, cache: int, version: int = 2) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.max", "memory.current", "inactive_file")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon {used - cache}\n{names[2]} {cache}\n")


def test_the_tightest_group_counts_and_cached_files_are_free(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("0::/slice/job\n")
    mount = tmp_path / "cgroup"
    make_group(mount / "slice", "1000", used=700, cache=50)  # leaves 350
    make_group(mount / "slice/job", "900", used=400, cache=100)  # leaves 600
    assert group_memory(mount, tmp_path / "self") == 350
    make_group(mount / "slice", "max", used=700, cache=50)
    assert group_memory(mount, tmp_path / "self") == 600
    make_group(mount / "slice/job", "max", used=400, cache=100)
    assert group_memory(mount, tmp_path / "self") is None
    make_group(mount / "slice/job", "300", used=400, cache=20)  # the limit was lowered below the usage
    assert group_memory(mount, tmp_path / "self") == 0


def test_a_container_whose_path_is_the_one_outside(tmp_path: Path) -> None:
    (tmp_path / "self").write_text("5:cpu,memory:/docker/abc\n4:devices:/docker/abc\n")
    make_group(tmp_path / "cgroup/memory", "1000", used=300, cache=0, version=1)
    assert group_memory(tmp_path / "cgroup", tmp_path / "self") == 700


def test_without_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert group_memory(tmp_path, tmp_path / "none") is None


def test_a_group_below_the_machine_limits_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "group_memory", lambda: 12345)
    assert free_memory(CPU) == (12345, "left in the control group")
    monkeypatch.setattr(memory, "group_memory", lambda: 2**60)
    free, why = free_memory(CPU)
    assert 0 < free <= psutil.virtual_memory().total
    assert why == "free on the machine"


def test_the_peak_of_what_is_freed_again() -> None:
    with PeakMemory(CPU) as outer:
        torch.ones(2**25).sum()  # 128 MB, well above what the allocator keeps
        with PeakMemory(CPU) as inner:
            sum(range(10**6))
    assert outer.peak - outer.start > 2**26
    assert inner.peak - inner.start < 2**26
    assert used_memory(CPU) - outer.start < 2**26


def test_errors_of_allocations_are_told_from_others() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_base_that_does_not_fit_is_refused_by_its_headers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_file(
        {"a": np.zeros((1000, 500), np.float16), "b": np.zeros(7, np.int64)}, tmp_path / "model.safetensors"
    )
    assert weights_size(tmp_path, 4) == 4 * 500_000 + 56
    assert weights_size(tmp_path, None) == 2 * 500_000 + 56
    monkeypatch.setattr(memory, "free_memory", lambda device: (1_500_000, "free on the machine"))
    check_room(tmp_path, torch.bfloat16, CPU)
    with pytest.raises(ModelError, match=r"need 2 MB of memory, and 2 MB are free on the machine"):
        check_room(tmp_path, torch.float32, CPU)
    with pytest.raises(ModelError, match="allowed by --memory"):
        check_room(tmp_path, torch.bfloat16, CPU, limit=900_000)
    check_room("owner/name", torch.float32, CPU)  # not here, so not known


def test_loading_asks_before_it_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": np.zeros(1000, np.float32)}, tmp_path / "model.safetensors")
    monkeypatch.setattr(memory, "free_memory", lambda device: (3_999, "free on the machine"))
    with pytest.raises(ModelError, match="of memory"):  # and not about a missing config.json
        load_base(tmp_path, device="cpu")


@with_trim
def test_freed_memory_goes_back_to_the_system_once_the_process_has_grown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "GROWTH", 2**26)
    heap, before = Heap(), used_memory(CPU)
    held = [torch.ones(16_000) for _ in range(4_000)]  # 256 MB in pieces that come from the heap
    last = torch.ones(16_000)  # above them, so that the C library cannot give back what is below
    del held
    kept = used_memory(CPU)
    assert kept > before + 2**27
    heap.release()
    assert used_memory(CPU) < before + 2**26
    assert float(last.sum()) == 16_000


def _limited() -> None:
    with HeapLimit(1e15, CPU):
        pass


@pytest.mark.parametrize("begin", [Heap, _limited])
def test_what_was_freed_before_is_given_back_at_the_beginning(begin: Callable[[], object]) -> None:
    held = [torch.ones(16_000) for _ in range(4_000)]
    last = torch.ones(16_000)
    del held
    kept = used_memory(CPU)
    begin()
    assert used_memory(CPU) < kept - 2**27
    assert float(last.sum()) == 16_000


def test_a_process_that_has_not_grown_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    heap = Heap()
    monkeypatch.setattr(memory, "_trim", lambda: pytest.fail("nothing has grown"))
    heap.release()


@with_trim
@pytest.mark.parametrize(("limit", "given_back"), [(1.1, True), (100.0, False)])
def test_near_its_limit_a_process_gives_gaps_back_as_it_grows(limit: float, given_back: bool) -> None:
    Heap()
    before = used_memory(CPU)
    with HeapLimit(limit * before, CPU):
        pieces = [torch.ones(16_000) for _ in range(6_000)]  # 384 MB
        last = torch.ones(16_000)
        pieces.clear()
        large = torch.ones(100_000_000)  # 400 MB, for which no gap is large enough
        deadline = time.monotonic() + (10.0 if given_back else 0.5)
        while used_memory(CPU) > before + 500e6 and time.monotonic() < deadline:
            time.sleep(0.01)
        held = used_memory(CPU) - before
    assert held < 500e6 if given_back else held > 700e6
    assert float(last.sum()) == 16_000 and float(large[-1]) == 1.0
    del large
    Heap()
