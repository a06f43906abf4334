"""Backends of the frozen trunk: torch, ONNX Runtime or OpenVINO, whichever a trial finds fastest on this machine.

A backend is called from several threads at once, each of which runs a batch on one core.
"""

import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from lensmith.core.machine import allowed_cores, instruction_sets
from lensmith.core.memoized import memoized_on_disk
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
"""Seconds of work in torch, below which building a graph for another engine costs more than it gains."""

LARGEST_ERROR = {"fp32": 1e-3}
"""Largest relative difference from torch in fp32, by precision: summing in another order makes less."""

ROUNDED_ERROR = 0.1
"""The same for other precisions. bfloat16 brings 0.05 to deep networks of ReLU6, and heads trained on such features
mostly classified fp32 ones as well as others did (docs/log.md); a broken backend is further off. Whether the features
are exact enough for a particular head is checked on that head (`exactness`)."""

_TRIAL_S = 0.4


class FrozenTrunk(ExitStack):
    """A context that holds a frozen trunk and the graphs of the backends that can run it.

    Args:
        module: float32 (N, 3, S, S) → (N, …), in evaluation mode, on `device`.
        image_size: S, in pixels.
        device: device of the module.
    """

    def __init__(self, module: nn.Module, image_size: int, device: torch.device) -> None:
        super().__init__()
        self.module, self.image_size, self.device = module, image_size, device
        self._graph: Path | None = None
        self.callback(torch.set_num_threads, torch.get_num_threads())  # backends set it to one

    def __enter__(self) -> Self:
        self.enter_context(precision.full_fp32())
        return self

    def open(self, name: str) -> Backend:
        """The backend named `ENGINE PRECISION`."""
        engine, chosen = name.split()
        if engine == "torch":
            return self._torch(chosen)
        if self._graph is None:
            folder = self.enter_context(tempfile.TemporaryDirectory(prefix="lensmith-"))
            self._graph = write_graph(self.module, self.image_size, Path(folder) / "trunk.onnx")
        return open_graph(str(self._graph), engine, chosen, threads=1).logits

    def fastest_backend(self, key: dict[str, Any], images: int) -> str:
        """The backend that computes correct features fastest, memoized on disk for this machine.

        Args:
            key: names of model and split point; the speed depends on them besides image size and device.
            images: number of images to compute; for few of them no graph is worth building.
        """
        names = available_backends(self.device)
        if len(names) == 1:
            return names[0]
        versions = installed_versions(("torch", "timm", "openvino", "onnxruntime"))
        where = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "cpu"
        depends_on = {**key, "image_size": self.image_size, "device": where, "versions": versions, "among": names}
        ours = [name for name in names if name.startswith("torch")]
        speeds = memoized_on_disk("prefix-torch", depends_on, lambda: self.speeds(ours))
        others = [name for name in names if name not in ours]
        if others and images > TORCH_IS_FINE_S * max(speeds.values()):
            speeds = speeds | memoized_on_disk("prefix", depends_on, lambda: self.speeds(others))
        # An engine that is wrong in fp32 is not trusted in another precision, whose features fp32 has to check.
        trusted = [name for name in speeds if speeds.get(in_full_precision(name), 0.0)]
        return max(trusted, key=lambda name: speeds[name])

    def speeds(self, names: list[str]) -> dict[str, float]:
        """Measured speed of each backend in images a second, on noise; 0 where it fails or its features are wrong."""
        noise = np.random.default_rng(0).standard_normal((BATCH, 3, self.image_size, self.image_size), dtype=np.float32)
        expected = self.open("torch fp32")(noise)
        found = {}
        for name in names:
            try:
                run = self.open(name)
                error = np.linalg.norm(run(noise) - expected) / max(1e-9, float(np.linalg.norm(expected)))
                largest = LARGEST_ERROR.get(name.split()[1], ROUNDED_ERROR)
                found[name] = _speed(run, noise, self.device) if error < largest else 0.0
            except Exception as error:  # each engine has exceptions of its own
                if name.startswith("torch") or memory.is_out_of_memory(error):
                    raise
                found[name] = 0.0
        return found

    def _torch(self, chosen: str) -> Backend:
        def run(batch: Tensor) -> np.ndarray[Any, Any]:
            """float32 (N, 3, S, S) → float32 (N, …)."""
            if self.device.type == "cpu":
                torch.set_num_threads(1)  # of the calling thread
            images = torch.from_numpy(batch).to(self.device, memory_format=torch.channels_last)
            with torch.inference_mode(), precision.autocast(self.device, chosen):
                found: np.ndarray[Any, Any] = self.module(images).float().cpu().numpy()
            return found

        return run


def in_full_precision(name: str) -> str:
    """The backend of the same engine in fp32."""
    return f"{name.split()[0]} fp32"


def available_backends(device: torch.device) -> list[str]:
    """Names `ENGINE PRECISION`, torch first, of what is installed and computed in hardware here."""
    found = [f"torch {name}" for name in precision.candidates(device)]
    if device.type == "cuda" or not (find_spec("onnx") and find_spec("onnxscript")):
        return found
    if find_spec("openvino"):
        found += ["openvino fp32"]
        found += ["openvino bf16"] if {"BF16", "AMX-BF16"} & set(instruction_sets()) else []
    else:
        found += ["onnxruntime fp32"]
    return found


def parallel_batches(device: torch.device) -> int:
    """Number of batches under way at once: one for each core of a CPU; as many as keep a GPU fed with images."""
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
