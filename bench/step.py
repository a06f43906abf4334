"""Overhead of the micro-batch step while memory suffices: ResNet-18 against a plain PyTorch step.

    python bench/step.py [--batch 16] [--steps 20] [--image-size 224] [--batch-norm train] [--device cpu] [--json]

Plain: forward, backward, fused AdamW, gradients to None. Ours: the same with `MicroBatcher.backward` in the middle.
Both train the same network in one process, in turn and with the order swapped each time, so that noise hits both alike;
the ratio is the median over the pairs, with its 95 % interval. On a CPU the same ratio is also given in processor time,
which other load hardly affects. Then each part of the step is timed by itself, without the network, as a share of the
fastest plain step: the finer measure, where the noise of whole steps is larger than the overhead.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Sequence

# Threads that spin while they wait would take the processor from other programs, and count as work.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lensmith.core.machine import allowed_cores
from lensmith.training.microbatch.attempt import StepVerdict
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.microbatch.rng_state import random_state

WARM_UP = 2
REPEATS = 300


def timed(step: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Wall and processor seconds."""
    started, cpu = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, time.process_time() - cpu


def least_ms(action: Callable[[], object], device: torch.device) -> float:
    return 1e3 * min(timed(action, device)[0] for _ in range(REPEATS))


def interval(values: Sequence[float]) -> list[float]:
    """A 95 % interval of the median, from the order of the values (binomial, by its normal limit)."""
    ordered, n = sorted(values), len(values)
    reach = 0.98 * math.sqrt(n)
    return [ordered[max(0, math.floor(n / 2 - reach))], ordered[min(n - 1, math.ceil(n / 2 + reach) - 1)]]


def parts_ms(micro: MicroBatcher, batch: tuple[Tensor, Tensor], device: torch.device) -> dict[str, float]:
    """Milliseconds of the step's parts, each the least of many times, which other load affects least."""
    model, batchnorm = micro.model, micro.batchnorm
    weight = next(model.parameters())

    def buffers() -> object:
        return [
            buffer.clone()
            for m in model.modules()
            if m.training and m not in batchnorm.layers
            for buffer in m._buffers.values()
        ]

    def verdict() -> StepVerdict:
        micro.world.all_gather([1, 1])
        return StepVerdict(micro.world.all_reduce_max(StepVerdict.FINE))

    pixels = [torch.zeros(len(batch[0]), norm.num_features, 1, 1, device=device) for norm in batchnorm.layers]

    @torch.no_grad()
    def norms() -> None:
        for norm, pixel in zip(batchnorm.layers, pixels, strict=True):
            norm(pixel)

    def collect() -> None:
        with batchnorm.collecting():
            pass

    def ghost() -> None:
        with batchnorm.collecting(), batchnorm.chunk([len(batch[0])]):
            norms()
        batchnorm.commit(batchnorm.sums(), batchnorm.counts())

    def nothing() -> None:
        """A step around a loss without a network."""
        micro.backward(batch, lambda *_: weight.flatten()[0])
        weight.grad = None

    def plain_nothing() -> None:
        weight.flatten()[0].backward()
        weight.grad = None

    found = {
        "random state": least_ms(lambda: random_state(device), device),
        "buffers": least_ms(buffers, device),
        "verdict": least_ms(verdict, device),
        "ghost batch norm": least_ms(ghost, device) - least_ms(norms, device) if batchnorm.layers else 0.0,
    }
    whole = least_ms(nothing, device) - least_ms(plain_nothing, device) - least_ms(collect, device)
    found["rest"] = whole - found["random state"] - found["buffers"] - found["verdict"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20, help="pairs of steps")
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch-norm", choices=("frozen", "train"), default="train")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()

    torch.manual_seed(0)
    device = torch.device(given.device)
    model: nn.Module = timm.create_model("resnet18").to(device=device, memory_format=torch.channels_last)
    if given.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    # One virtual batch: with more, BatchNorm computes something else, which is no overhead of the step.
    micro = MicroBatcher(model, tile=max(2, given.batch))
    images = torch.rand(given.batch, 3, given.image_size, given.image_size, device=device)
    batch = images.to(memory_format=torch.channels_last), torch.randint(1000, (given.batch,), device=device)

    def plain() -> None:
        functional.cross_entropy(model(batch[0]), batch[1]).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def ours() -> None:
        micro.backward(batch, lambda x, y: functional.cross_entropy(model(x), y, reduction="sum"))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    for _ in range(WARM_UP):
        plain()
        ours()
    taken: dict[Callable[[], None], list[tuple[float, float]]] = {plain: [], ours: []}
    for pair in range(given.steps):
        for step in (plain, ours) if pair % 2 else (ours, plain):
            taken[step].append(timed(step, device))
    wall, processor = (
        [after[kind] / before[kind] for before, after in zip(taken[plain], taken[ours], strict=True)] for kind in (0, 1)
    )
    plain_ms = 1e3 * min(seconds for seconds, _ in taken[plain])
    parts = parts_ms(micro, batch, device)
    result = {
        "bench": "step",
        "ratio": statistics.median(wall),
        "ratio_interval": interval(wall),
        "cpu_ratio": statistics.median(processor) if device.type == "cpu" else None,
        "cpu_ratio_interval": interval(processor) if device.type == "cpu" else None,
        "plain_ms": plain_ms,
        "parts_ms": parts,
        "parts_share": sum(parts.values()) / plain_ms,
        "batch": given.batch,
        "image_size": given.image_size,
        "batch_norm": given.batch_norm,
        "pairs": given.steps,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": allowed_cores(),
        "load_average": os.getloadavg()[0],
    }
    if given.json:
        print(json.dumps(result))
        return
    for name, value in result.items():
        if name != "parts_ms":
            print(f"{name:20} {value if not isinstance(value, float) else f'{value:.4f}'}")
    for name, ms in parts.items():
        print(f"  {name:18} {ms:8.3f} ms  {ms / plain_ms:8.3%}")


if __name__ == "__main__":
    main()
