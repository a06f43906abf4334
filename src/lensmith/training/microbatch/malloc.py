"""What becomes of the blocks of a CPU's memory that are freed: glibc is told what will be asked for next.

On other systems, and for a GPU, nothing of this is needed or done.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import suppress

from lensmith.training.microbatch.usage import room_bytes, status_bytes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -3, -4, -8
_NEVER = -1
_MAPPINGS = 2**16
"""Blocks that may be mappings of their own at a time: glibc's own default."""
_SMALL_BYTES, _LARGE_BYTES = 2**17, 2**25
"""From where on they are, first and at most, by glibc's own rule."""

_short = False
"""Memory ran out in this process, whose blocks are handled in one way for all."""


def return_freed_memory(*, ran_out: bool = False) -> None:
    """A large block is a mapping of its own, which goes back to the system when it is freed.

    The C library would keep freed blocks, in pieces that no larger block fits into: after some failed tries 0.9 GB of
    2.2 GB were lost to that. So this is for steps that may fail, although the system clears each page that it hands
    out, which takes up to half of a step's time. Threads share one heap from now on, while each new one would otherwise
    reserve 64 MB of addresses for its own.

    Args:
        ran_out: it did, so blocks stay apart until they are `as_usual`.
    """
    global _short
    _short = _short or ran_out
    _tell((_M_MMAP_THRESHOLD, _SMALL_BYTES), (_M_MMAP_MAX, _MAPPINGS), (_M_TRIM_THRESHOLD, _SMALL_BYTES))
    _tell((_M_ARENA_MAX, 1))
    _trim()


def retain_freed_memory() -> None:
    """What a step frees is kept for the next one; not where memory ran out, or a step takes half of what is left."""
    step_bytes = status_bytes("VmHWM") - status_bytes("VmRSS")
    if not _short and 2 * step_bytes < room_bytes():
        _tell((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, _NEVER))


def restore_defaults() -> None:
    """As the C library comes to do by itself, and all that it has kept goes back."""
    global _short
    _short = False
    _tell((_M_MMAP_THRESHOLD, _LARGE_BYTES), (_M_MMAP_MAX, _MAPPINGS), (_M_TRIM_THRESHOLD, 2 * _LARGE_BYTES))
    _trim()


def _tell(*options: tuple[int, int]) -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has no mallopt
            for option, value in options:
                ctypes.CDLL(None).mallopt(option, value)


def _trim() -> None:
    if sys.platform == "linux":
        with suppress(AttributeError):  # musl has none
            ctypes.CDLL(None).malloc_trim(0)
