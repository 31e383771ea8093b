"""Which devices there are to run on."""

from __future__ import annotations

import os

import torch

from ..errors import ConfigError

_CPU_PROCESSES = 4


def usable_device(device: str | torch.device | None) -> torch.device:
    """The device named, or the best there is: CUDA, then Apple's MPS, then the CPU.

    Raises:
        ConfigError: there is no such device here.
    """
    if device is None:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        found = torch.device(device)
        if found.type == "meta":
            raise RuntimeError("it holds no numbers")
        torch.empty(0, device=found)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise ConfigError(
            f"got device {device!r}, which cannot be used here ({reason}); expected cpu, cuda or mps"
        ) from None
    return found


def devices_for_processes() -> list[str]:
    """One device for each process of a pool: every CUDA device, or the CPU up to four times, once for each core."""
    if torch.cuda.is_available():
        return [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    return ["cpu"] * min(_CPU_PROCESSES, os.cpu_count() or 1)
