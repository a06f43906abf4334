"""What runs after oneDNN broke a thread runs in another one, in the same modes; before that, where it was called."""

import contextvars
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from lensmith.training.microbatch import onednn_workaround
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread

BROKEN = """
import torch.nn.functional as F
from lensmith.training.microbatch.usage import status_bytes
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread

weight = torch.rand(64, 3, 7, 7).contiguous(memory_format=torch.channels_last)
conv = lambda n: F.conv2d(torch.rand(n, 3, 16, 16).contiguous(memory_format=torch.channels_last), weight, stride=2)
conv(2)
hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
# Blocks that the heap keeps once they are freed: tensors get those, while code needs a mapping of its own.
blocks = [(bytearray(100_000), bytearray(100)) for _ in range(200)]
small = [last for _, last in blocks]
del blocks
problem = ""
for images in range(3, 100):  # each with kernels of its own
    resource.setrlimit(resource.RLIMIT_DATA, (status_bytes("VmData"), hard))
    try:
        in_healthy_thread(lambda: conv(images))
    except (RuntimeError, MemoryError) as error:
        problem = str(error)
        if "could not create a primitive" in problem:
            break
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (hard, hard))
assert "could not create a primitive" in problem, problem
here = conv(2)  # whose kernel there is
for images in (116, 108):
    assert in_healthy_thread(lambda: conv(images)).shape == (images, 64, 5, 5)
"""


@pytest.fixture
def breaks() -> Iterator[Callable[[], None]]:
    """Breaks this thread as far as `in_healthy_thread` can tell."""

    def fail() -> None:
        raise RuntimeError("could not create a primitive")

    def act() -> None:
        with pytest.raises(RuntimeError, match="primitive"):
            in_healthy_thread(fail)

    yield act
    onednn_workaround._this_thread.broken = False


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_DATA is Linux's")
def test_kernels_are_built_after_memory_was_too_short_for_one(run_script: Callable[[str], Any]) -> None:
    run_script(BROKEN)


def test_nothing_moves_while_nothing_is_broken() -> None:
    assert in_healthy_thread(threading.get_ident) == threading.get_ident()
    with pytest.raises(RuntimeError, match="shapes"):
        in_healthy_thread(lambda: (_ for _ in ()).throw(RuntimeError("shapes do not match")))
    assert in_healthy_thread(threading.get_ident) == threading.get_ident()


def test_a_broken_thread_is_left_for_fresh_ones_that_may_break_too(breaks: Callable[[], None]) -> None:
    breaks()
    breaks()
    assert in_healthy_thread(threading.get_ident) != threading.get_ident()
    # A thread that is none of the broken one's doing is not left.
    inner = in_healthy_thread(lambda: (threading.get_ident(), in_healthy_thread(threading.get_ident)))
    assert inner[0] == inner[1]
    assert not [each for each in threading.enumerate() if each.name.startswith("lensmith")]


def test_the_fresh_thread_is_in_the_same_modes(breaks: Callable[[], None]) -> None:
    breaks()
    variable = contextvars.ContextVar("variable", default=0)
    variable.set(1)

    def modes() -> tuple[object, ...]:
        autocast = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")
        return torch.is_grad_enabled(), torch.is_inference_mode_enabled(), *autocast, variable.get()

    assert in_healthy_thread(modes) == modes()
    with torch.no_grad(), torch.autocast("cpu", torch.float16):
        assert in_healthy_thread(modes) == modes()
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        assert in_healthy_thread(modes) == modes()
    with torch.inference_mode(), torch.enable_grad():
        assert in_healthy_thread(modes) == modes()
