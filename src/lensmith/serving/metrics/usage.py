"""What the service uses of its machine: memory, and GPUs where there are any."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import psutil

from lensmith.core import machine


@dataclass(frozen=True)
class Gpu:
    """One GPU now; None stands for what it does not tell, as with MIG how busy it is.

    Attributes:
        busy: share of time in which it worked, 0..1.
        used_bytes: memory in use, by anybody.
        total_bytes: memory there is.
    """

    busy: float | None = None
    used_bytes: int | None = None
    total_bytes: int | None = None


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of processes together, in bytes."""
    total = 0
    for pid in pids:
        with suppress(psutil.Error):  # it ended meanwhile
            total += psutil.Process(pid).memory_info().rss
    return total


def memory_limit_bytes() -> int:
    """What they may have: the control group's limit, else the machine's memory."""
    return machine.memory_limit_bytes() or psutil.virtual_memory().total


def gpus() -> list[Gpu]:
    """NVIDIA's GPUs, each in its place; empty where there are none, or where nvidia-ml-py is not installed."""
    nvml = _nvml()
    if nvml is None:
        return []
    try:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def _gpu(nvml: Any, index: int) -> Gpu:
    busy = used = total = None
    with suppress(nvml.NVMLError):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        with suppress(nvml.NVMLError):
            busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        used, total = int(memory.used), int(memory.total)
    return Gpu(busy, used, total)


@cache
def _nvml() -> Any:
    """NVIDIA's management library, started; None where it does not."""
    if not find_spec("pynvml"):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
