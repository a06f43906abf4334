"""Out-of-memory errors: recognising them, freeing memory, the out-of-memory retry, and a cap on what training takes.

On a CPU the cap is a limit of this process (RLIMIT_DATA), so that too large a batch raises an exception that can be
handled, where the system would otherwise kill the process.
"""

import errno
import gc
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

import torch

from lensmith.core.text import first_line
from lensmith.errors import OutOfMemoryError, RunError
from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.usage import free_bytes, resource_limits, status_bytes

T = TypeVar("T")

TRIES = 3

_SIGNS = (
    "out of memory",  # CUDA, HIP, MPS
    "can't allocate memory",  # torch's CPU allocator
    "not enough memory",  # the same on Windows
    "Cannot allocate memory",  # the C library, in words
    "std::bad_alloc",
    "could not create a primitive",  # oneDNN, which could not get scratch memory
    "could not create a memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Unable to find a valid cuDNN algorithm",  # none fits into what is left
)

_SHARED_BYTES = 2**30
"""Bytes that others take on a GPU for it to count as shared; a driver's context alone is about half of it."""


class TooLargeError(RunError):
    """Not even the smallest chunk fits into memory."""

    exit_code = OutOfMemoryError.exit_code


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, by the error's type, or by its text, as libraries raise plain RuntimeErrors."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def as_too_large(error: Exception) -> TooLargeError | None:
    """An error of a training as the one to report, without the traceback, which pins tensors; None: another kind."""
    if isinstance(error, TooLargeError):
        return error.with_traceback(None)
    if not is_out_of_memory(error):
        return None
    return TooLargeError(
        "Memory for the network and what trains it was expected.",
        f"There is not enough ({first_line(error)}).",
        "Use smaller images, a smaller model, or a machine with more memory.",
    )


def release(device: torch.device) -> None:
    """Return all unused memory to the device or the system, and on a CPU keep returning it from now on.

    Call this outside of `except`, where the traceback pins tensors.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    else:
        malloc.return_freed_memory(ran_out=True)


def retry_out_of_memory(action: Callable[[], T], device: torch.device, what: str) -> T:
    """Run `action`, and again up to TRIES times with unused memory released where memory ran out.

    Args:
        action: function without arguments that changes nothing unless it succeeds.
        device: the device whose memory can run out.
        what: noun phrase for the error message, such as "one batch of images".

    Raises:
        TooLargeError: memory ran out each time.
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


class MemoryCap:
    """A context in which allocating more than a share of the memory raises an error.

    Args:
        device: cpu or cuda.
        fraction: share of a GPU's whole memory, or of the machine's (or container's) free memory, 0..1. By default 0.9
            of a CPU's; 0.95 of a GPU's, or 0.8 where others use it too.
        processes: number of processes that share the CPU's memory.
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
        elif (resource := resource_limits()) is not None:
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
            resource = resource_limits()
            resource.setrlimit(resource.RLIMIT_DATA, self._before)


def lift_cap() -> None:
    """Remove a CPU's cap in a child process, as it is meant for the process that trains."""
    if (resource := resource_limits()) is not None:
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
