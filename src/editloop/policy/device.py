"""Choose the device and the precision of a model; every automatic choice comes with its reason."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from accelerate import PartialState

from editloop.errors import ConfigError

__all__ = ["check_device", "choose_device", "choose_dtype", "processes"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
BF16_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")
"""Capabilities of a processor, as torch names them, with which it multiplies in bfloat16."""
LARGE = 50_000_000
"""Numbers of a base from which a processor multiplies long enough for its bfloat16 to pay."""


def choose_device(device: str = "auto") -> tuple[torch.device, str]:
    """The device to use and why.

    Args:
        device: `auto`, or a device of torch such as `cpu`, `cuda`, `cuda:1`, `mps`. Under a distributed
            launcher, `cuda` is the GPU of this process.

    Returns:
        The device, and the reason.

    Raises:
        ConfigError: The device is unknown, or this machine does not have it.
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)  # a name can be valid and the device absent
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                "this device cannot be used", seen=device, do="choose --device cpu or auto"
            ) from error
        return _own_gpu(chosen), "as asked"
    if torch.cuda.is_available():
        own = _own_gpu(torch.device("cuda"))
        return own, f"found {torch.cuda.get_device_name(own)}"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "found Apple Metal"
    return torch.device("cpu"), f"no accelerator found, {torch.get_num_threads()} threads"


def _own_gpu(device: torch.device) -> torch.device:
    """`cuda` without a number is the GPU that the launcher gave this process."""
    if device == torch.device("cuda"):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def choose_dtype(
    device: torch.device, dtype: str = "auto", numbers: Callable[[], int] = int
) -> tuple[torch.dtype, str]:
    """The precision to load a model in, and why.

    Args:
        device: The device that the model will be on.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        numbers: Counts the numbers of the base, where they decide; 0 if they are not known.

    Raises:
        ConfigError: The dtype is unknown.
    """
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError("unknown dtype", seen=dtype, do=f"choose --dtype auto, {', '.join(DTYPES)}")
        return DTYPES[dtype], "as asked"
    # GPUs before Ampere emulate bf16, which is slower than fp32.
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "supported by the GPU"
    if device.type == "cpu" and _multiplies_bf16() and numbers() >= LARGE:
        return torch.bfloat16, "supported by the processor; float32 is exact, and takes about twice as long"
    return torch.float32, "exact"


def _multiplies_bf16() -> bool:
    """Whether the processor has instructions for bfloat16. Where it has none, float32 is faster."""
    known = torch.cpu.get_capabilities()
    return any(known.get(name, False) for name in BF16_INSTRUCTIONS)


def processes(device: torch.device) -> PartialState:
    """The processes of a distributed run, and which of them this is; without a launcher there is only one.

    Args:
        device: The device of this process.
    """
    # Without `cpu=True`, accelerate on a machine without GPUs ignores the launcher, and every process
    # takes itself for the only one.
    return PartialState(cpu=device.type == "cpu")


def check_device(device: torch.device, state: PartialState) -> None:
    """Check that a model is on the GPU of this process, the only one on which the library trains.

    Args:
        device: The device of the model.
        state: From `processes`.

    Raises:
        ConfigError: The model is on another GPU.
    """
    if (device.index or 0) != (state.device.index or 0):
        raise ConfigError(
            f"a process trains on GPU {state.device.index or 0} only",
            seen=str(device),
            do=f"set CUDA_VISIBLE_DEVICES={device.index} and choose --device cuda",
        )
