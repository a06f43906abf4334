"""Mixed precision: number formats and memory layouts, and how fast a step is in each on this machine.

bfloat16 doubles the speed of ResNets on CPUs with AVX512-BF16, and gains little with few images and channels.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from lensmith.core.machine import instruction_sets

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"channels_last": torch.channels_last, "channels_first": torch.contiguous_format}
_TRIALS = 3


def candidates(device: torch.device) -> tuple[str, ...]:
    """Precisions that the device computes in hardware, fp32 first."""
    if device.type == "cuda":
        return ("fp32", "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16")
    return ("fp32", "bf16") if {"BF16", "AMX-BF16"} & set(instruction_sets()) else ("fp32",)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The mixed-precision context of a forward pass at `precision` (fp32, bf16 or fp16)."""
    enabled = precision in DTYPES
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=enabled)


@contextmanager
def full_fp32() -> Iterator[None]:
    """A context in which fp32 on a GPU is fp32: by default cuDNN rounds the inputs of convolutions to TF32's 10 bits.

    What is measured in it is what a bundle answers, which never rounds fp32. The flags are the process's own.
    """
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32
    cudnn.allow_tf32 = matmul.allow_tf32 = False
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32 = before


def fastest(step: Callable[[str], None], device: torch.device) -> dict[str, float]:
    """Time trial steps at each precision of the device, interleaved.

    Args:
        step: runs forward and backward once at a given precision, and leaves no gradients.
        device: the device that trains.

    Returns:
        Precision → the seconds of its fastest step.
    """
    names = candidates(device)
    best = dict.fromkeys(names, float("inf"))
    for trial in range(_TRIALS + 1):
        for name in names:
            started = time.perf_counter()
            step(name)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if trial:  # the first pays for warming up
                best[name] = min(best[name], time.perf_counter() - started)
    return best
