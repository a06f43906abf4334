"""What Prometheus reads at /metrics.

Each service has a registry of its own, so several can live in one process. With several processes, each writes its
values to files in a folder they share (prometheus_client's multiprocess mode), and whichever is asked adds them up.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from http import HTTPStatus
from multiprocessing import parent_process
from pathlib import Path
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector

from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.drift import Drift
from lensmith.serving.metrics.shared import locked_files
from lensmith.serving.metrics.usage import gpus, memory_bytes, memory_limit_bytes

REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.5, 5.0)
"""Seconds; close together around the 50 ms and 200 ms that latency is judged by."""
STAGE_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds of one stage of one image."""
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MOST_LABELS = 100
"""Classes that are counted by name; what others are answered counts as `other`. Each class is a series of its own."""

CLIENT_LEFT = 499
"""Counted as the status of a request whose client left before the answer; never sent."""

SHED = {"overloaded": "overloaded", "expired": "expired", "draining": "draining", "no-memory": "memory"}
"""Kind of problem → reason under which it counts as shed."""


class PoolLoad(Protocol):
    """What is asked at each scrape."""

    running: int
    waiting: int
    threads: int


class Telemetry:
    """The service's measurements.

    Args:
        models: their names and versions become labels.
        load: the pool, once there is one.
        ready: whether requests may be sent here.

    Attributes:
        registry: of Prometheus's client, for what others count.
    """

    def __init__(self, models: ModelManager, load: Callable[[], PoolLoad | None], ready: Callable[[], bool]) -> None:
        self._models = models
        self._load = load
        self._ready = ready
        self.registry = registry = CollectorRegistry()
        self._requests = Counter(
            "lensmith_requests",
            "Requests answered, by route, status and version of the model that answered (else of the active one); "
            "499: the client left first.",
            ["route", "status", "version"],
            registry=registry,
        )
        self._latency = Histogram(
            "lensmith_request_seconds",
            "Time from a request's headers to the end of its answer, of those that succeeded.",
            ["route"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._queue = self._stage("queue", "Time that an image waited for a thread.")
        self._decode = self._stage("decode", "Time from an image's bytes to the model's input.")
        self._inference = self._stage("inference", "Time from the model's input to the ranked classes.")
        self._batch = Histogram(
            "lensmith_batch_images",
            "Images answered together.",
            buckets=(1, 2, 4, 8, 16, 32, 64, 128),
            registry=registry,
        )
        self._answers = Counter(
            "lensmith_answers", "Images by likeliest class and model version.", ["label", "version"], registry=registry
        )
        self._confidence = Histogram(
            "lensmith_confidence",
            "Confidence in the likeliest class.",
            ["version"],
            buckets=CONFIDENCE_BUCKETS,
            registry=registry,
        )
        self._abstained = Counter(
            "lensmith_abstained", "Answers below the model's threshold of confidence.", registry=registry
        )
        self._drift = Drift(registry)
        self._shed = Counter(
            "lensmith_shed", "Requests refused to keep answers in time, by reason.", ["reason"], registry=registry
        )
        for reason in SHED.values():
            self._shed.labels(reason)  # shown as 0 before the first
        self._over_quota = Counter(
            "lensmith_over_quota", "Requests refused because their caller's quota was used up.", registry=registry
        )
        self.in_flight = self._gauge("lensmith_requests_in_flight", "Requests not yet answered, this scrape included.")
        self._running = self._gauge("lensmith_images_running", "Images that a thread works on.")
        self._waiting = self._gauge("lensmith_images_queued", "Images that wait for a thread.")
        self._threads = self._gauge("lensmith_threads", "Images that can be worked on at once.")
        self._ready_gauge = self._gauge("lensmith_ready", "Whether requests may be sent here: 1 or 0.", "livemax")
        self._info = Gauge(
            "lensmith_model_info",
            "What is served, by the labels: 1, or 0 once it no longer is.",
            ["name", "version", "engine", "precision"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._store_up: Gauge | None = None
        self._described: set[tuple[str, str, str, str]] = set()
        self.describe_models()
        self._shared = os.environ.get(SHARED_FOLDER)
        if not self._shared:
            ProcessCollector(registry=registry)
            registry.register(Usage(lambda: [os.getpid()]))
        else:
            registry = CollectorRegistry()
            MultiProcessCollector(registry, self._shared)
            registry.register(Usage(lambda: _pids(Path(str(self._shared)))))
        self._exposed = registry

    def watch_quota_store(self, answers: Callable[[], bool]) -> None:
        """Have among the measurements whether the shared store of quotas answers."""
        self._store_up = self._gauge(
            "lensmith_quota_store_up", "Whether the shared store of quotas answers: 1 or 0.", "livemin"
        )
        self._store_answers = answers
        self._store_up.set(int(answers()))  # else a process that starts would say for all that it does not

    def describe_models(self) -> None:
        """Say anew what is served."""
        served = {
            (each.name, each.version, each.classifier.engine.name, each.classifier.engine.precision)
            for each in self._models.all
        }
        for gone in self._described - served:
            self._info.labels(*gone).set(0)  # what several processes share cannot be taken back
        for each in served:
            self._info.labels(*each).set(1)
        self._described |= served

    def answered(self, route: str, status: int, seconds: float, version: str | None = None) -> None:
        """Count one request: route template, HTTP status, time it took, and version of the model that answered it.

        What no model answered counts under the active one.
        """
        self._requests.labels(route, status, version or self._models.active.version).inc()
        if status < HTTPStatus.BAD_REQUEST:  # refusals would make a busy service look quick
            self._latency.labels(route).observe(seconds)

    def classified(self, model: LoadedModel, found: TimedPrediction) -> None:
        """Count one image."""
        self._queue.observe(found.queue_s)
        self._decode.observe(found.decode_s)
        self._inference.observe(found.inference_s)
        self._batch.observe(found.batch)
        top = found.prediction.top[0]
        label = top.label if top.class_id < MOST_LABELS else "other"
        self._answers.labels(label, model.version).inc()
        self._confidence.labels(model.version).observe(top.confidence)
        self._drift.note(model, found)
        if found.prediction.abstained:
            self._abstained.inc()

    def refused(self, kind: str) -> None:
        """Count a problem by its kind, where it is one of those that keep answers in time."""
        if kind in SHED:
            self._shed.labels(SHED[kind]).inc()
        elif kind == "over-quota":
            self._over_quota.inc()

    def exposition(self) -> bytes:
        """Everything, in Prometheus's text format."""
        self.note_load()
        with locked_files(Path(self._shared)) if self._shared else nullcontext():
            return generate_latest(self._exposed)

    def note_load(self) -> None:
        """Write down this process's load; with several processes each has to, as any may be asked."""
        self._ready_gauge.set(int(self._ready()))
        self._drift.show(self._models.all)
        if self._store_up is not None:
            self._store_up.set(int(self._store_answers()))
        if load := self._load():
            self._running.set(load.running)
            self._waiting.set(load.waiting)
            self._threads.set(load.threads)

    def _stage(self, name: str, what: str) -> Histogram:
        return Histogram(f"lensmith_{name}_seconds", what, buckets=STAGE_BUCKETS, registry=self.registry)

    def _gauge(self, name: str, what: str, together: str = "livesum") -> Gauge:
        return Gauge(name, what, registry=self.registry, multiprocess_mode=together)  # type: ignore[arg-type]


class Usage:
    """Memory of the service's processes against their limit, and what its GPUs do, asked at each scrape.

    Args:
        pids: the processes.
    """

    def __init__(self, pids: Callable[[], Iterable[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client's collectors."""
        yield GaugeMetricFamily("lensmith_memory_bytes", "Resident memory.", value=memory_bytes(self._pids()))
        yield GaugeMetricFamily("lensmith_memory_limit_bytes", "Memory it may have.", value=memory_limit_bytes())
        found = gpus()
        if not found:
            return
        for name, what, values in (
            ("utilisation_ratio", "Share of time that the GPU was busy.", [each.busy for each in found]),
            ("memory_bytes", "GPU memory in use.", [each.used_bytes for each in found]),
            ("memory_limit_bytes", "GPU memory there is.", [each.total_bytes for each in found]),
        ):
            family = GaugeMetricFamily(f"lensmith_gpu_{name}", what, labels=["gpu"])
            for number, value in enumerate(values):
                if value is not None:
                    family.add_metric([str(number)], value)
            if family.samples:
                yield family


def _pids(folder: Path) -> set[int]:
    """The processes that wrote gauges to the shared folder and live, and the one that watches them."""
    named = {int(file.stem.rpartition("_")[2]) for file in folder.glob("gauge_live*.db")}
    watcher = parent_process()
    watching = {watcher.pid} if watcher and watcher.pid else set()
    return {pid for pid in named | watching if Path(f"/proc/{pid}").exists()}
