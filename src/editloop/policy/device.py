"""Where a model runs and in which precision: every automatic choice comes with its reason."""

from __future__ import annotations

import os

import torch
from accelerate import PartialState

from editloop.errors import ConfigError

__all__ = ["check_device", "choose_device", "choose_dtype", "processes"]

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str = "auto") -> tuple[torch.device, str]:
    """The device to use and why.

    Args:
        device: `auto`, or a name that torch knows (`cpu`, `cuda`, `cuda:1`, `mps`). Under a launcher
            `cuda` is the process's own GPU.

    Raises:
        ConfigError: The device is unknown or absent here.
    """
    if device != "auto":
        try:
            chosen = torch.device(device)
            torch.empty(0, device=chosen)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError(
                "this device cannot be used", seen=device, do="choose --device cpu or auto"
            ) from error
        return _mine(chosen), "as asked"
    if torch.cuda.is_available():
        mine = _mine(torch.device("cuda"))
        return mine, f"found {torch.cuda.get_device_name(mine)}"
    if torch.backends.mps.is_available():
        return torch.device("mps"), "found Apple Metal"
    return torch.device("cpu"), f"no accelerator found, {torch.get_num_threads()} threads"


def _mine(device: torch.device) -> torch.device:
    """A GPU without a number is the one of this process: a launcher gives each its own."""
    if device == torch.device("cuda"):
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    return device


def choose_dtype(device: torch.device, dtype: str = "auto") -> tuple[torch.dtype, str]:
    """The precision to load a model in and why.

    Raises:
        ConfigError: The name is unknown.
    """
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ConfigError("unknown dtype", seen=dtype, do=f"choose --dtype auto, {', '.join(DTYPES)}")
        return DTYPES[dtype], "as asked"
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return torch.bfloat16, "the GPU has it"
    return torch.float32, f"exact, and no slower on {device.type}"


def processes(device: torch.device) -> PartialState:
    """The processes of a distributed run, of which this is one; without a launcher it is the only one.

    That they compute on the CPU has to be said: otherwise `accelerate` takes each for a run of its own.
    """
    return PartialState(cpu=device.type == "cpu")


def check_device(device: torch.device, state: PartialState) -> None:
    """Training runs on the GPU that the process was given; a model that lies elsewhere is refused.

    Raises:
        ConfigError: The model lies on another GPU.
    """
    if (device.index or 0) != (state.device.index or 0):
        raise ConfigError(
            f"a process trains on GPU {state.device.index or 0} only",
            seen=str(device),
            do=f"set CUDA_VISIBLE_DEVICES={device.index} and choose --device cuda",
        )
