"""Memory usage of this process: current, peak, and how much more it can get."""

import os
import sys
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import torch

from lensmith.core.machine import memory_limit_bytes


def read_and_reset_peak(device: torch.device) -> int:
    """Peak memory in bytes since the last call: memory reserved on a GPU, resident memory on a CPU."""
    if device.type == "cuda":
        peak = torch.cuda.max_memory_reserved(device)
        torch.cuda.reset_peak_memory_stats(device)
        return peak
    peak = status_bytes("VmHWM") or psutil.Process().memory_info().rss
    with suppress(OSError):  # not Linux, or not allowed: then it is the peak since the process began
        Path("/proc/self/clear_refs").write_text("5")
    return peak


def free_bytes() -> int:
    """Bytes that this process can still get from the machine or its container."""
    free = psutil.virtual_memory().available
    limit = memory_limit_bytes()
    own = psutil.Process().memory_info().rss
    return free if limit is None else max(0, min(free, limit - own))


def status_bytes(name: str) -> int:
    """A size from /proc/self/status in bytes (VmData, VmHWM, VmSize); 0 where the system has no such file."""
    try:
        with open(f"/proc/{os.getpid()}/status") as file:  # noqa: PTH123 - read at every step
            line = next((line for line in file if line.startswith(f"{name}:")), "")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024 if line else 0


def resource_limits() -> Any:
    """Python's module `resource` where a process can limit its own memory, which is on Linux; None elsewhere."""
    return import_module("resource") if sys.platform == "linux" and find_spec("resource") else None


def room_bytes() -> int:
    """Bytes that this process can still get before the machine, its container or its own resource limits refuse."""
    room = free_bytes()
    if (resource := resource_limits()) is not None:
        for limit, used in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                room = min(room, soft - status_bytes(used))
    return max(0, room)
