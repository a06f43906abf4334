"""A way out of a thread that oneDNN has broken.

Once memory was too short for a kernel's code, oneDNN (up to 3.12) builds no kernel in that thread again, however much
memory there is by then: it keeps the error in a variable of the thread. Other threads are as good as new.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_SIGN = "could not create a primitive"

_here = threading.local()


def in_healthy_thread(action: Callable[[], T]) -> T:
    """`action()`: in this thread, or in a fresh one if oneDNN broke this one.

    The fresh thread has this one's context variables, gradient and inference mode, and autocast of the CPU. It ends
    with the action, also where this thread is interrupted meanwhile.
    """
    if getattr(_here, "broken", False):
        with ThreadPoolExecutor(1, "lensmith") as executor:
            return executor.submit(contextvars.copy_context().run, _in_these_modes(action)).result()
    try:
        return action()
    except RuntimeError as error:
        _here.broken = _SIGN in str(error)
        raise


def _in_these_modes(action: Callable[[], T]) -> Callable[[], T]:
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def act() -> T:
        autocast = torch.autocast("cpu", dtype, enabled)
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients), autocast:
            return action()

    return act
