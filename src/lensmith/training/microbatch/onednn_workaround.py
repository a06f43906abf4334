"""Workaround for oneDNN: work moves to a fresh thread once memory ran out for a kernel's code in this one.

After such a failure oneDNN (up to 3.12) builds no kernel in that thread again, however much memory is free by then: it
keeps the error in a variable of the thread. Other threads are not affected.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")

_SIGN = "could not create a primitive"

_this_thread = threading.local()


def in_healthy_thread(action: Callable[[], T]) -> T:
    """Run `action` in this thread, or in a fresh one if oneDNN no longer works in this one.

    The fresh thread has this one's context variables, gradient and inference mode, and autocast of the CPU. It ends
    with the action, even where this thread is interrupted meanwhile.
    """
    if getattr(_this_thread, "broken", False):
        with ThreadPoolExecutor(1, "lensmith") as executor:
            return executor.submit(contextvars.copy_context().run, _in_current_modes(action)).result()
    try:
        return action()
    except RuntimeError as error:
        _this_thread.broken = _SIGN in str(error)
        raise


def _in_current_modes(action: Callable[[], T]) -> Callable[[], T]:
    gradients, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    dtype, enabled = torch.get_autocast_dtype("cpu"), torch.is_autocast_enabled("cpu")

    def act() -> T:
        autocast = torch.autocast("cpu", dtype, enabled)
        with torch.inference_mode(inference), torch.set_grad_enabled(gradients), autocast:
            return action()

    return act
