"""How much memory there is, how much a computation takes, and how much a base needs before it is loaded.

Sizes are in bytes. On a GPU the memory is the GPU's, elsewhere that of this process, within the limits of its
control groups: in a container the machine's own free memory says nothing.
"""

from __future__ import annotations

import ctypes
import gc
import re
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import torch

from editloop.errors import ConfigError, EditLoopError, ModelError
from editloop.policy.weights import FLOATS, read_header

__all__ = [
    "Heap",
    "HeapLimit",
    "PeakMemory",
    "check_room",
    "free_memory",
    "is_out_of_memory",
    "numbers_of",
    "parse_size",
    "release_memory",
    "show_size",
    "used_memory",
    "weights_size",
]

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30}
POLL_SECONDS = 0.005
"""How often the memory of a process is looked at while its peak is measured."""
GROWTH = 2**29
"""By how many bytes a process grows before it gives freed memory back (`Heap`)."""
STEP = 2**28
"""By how many bytes a process grows, beyond its limit, before it gives freed memory back once more."""
LOOK_SECONDS = 0.05
"""How often a process looks whether it has reached its limit."""


def parse_size(text: str) -> int:
    """Bytes from a text such as `6GB`, `800 MB`, `1.5GiB` or `2000000`.

    Raises:
        ConfigError: The text is no size.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", text.lower())
    if not found or found[2] not in UNITS or float(found[1]) == 0:
        raise ConfigError("this is no size of memory", seen=text, do="as in 6GB or 800MB")
    return round(float(found[1]) * UNITS[found[2]])


def show_size(size: float) -> str:
    """Bytes as `6.2 GB`, or as `310 MB` below one gigabyte."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def used_memory(device: torch.device) -> int:
    """The memory that this process holds: on a GPU that of its tensors."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def free_memory(device: torch.device) -> tuple[int, str]:
    """The memory that this process may still take, and what limits it.

    Args:
        device: Where the tensors are to be.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        # What the library's allocator has reserved and not given away is free for this process, too.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept, "free on the GPU"
    machine = int(psutil.virtual_memory().available)
    group = group_memory()
    if group is not None and group < machine:
        return group, "left in the control group"
    return machine, "free on the machine"


@dataclass(frozen=True)
class _Controller:
    """The files of one version of control groups: limit, usage, statistics, and what of these is cache."""

    limit: str
    usage: str
    cache: str


_V2 = _Controller("memory.max", "memory.current", "inactive_file")
_V1 = _Controller("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def group_memory(
    mount: Path = Path("/sys/fs/cgroup"), membership: Path = Path("/proc/self/cgroup")
) -> int | None:
    """What the control groups of this process leave it; None without a limit, or on another system.

    Args:
        mount: Where the groups are mounted.
        membership: The file that names the groups of the process, a line `number:controllers:path` each.
    """
    try:
        lines = membership.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    left = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            root, files = mount, _V2
        elif "memory" in controllers.split(","):
            root, files = mount / "memory", _V1
        else:
            continue
        group = root / path.lstrip("/")
        # The tightest limit may be that of any group above. In a container the path may be the one outside,
        # which does not exist inside; the container's own group is then the mount itself.
        for each in (group, *group.parents):
            if each == root or root in each.parents:
                left.append(_left_in(each, files))
    return min((each for each in left if each is not None), default=None)


def _left_in(group: Path, files: _Controller) -> int | None:
    """What one group leaves; None if it has no limit or does not exist."""
    try:
        limit = (group / files.limit).read_text(encoding="utf-8").strip()
        used = int((group / files.usage).read_text(encoding="utf-8"))
        statistics = dict(
            line.split() for line in (group / "memory.stat").read_text(encoding="utf-8").splitlines()
        )
    except (OSError, ValueError):
        return None
    if not limit.isdigit():  # "max"
        return None
    # Cached files that nobody has read lately are counted as used, and dropped as soon as memory is short.
    return max(0, int(limit) - used + int(statistics.get(files.cache, 0)))


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a GPU or in main memory."""
    # On a CPU, torch raises a RuntimeError of its allocator, which differs from others in its words alone.
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        isinstance(error, RuntimeError)
        and any(words in str(error) for words in ("not enough memory", "allocate memory"))
    )


def release_memory() -> None:
    """Give memory that is not in use back to the system, where an allocator keeps it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    _trim()


class Heap:
    """The C library's heap, which keeps what was freed: batches of other sizes leave gaps, and it grows.

    A training of SmolLM2-135M on long texts that needs 4 GB at a time held 8 GB after 30 steps.
    """

    def __init__(self) -> None:
        _trim()  # or what an earlier computation left would count as in use from the beginning
        self._least = used_memory(torch.device("cpu"))

    def release(self) -> None:
        """Give what is not in use back to the system, if the process has grown by `GROWTH` since."""
        # Asking for the size takes 20 µs, and giving memory back up to a tenth of a second.
        if used_memory(torch.device("cpu")) > self._least + GROWTH:
            _trim()
            self._least = used_memory(torch.device("cpu"))


class HeapLimit:
    """A context that keeps the C library's heap within a limit, as far as what is in use allows that.

    One long batch leaves gaps, too: at its peak a training of SmolLM2-135M that had 2.9 GB in use held 4.7.
    Giving them back takes time, so it is done only from the limit on, and after each `STEP` beyond it.

    Args:
        limit: The memory in bytes from which on the process gives back what is not in use.
        device: Where its tensors are; on a GPU there is nothing to do.
    """

    def __init__(self, limit: float, device: torch.device) -> None:
        self._limit, self._device = limit, device
        self._least = 0  # what was held when memory was given back last, or less since then
        self._polling = _Polling(self._look, LOOK_SECONDS)

    def __enter__(self) -> Self:
        if self._device.type == "cpu":
            _trim()  # what an earlier computation left, such as the batch that the plan measures
            self._least = used_memory(self._device)
            self._polling.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._polling.stop()

    def _look(self) -> None:
        held = used_memory(self._device)
        self._least = min(self._least, held)
        if held > max(self._limit, self._least + STEP):
            _trim()  # the C library's locks keep the threads that compute out of the way
            self._least = used_memory(self._device)


def _trim() -> None:
    with suppress(OSError, AttributeError):  # a C library without this function
        ctypes.CDLL(None).malloc_trim(0)


class _Polling:
    """A thread that calls a function every so often; torch lets it run during its kernels."""

    def __init__(self, call: Callable[[], None], seconds: float) -> None:
        self._call, self._seconds, self._over = call, seconds, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the thread, if it was started."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(self._seconds):
            self._call()


class PeakMemory:
    """A context that measures the peak of `used_memory` in it.

    Attributes:
        start: The memory at its beginning.
        peak: The peak, known at its end.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._polling = device, _Polling(self._look, POLL_SECONDS)
        self.start = self.peak = 0

    def __enter__(self) -> Self:
        self.start = self.peak = used_memory(self._device)
        if self._device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self._device)
        else:
            self._polling.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._device.type == "cuda":
            self.peak = torch.cuda.max_memory_allocated(self._device)
        else:
            self._polling.stop()

    def _look(self) -> None:
        # The system's own record of the peak is that of the whole life of the process, and has an earlier,
        # higher peak in it.
        self.peak = max(self.peak, used_memory(self._device))


def weights_size(folder: Path, width: int | None) -> int:
    """The bytes of a base's weights in memory, from the headers of its safetensors files; 0 without any.

    Args:
        folder: The base's folder.
        width: Bytes of a floating-point number in memory; None keeps that of the files.
    """
    total = 0
    for file in folder.glob("*.safetensors"):
        for tensor in read_header(file).values():
            size = tensor.end - tensor.start
            if tensor.dtype in FLOATS and width is not None:
                size = size // FLOATS[tensor.dtype][0] * width
            total += size
    return total


def numbers_of(base: str | Path) -> int:
    """How many numbers a base's weights are; 0 for one that is not a local folder, or is damaged."""
    return _size_at_hand(base, 1)


def _size_at_hand(base: str | Path, width: int) -> int:
    try:
        return weights_size(Path(base), width) if Path(base).is_dir() else 0
    except EditLoopError:
        return 0  # a damaged file has its own message when it is loaded


def check_room(base: str | Path, dtype: torch.dtype, device: torch.device, limit: int | None = None) -> None:
    """Refuse a base whose weights alone do not fit into memory, before anything of it is loaded.

    Args:
        base: The base; what is not a local folder is not checked.
        dtype: The precision that it is to be loaded in.
        device: The device.
        limit: The most memory that may be used; None for all that is free.

    Raises:
        ModelError: There is less memory.
    """
    need = _size_at_hand(base, dtype.itemsize)
    free, why = free_memory(device)
    if limit is not None and limit < free:
        free, why = limit, "allowed by --memory"
    if need > free:
        raise ModelError(
            f"the weights of the base need {show_size(need)} of memory, and {show_size(free)} are {why}",
            seen=str(base),
            do="choose a smaller base" + (", or --dtype bfloat16" if dtype.itemsize > 2 else ""),
        )
