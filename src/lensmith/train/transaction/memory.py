"""Memory while training: what an out-of-memory looks like, how to get all of it back, a cap, and the peak.

On a CPU the cap is a limit of this process (RLIMIT_DATA), so that too large a batch ends in an exception that can be
answered, and not in the system killing the process.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import psutil
import torch

from lensmith.errors import RunError
from lensmith.machine import memory_limit_bytes

T = TypeVar("T")

TRIES = 3

_SIGNS = (
    "out of memory",  # CUDA, HIP, MPS
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the C library, in words
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, whose scratch memory could not be had
    "could not create a memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm",  # none fits into what is left
)

_SHARED_BYTES = 2**30
"""Taken on a GPU by others, from which it counts as shared; a driver's context alone is about half of it."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_SMALL_BYTES, _MAPPINGS, _NEVER = 2**17, 2**16, -1


class TooLargeError(RunError):
    """Not even the smallest chunk fits into the memory there is."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory ran out: by its type, else (libraries raise RuntimeError) by its text."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def release(device: torch.device) -> None:
    """Give all unused memory back to the device or the system; call outside of `except`, which pins tensors.

    On a CPU blocks are kept apart from now on, see there.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        keep_blocks_apart(True)


def trim() -> None:
    """Give the CPU's memory back that the C library keeps though nothing is in it."""
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has none
            ctypes.CDLL(None).malloc_trim(0)


def keep_blocks_apart(wanted: bool) -> None:
    """Whether each large block of the CPU's memory is a mapping of its own, which goes back when it is freed.

    Else the C library keeps what is freed for the next step. That spares clearing each page that the system hands out,
    which is half of a step's time in the worst case, but leaves memory in pieces that no larger block fits into: after
    some failed tries 0.9 GB of 2.2 GB were lost to that. So blocks are apart for tries that may fail. Threads then
    share one heap, while each new one would otherwise reserve 64 MB of addresses for its own.
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has none
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(_M_MMAP_THRESHOLD, _SMALL_BYTES)
            mallopt(_M_MMAP_MAX, _MAPPINGS if wanted else 0)
            mallopt(_M_TRIM_THRESHOLD, _SMALL_BYTES if wanted else _NEVER)
            mallopt(_M_ARENA_MAX, 1 if wanted else 0)
        if wanted:
            trim()


def retried(action: Callable[[], T], device: torch.device, what: str) -> T:
    """`action()`, tried again with all unused memory given back where it ran out.

    Args:
        action: changes nothing unless it goes through.
        device: where memory can run out.
        what: is being done, for the error.

    Raises:
        TooLargeError: it ran out each time.
    """
    problem = ""
    for _ in range(TRIES):
        try:
            return action()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            problem = first_line(error)
        release(device)  # outside of `except`
    raise TooLargeError(
        f"Memory for {what} was expected.",
        f"There is not enough ({problem}).",
        "Use a smaller model or smaller batches.",
    )


def first_line(error: BaseException) -> str:
    """What an error says, without a library's advice."""
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__


class Cap:
    """Use as a context: inside, asking for more than a share of the memory raises.

    Args:
        device: cpu or cuda.
        fraction: 0..1; of a GPU's whole memory, or of what the machine (or container) has free. None: 0.8 of a GPU
            that others use too, else 0.95; 0.9 of a CPU's.
        processes: that share the CPU's memory.
    """

    def __init__(self, device: torch.device, fraction: float | None = None, processes: int = 1) -> None:
        self.device, self.fraction, self.processes = device, fraction, processes
        self.bytes: int | None = None
        self._before: tuple[int, int] | None = None

    def __enter__(self) -> Self:
        if self.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.device)
            others = total - free - torch.cuda.memory_reserved(self.device)
            fraction = self.fraction or (0.8 if others > _SHARED_BYTES else 0.95)
            torch.cuda.set_per_process_memory_fraction(fraction, self.device)
            self.bytes = int(fraction * total)
        elif sys.platform == "linux":
            import resource

            self._before = soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
            wanted = status_bytes("VmData") + int((self.fraction or 0.9) * free_bytes() / self.processes)
            bounds = [bound for bound in (soft, hard) if bound != resource.RLIM_INFINITY]
            self.bytes = min([wanted, *bounds])
            resource.setrlimit(resource.RLIMIT_DATA, (self.bytes, hard))
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self.device.type == "cuda":
            torch.cuda.set_per_process_memory_fraction(1.0, self.device)
        elif self._before is not None:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, self._before)


def lift_cap() -> None:
    """In a child process: undo the CPU's cap, which is meant for the one that trains."""
    if sys.platform == "linux":
        import resource

        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))


class Peak:
    """The most memory held since the last `take`: reserved on a GPU, resident on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.take()

    def take(self) -> int:
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
