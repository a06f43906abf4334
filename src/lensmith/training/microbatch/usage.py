"""How much memory this process holds, held at most, and can still get."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import torch

from lensmith.core.machine import memory_limit_bytes


class PeakMemory:
    """The most memory held since the last `read_and_reset`: reserved on a GPU, resident on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.read_and_reset()

    def read_and_reset(self) -> int:
        """Bytes, and begin anew."""
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_reserved(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return peak
        peak = status_bytes("VmHWM") or psutil.Process().memory_info().rss
        with suppress(OSError):  # no Linux, or not allowed: then it is the peak since the process began
            Path("/proc/self/clear_refs").write_text("5")
        return peak


def free_bytes() -> int:
    """Memory that this process can still get from the machine or its container."""
    free = psutil.virtual_memory().available
    limit = memory_limit_bytes()
    own = psutil.Process().memory_info().rss
    return free if limit is None else max(0, min(free, limit - own))


def status_bytes(name: str) -> int:
    """A size of /proc/self/status (VmData, VmHWM, VmSize); 0 where there is none."""
    try:
        with open(f"/proc/{os.getpid()}/status") as file:  # noqa: PTH123 - read at every step
            line = next((line for line in file if line.startswith(f"{name}:")), "")
    except OSError:
        return 0
    return int(line.split()[1]) * 1024 if line else 0


def room_bytes() -> int:
    """Memory that this process can still get before the machine, its container or a limit of its own is in the way."""
    room = free_bytes()
    if sys.platform == "linux":
        import resource

        for limit, held in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
            soft, _ = resource.getrlimit(limit)
            if soft != resource.RLIM_INFINITY:
                room = min(room, soft - status_bytes(held))
    return max(0, room)
