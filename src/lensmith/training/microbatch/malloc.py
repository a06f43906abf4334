"""Settings of the C library's heap (glibc's mallopt): freed memory is returned to the system, or retained for reuse.

On other systems, and for a GPU, these functions do nothing.
"""

import ctypes
import sys
from contextlib import suppress

from lensmith.training.microbatch.usage import room_bytes, status_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = -1
_MAPPINGS = 2**16
"""glibc's default for the number of blocks that are mappings of their own at a time."""
_SMALL_BYTES, _LARGE_BYTES = 2**17, 2**25
"""glibc's smallest and largest size from which on a block becomes a mapping of its own."""

_ran_out = False
"""Whether memory ran out in this process."""


def return_freed_memory(*, ran_out: bool = False) -> None:
    """Make each large block a mapping of its own, which goes back to the system when it is freed.

    The heap would retain freed blocks as fragments that no larger block fits into: after a few failed steps 0.9 GB of
    2.2 GB were lost to that. So this is for steps that may fail, although the system clears each page that it hands
    out, which takes up to half of a step's time. Threads share one heap from now on, while each new one would otherwise
    reserve 64 MB of addresses for its own.

    Args:
        ran_out: whether memory ran out; then nothing is retained until `restore_defaults`.
    """
    global _ran_out
    _ran_out = _ran_out or ran_out
    _set((_M_MMAP_THRESHOLD, _SMALL_BYTES), (_M_MMAP_MAX, _MAPPINGS), (_M_TRIM_THRESHOLD, _SMALL_BYTES))
    _set((_M_ARENA_MAX, 1))
    _call("malloc_trim", 0)


def retain_freed_memory() -> None:
    """Retain what a step frees for the next one, unless memory ran out or a step takes half of what is left."""
    step_bytes = status_bytes("VmHWM") - status_bytes("VmRSS")
    if not _ran_out and 2 * step_bytes < room_bytes():
        _set((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


def restore_defaults() -> None:
    """Go back to the settings that glibc arrives at by itself, and return all retained memory."""
    global _ran_out
    _ran_out = False
    _set((_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_MMAP_MAX, _MAPPINGS), (_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES))
    _call("malloc_trim", 0)


def _set(*options: tuple[int, int]) -> None:
    for option, value in options:
        _call("mallopt", option, value)


def _call(function: str, *arguments: int) -> None:
    """Call a function of glibc; musl has neither of the two."""
    if sys.platform == "linux":
        with suppress(AttributeError):
            getattr(ctypes.CDLL(None), function)(*arguments)
