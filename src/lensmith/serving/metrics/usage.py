"""Resource usage of the service for Prometheus: memory, and GPUs where there are any."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from multiprocessing import parent_process
from pathlib import Path
from typing import Any

import psutil
from prometheus_client.core import GaugeMetricFamily, Metric

from lensmith.core import machine

GPU_METRICS = {
    "utilisation_ratio": "Share of time that the GPU was busy.",
    "memory_bytes": "GPU memory in use.",
    "memory_limit_bytes": "GPU memory there is.",
}


class UsageCollector:
    """Collects the memory of the service's processes, its limit, and the use of GPUs at each scrape."""

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's collectors."""
        yield GaugeMetricFamily("lensmith_memory_bytes", "Resident memory.", value=memory_bytes(self._pids()))
        limit = machine.memory_limit_bytes() or psutil.virtual_memory().total
        yield GaugeMetricFamily("lensmith_memory_limit_bytes", "Memory it may have.", value=limit)
        found = gpus()
        for name, what in GPU_METRICS.items():
            family = GaugeMetricFamily(f"lensmith_gpu_{name}", what, labels=["gpu"])
            for number, values in enumerate(found):
                if name in values:
                    family.add_metric([str(number)], values[name])
            if family.samples:
                yield family


def pids_of_service(folder: Path) -> set[int]:
    """IDs of the live processes that wrote gauges to the shared folder, and of their supervisor."""
    named = {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}
    parent = parent_process()
    supervisor = {parent.pid} if parent and parent.pid else set()
    return {pid for pid in named | supervisor if psutil.pid_exists(pid)}


def memory_bytes(pids: Iterable[int]) -> int:
    """Resident memory of processes together, in bytes."""
    total = 0
    for pid in pids:
        with suppress(psutil.Error):  # it ended meanwhile
            total += psutil.Process(pid).memory_info().rss
    return total


def gpus() -> list[dict[str, float]]:
    """Values of `GPU_METRICS` of each NVIDIA GPU, by index; empty without GPUs, or without nvidia-ml-py."""
    nvml = _nvml()
    if nvml is None:
        return []
    try:
        return [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []


def _gpu(nvml: Any, index: int) -> dict[str, float]:
    """The values that a GPU reports: with MIG, not how busy it is."""
    found = {}
    with suppress(nvml.NVMLError):
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
        with suppress(nvml.NVMLError):
            found["utilisation_ratio"] = nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        found |= {"memory_bytes": int(memory.used), "memory_limit_bytes": int(memory.total)}
    return found


@cache
def _nvml() -> Any:
    """NVIDIA's management library (NVML), initialised; None where it is missing or fails."""
    if not find_spec("pynvml"):
        return None
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return pynvml
