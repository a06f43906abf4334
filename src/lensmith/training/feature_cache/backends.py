"""A frozen prefix on whatever computes it fastest here: torch, ONNX Runtime or OpenVINO, by trial.

A runner is called from several threads at once, each of which takes a batch through on one core.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from lensmith.core.machine import allowed_cores, instruction_sets
from lensmith.core.memoized import remembered
from lensmith.core.version import installed_versions
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.engine import open_graph
from lensmith.training import precision
from lensmith.training.microbatch import memory
from lensmith.training.models.onnx_export import write_graph

Backend = Callable[[Tensor], np.ndarray[Any, Any]]
"""float32 (N, 3, S, S) → float32 (N, …)."""

BATCH = 16
"""Images that go through at once; many more spill out of a CPU's caches."""

TORCH_IS_FINE_S = 6.0
"""Where torch needs no longer, building a graph for another engine costs more than it gains."""

LARGEST_ERROR = 0.1
"""Of features against torch in fp32, relative to their size. bfloat16 brings 0.05 to deep networks of ReLU6, and heads
trained on such features judged fp32 ones as well as others did (docs/log.md); what is broken is further off."""

_TRIAL_S = 0.4


class FrozenTrunk:
    """A frozen prefix with the engines that can run it; use as a context, which holds their graphs.

    Args:
        module: float32 (N, 3, S, S) → (N, …), in evaluation mode, on `device`.
        image_size: S.
        device: of the module.
    """

    def __init__(self, module: nn.Module, image_size: int, device: torch.device) -> None:
        self.module, self.image_size, self.device = module, image_size, device
        self._graph: Path | None = None

    def __enter__(self) -> Self:
        self._folder = tempfile.TemporaryDirectory(prefix="lensmith-")
        self._threads = torch.get_num_threads()
        return self

    def __exit__(self, *_: object) -> None:
        torch.set_num_threads(self._threads)  # runners take one each
        self._folder.cleanup()

    def open(self, name: str) -> Backend:
        """The prefix as `ENGINE PRECISION` runs it."""
        engine, chosen = name.split()
        if engine == "torch":
            return self._torch(chosen)
        if self._graph is None:
            self._graph = write_graph(self.module, self.image_size, Path(self._folder.name) / "prefix.onnx")
        return open_graph(str(self._graph), engine, chosen, threads=1).logits

    def fastest_backend(self, said: dict[str, Any], images: int) -> str:
        """The candidate that computes the right features fastest; remembered for this machine.

        Args:
            said: what the speed depends on besides image size and device: the names of model and cut.
            images: how many there are to do, since for few no graph is worth its making.
        """
        names = available_backends(self.device)
        if len(names) == 1:
            return names[0]
        versions = installed_versions(("torch", "timm", "openvino", "onnxruntime"))
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        depends_on = {**said, "image_size": self.image_size, "device": where, "versions": versions, "among": names}
        ours = [name for name in names if name.startswith("torch")]
        speeds = remembered("prefix-torch", depends_on, lambda: self.speeds(ours))
        others = [name for name in names if name not in ours]
        if others and images > TORCH_IS_FINE_S * max(speeds.values()):
            speeds = speeds | remembered("prefix", depends_on, lambda: self.speeds(others))
        return max(speeds, key=lambda name: speeds[name])

    def speeds(self, names: list[str]) -> dict[str, float]:
        """Images a second of candidates on noise; 0 where features are wrong or there are none."""
        noise = np.random.default_rng(0).standard_normal((BATCH, 3, self.image_size, self.image_size), dtype=np.float32)
        right = self.open("torch fp32")(noise)
        found = {}
        for name in names:
            try:
                run = self.open(name)
                error = np.linalg.norm(run(noise) - right) / max(1e-9, float(np.linalg.norm(right)))
                found[name] = _speed(run, noise, self.device) if error < LARGEST_ERROR else 0.0
            except Exception as error:  # each engine has exceptions of its own
                if name.startswith("torch") or memory.is_out_of_memory(error):
                    raise
                found[name] = 0.0
        return found

    def _torch(self, chosen: str) -> Backend:
        def run(batch: Tensor) -> np.ndarray[Any, Any]:
            if self.device.type == "cpu":
                torch.set_num_threads(1)  # of the calling thread
            images = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
            with torch.inference_mode(), precision.autocast(self.device, chosen):
                found: np.ndarray[Any, Any] = self.module(images).float().cpu().numpy()
            return found

        return run


def available_backends(device: torch.device) -> list[str]:
    """`ENGINE PRECISION`, torch first, of what this machine has and computes in hardware."""
    found = [f"torch {name}" for name in precision.candidates(device)]
    if device.type == "cuda":
        return found
    if not (find_spec("onnx") and find_spec("onnxscript")):
        return found
    if find_spec("openvino"):
        found += ["openvino fp32"]
        found += ["openvino bf16"] if {"BF16", "AMX-BF16"} & set(instruction_sets()) else []
    else:
        found += ["onnxruntime fp32"]
    return found


def parallel_batches(device: torch.device) -> int:
    """Batches that are under way at once: on a CPU one a core; with a GPU as many as keep it fed with images."""
    return allowed_cores() if device.type == "cpu" else min(16, allowed_cores())


def _speed(run: Backend, batch: Tensor, device: torch.device) -> float:
    """Images a second over all threads."""
    count = parallel_batches(device)
    end = 0.0

    def work(_: int) -> int:
        done = 0
        while time.perf_counter() < end:
            run(batch)
            done += len(batch)
        return done

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(lambda _: run(batch), range(count)))  # warms up
        started = time.perf_counter()
        end = started + _TRIAL_S
        done = sum(pool.map(work, range(count)))
    return done / (time.perf_counter() - started)
