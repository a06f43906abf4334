"""Training where the whole batch does not fit: lensmith, the usual loop that halves the batch, and fixed chunks.

    python bench/train_full.py [--quick] [--times 3] [--batch 64] [--image-size 160] [--device cuda] [--json]

Each way trains ResNet-18 on the same pictures in a process of its own, under the same cap on memory, of which the whole
batch would need `--times` as much. They take turns, one batch each, so that noise hits all alike; ratios of speed are
medians over these rounds.

- halving: when memory runs out the loader's batch is halved, down to 4, and the step is tried again. What the
  optimizer steps on is then a smaller batch.
- lensmith: `MicroBatcher`, as it comes.
- fixed N: chunks of N images picked by hand, gradients added up, one optimizer step a batch.

Before the rounds each way takes two batches, lensmith `--settle`, to find what fits; what the tries cost is told apart
(search). Peak is the most that is held in batches in which memory did not run out, on a GPU as reserved by torch, on a
CPU as resident; it and the cap are counted from what a process holds that has taken one step with two images. So it can
be a little more than the cap on a CPU, where that process has pages that it does not hold. There a way that meets an
out-of-memory without lensmith's care may also end in a segmentation fault, or find that nothing fits any more.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional

from lensmith.core.machine import allowed_cores
from lensmith.core.text import first_line
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.chunks import split_evenly
from lensmith.training.microbatch.microbatch import MicroBatcher
from lensmith.training.microbatch.usage import read_and_reset_peak, status_bytes

FLOOR = 4
WARM_UP = 2


class Way(Protocol):
    """A way to train on one batch after the other.

    Attributes:
        chunk: images that go through the network at once.
        step: images that the optimizer steps on.
        retries: times that memory ran out.
    """

    chunk: int
    step: int
    retries: int

    def take(self) -> None:
        """Learn from all images of the batch once."""


class Training:
    """What all ways share: a network, Adam, and a batch of noise."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device = torch.device(given.device)
        torch.backends.cudnn.benchmark = True
        self.model: nn.Module = timm.create_model("resnet18").to(self.device, memory_format=torch.channels_last)
        if given.batch_norm == "frozen":
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        pictures = torch.rand(given.batch, 3, given.image_size, given.image_size, device=self.device)
        self.images = pictures.contiguous(memory_format=torch.channels_last)
        self.labels = torch.randint(1000, (given.batch,), device=self.device)
        self.add(slice(0, WARM_UP), WARM_UP)
        self.step()

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        """Sum over a chunk."""
        return functional.cross_entropy(self.model(images), labels, reduction="sum")

    def add(self, part: slice, total: int) -> None:
        """Add the gradients of a part's share of a mean over `total` images."""
        (self.loss(self.images[part], self.labels[part]) / total).backward()

    def step(self) -> None:
        """Move the weights."""
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class Halving:
    """The loop of the usual advice, in a form that works: `except` where memory runs out, and no image lost."""

    def __init__(self, training: Training) -> None:
        self.training, self.retries = training, 0
        self.chunk = self.step = len(training.images)

    def take(self) -> None:
        """All images, in as many steps as that takes."""
        start = 0
        while start < len(self.training.images):
            end = min(start + self.step, len(self.training.images))
            if self._fits(slice(start, end)):
                start = end
                continue
            self.training.optimizer.zero_grad(set_to_none=True)
            if self.training.device.type == "cuda":
                torch.cuda.empty_cache()
            if self.step <= FLOOR:
                raise MemoryError(f"not even {FLOOR} images fit")
            self.retries += 1
            self.chunk = self.step = max(FLOOR, self.step // 2)

    def _fits(self, part: slice) -> bool:
        try:
            self.training.add(part, part.stop - part.start)
            self.training.step()
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            return False
        return True


class Ours:
    """lensmith's transaction."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.micro = MicroBatcher(training.model)
        self.chunk = self.step = len(training.images)

    @property
    def retries(self) -> int:
        """Tries that were undone."""
        return self.micro.retries

    def take(self) -> None:
        """One transaction."""
        outcome = self.micro.backward((self.training.images, self.training.labels), self.training.loss)
        self.training.step()
        self.chunk = math.ceil(outcome.images / outcome.chunks)


class Fixed:
    """Chunks of one size."""

    retries = 0

    def __init__(self, training: Training, chunk: int) -> None:
        self.training, self.chunk, self.step = training, chunk, len(training.images)

    def take(self) -> None:
        """One step."""
        start = 0
        for size in split_evenly(self.step, self.chunk):
            self.training.add(slice(start, start + size), self.step)
            start += size
        self.training.step()


def way_of(name: str, training: Training) -> Way:
    if name == "halving":
        return Halving(training)
    return Ours(training) if name == "lensmith" else Fixed(training, int(name.removeprefix("fixed ")))


def held(device: torch.device) -> int:
    return torch.cuda.memory_reserved(device) if device.type == "cuda" else status_bytes("VmRSS")


def set_cap(device: torch.device, room: int) -> None:
    """Let this process take so many bytes more than it has."""
    if device.type == "cuda":
        whole = torch.cuda.mem_get_info(device)[1]
        torch.cuda.set_per_process_memory_fraction((held(device) + room) / whole, device)
    else:
        import resource

        bound = status_bytes("VmData") + room
        resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))


def child(given: argparse.Namespace) -> None:
    """One batch for each line of standard input, and a line of JSON about it."""
    training = Training(given)
    device, idle = training.device, held(training.device)
    if given.room:
        set_cap(device, given.room)
    way = way_of(given.child, training)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        before, started = way.retries, time.perf_counter()
        read_and_reset_peak(device)
        try:
            way.take()
        except Exception as error:
            if not (memory.is_out_of_memory(error) or isinstance(error, memory.TooLargeError)):
                raise
            print(json.dumps({"failed": first_line(error)}), flush=True)
            return
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        told = {
            "seconds": time.perf_counter() - started,
            "retries": way.retries - before,
            "chunk": way.chunk,
            "step": way.step,
            "peak": read_and_reset_peak(device) - idle,
        }
        print(json.dumps(told), flush=True)


class Process:
    """A way in a process of its own.

    Attributes:
        batches: what it told of each batch.
        failed: why it ended, None while it goes on.
    """

    def __init__(self, name: str, given: argparse.Namespace, room: int = 0) -> None:
        self.name, self.failed = name, None
        self.batches: list[dict[str, Any]] = []
        settings = ("batch", "image_size", "batch_norm", "device")
        flags = [part for name in settings for part in (f"--{name.replace('_', '-')}", str(getattr(given, name)))]
        # Threads that spin while they wait would slow down the others, whose turn it is.
        self._process = subprocess.Popen(
            [sys.executable, __file__, *flags, "--child", name, "--room", str(room)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_WAIT_POLICY": "passive"},
        )  # fmt: skip

    def take(self) -> None:
        """Let it learn from one batch, unless it has failed."""
        if self.failed:
            return
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        told = self.hear()
        if "failed" in told:
            self.failed = told["failed"]
        else:
            self.batches.append(told)

    def hear(self) -> dict[str, Any]:
        """Wait for its next line."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        return json.loads(line) if line else {"failed": f"ended with code {self._process.wait()}"}

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def started(names: list[str], given: argparse.Namespace, room: int = 0) -> Iterator[list[Process]]:
    """One process each, ready to take batches."""
    processes = [Process(name, given, room) for name in names]
    try:
        for process in processes:
            process.failed = process.hear().get("failed")
        yield processes
    finally:
        for process in processes:
            process.close()


def need_bytes(given: argparse.Namespace) -> int:
    """What the whole batch takes, without a cap."""
    with started([f"fixed {given.batch}"], given) as (process,):
        process.take()
        if process.failed:
            raise SystemExit(f"The whole batch must fit while there is no cap: {process.failed}.")
        return int(process.batches[0]["peak"])


def race(given: argparse.Namespace, room: int) -> list[Process]:
    """All ways under one cap, in turns."""
    sizes = [math.ceil(given.batch / number) for number in given.fixed]
    with started(["halving", "lensmith", *(f"fixed {size}" for size in sizes)], given, room) as processes:
        for process in processes:
            for _ in range(given.settle if process.name == "lensmith" else 2):
                process.take()
        for number in range(given.rounds):
            for process in processes if number % 2 else reversed(processes):
                process.take()
    return processes


def summary(process: Process, given: argparse.Namespace, room: int) -> dict[str, Any]:
    """What came of a way: speed and peak over the rounds with the final chunk in which memory did not run out."""
    if process.failed:
        return {"finished": False, "failed": process.failed}
    last = process.batches[-1]
    clean = [told for told in process.batches if not told["retries"] and told["chunk"] == last["chunk"]]
    typical_s = statistics.median(told["seconds"] for told in clean[-given.rounds :])
    return {
        "finished": True,
        "images_per_second": given.batch / typical_s,
        "chunk": last["chunk"],
        "optimizer_batch": last["step"],
        "retries": sum(told["retries"] for told in process.batches),
        "search_s": sum(max(0.0, told["seconds"] - typical_s) for told in process.batches if told["retries"]),
        "peak_share_of_cap": max(told["peak"] for told in clean) / room,
    }


def ratio(ours: Process, other: Process, rounds: int) -> float | None:
    """Speed of `ours` to the other's, median over the rounds in which neither ran out of memory."""
    if ours.failed or other.failed:
        return None
    pairs = zip(ours.batches[-rounds:], other.batches[-rounds:], strict=True)
    ratios = [theirs["seconds"] / own["seconds"] for own, theirs in pairs if not own["retries"] + theirs["retries"]]
    return statistics.median(ratios) if ratios else None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=160)
    parser.add_argument("--batch-norm", choices=("frozen", "train"), default="frozen")
    parser.add_argument("--times", type=float, default=3.0, help="how often the cap is what the whole batch needs")
    parser.add_argument("--fixed", type=int, nargs="+", default=[1, 3, 4, 6, 8, 16], help="chunks a batch")
    parser.add_argument("--settle", type=int, default=10, help="batches for lensmith to find what fits")
    parser.add_argument("--rounds", type=int, default=5, help="batches of each way to compare")
    parser.add_argument("--quick", action="store_true", help="smaller pictures, fewer sizes and rounds")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--room", type=int, default=0, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.quick:
        given.image_size, given.fixed, given.settle, given.rounds = 128, [1, 4, 8, 16], 10, 4
    if given.child:
        child(given)
        return

    room = int(need_bytes(given) / given.times)
    processes = race(given, room)
    ways = {process.name: summary(process, given, room) for process in processes}
    halving, ours, *fixed = processes
    fits = [process for process in fixed if not process.failed]
    best = max(fits, key=lambda process: ways[process.name]["images_per_second"], default=None)
    result = {
        "bench": "train_full",
        "finished": ways["lensmith"]["finished"],
        "images_per_second": ways["lensmith"].get("images_per_second"),
        "ratio_to_best_fixed": ratio(ours, best, given.rounds) if best else None,
        "best_fixed": best.name if best else None,
        "ratio_to_halving": ratio(ours, halving, given.rounds),
        "peak_share_of_cap": ways["lensmith"].get("peak_share_of_cap"),
        "ways": ways,
        "cap_bytes": room,
        "times": given.times,
        "batch": given.batch,
        "image_size": given.image_size,
        "batch_norm": given.batch_norm,
        "device": torch.cuda.get_device_name(given.device) if given.device.startswith("cuda") else "cpu",
        "cores": allowed_cores(),
        "load_average": os.getloadavg()[0],
    }
    if given.json:
        print(json.dumps(result))
        return
    print(f"{given.batch} images of {given.image_size} px, cap {room / 1e6:,.0f} MB, on {result['device']}\n")
    print("way           images/s  chunk  optimizer's batch  retries  search   peak of cap")
    for name, way in ways.items():
        if not way["finished"]:
            print(f"{name:12}  did not finish: {way['failed']}")
            continue
        print(
            f"{name:12}  {way['images_per_second']:8.1f}  {way['chunk']:5}  {way['optimizer_batch']:17}  "
            f"{way['retries']:7}  {way['search_s']:4.1f} s  {way['peak_share_of_cap']:12.0%}"
        )
    for name in ("ratio_to_best_fixed", "best_fixed", "ratio_to_halving", "load_average"):
        print(f"{name:20} {result[name]}")


if __name__ == "__main__":
    main()
