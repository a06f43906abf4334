"""Metrics for Prometheus at /metrics: requests, latency, load, predictions.

Each service has a registry of its own, so several can live in one process. With several processes, each writes its
values to files in a folder they share (prometheus_client's multiprocess mode); the one that is scraped adds them up.
"""

import os
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.execution.model_manager import ModelManager
from lensmith.serving.execution.thread_pool import Pool
from lensmith.serving.metrics import SHARED_FOLDER
from lensmith.serving.metrics.drift import Drift
from lensmith.serving.metrics.logs import dropped_lines
from lensmith.serving.metrics.observers import GuardedCollector, ObserverFailures
from lensmith.serving.metrics.shared import SharedFiles
from lensmith.serving.metrics.shared_values import flush_values, use_value_class
from lensmith.serving.metrics.usage import UsageCollector, pids_of_service

REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.5, 5.0)
"""Seconds; close together around 50 ms and 200 ms, the usual targets for latency."""
STAGE_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds of one stage of one image."""
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Images."""
CONFIDENCE_BUCKETS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1.0)
MOST_LABELS = 100
"""Number of classes that are counted by name; the others count as `other`, since each class is a series of its own."""

CLIENT_LEFT = 499
"""Counted as the status of a request whose client left before the answer; never sent."""

SHED = {"overloaded": "overloaded", "expired": "expired", "draining": "draining", "no-memory": "memory"}
"""Kind of problem → reason under which it counts as shed."""


class Telemetry:
    """The metrics of one service.

    Args:
        models: the served models, whose names and versions become labels.
        pool: returns the pool, whose load is read at each scrape.
        is_ready: whether requests may be sent here.
        is_quota_store_up: whether the shared store of quotas answers; None: there is none.

    Attributes:
        registry: Prometheus registry, to which others add their own metrics.
        failures: counts failures of observers.
    """

    def __init__(
        self,
        models: ModelManager,
        pool: Callable[[], Pool],
        is_ready: Callable[[], bool],
        is_quota_store_up: Callable[[], bool] | None = None,
    ) -> None:
        use_value_class()
        self._models = models
        self.registry = registry = CollectorRegistry()
        counter, histogram = partial(Counter, registry=registry), partial(Histogram, registry=registry)
        self._requests = counter(
            "lensmith_requests",
            "Requests answered, by route, status and version of the model that answered (else of the active one); "
            "499: the client left first.",
            ["route", "status", "version"],
        )
        what = "Time from a request's headers to the end of its answer, of those that succeeded."
        self._latency = histogram("lensmith_request_seconds", what, ["route"], buckets=REQUEST_BUCKETS)
        stage = partial(histogram, buckets=STAGE_BUCKETS)
        self._queue = stage("lensmith_queue_seconds", "Time that an image waited for a thread.")
        self._decode = stage("lensmith_decode_seconds", "Time from an image's bytes to the model's input.")
        self._inference = stage("lensmith_inference_seconds", "Time from the model's input to the ranked classes.")
        self._batch = histogram("lensmith_batch_images", "Images answered together.", buckets=BATCH_BUCKETS)
        what = "Images by likeliest class and model version."
        self._answers = counter("lensmith_answers", what, ["label", "version"])
        what = "Confidence in the likeliest class."
        self._confidence = histogram("lensmith_confidence", what, ["version"], buckets=CONFIDENCE_BUCKETS)
        self._abstained = counter("lensmith_abstained", "Answers below the model's threshold of confidence.")
        self._drift = Drift(registry)
        self._shed = counter("lensmith_shed", "Requests refused to keep answers in time, by reason.", ["reason"])
        for reason in SHED.values():
            self._shed.labels(reason)  # shown as 0 before the first
        what = "Requests refused because their caller's quota was used up."
        self._over_quota = counter("lensmith_over_quota", what)
        what = "Requests not yet answered, this scrape included."
        self.in_flight = Gauge("lensmith_requests_in_flight", what, registry=registry, multiprocess_mode="livesum")
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        what = "Images that a thread has taken and not answered yet."
        self._add_gauge("lensmith_images_running", what, lambda: pool().running)
        self._add_gauge("lensmith_images_queued", "Images that wait for a thread.", lambda: pool().waiting)
        self._add_gauge("lensmith_threads", "Images that can be classified at once.", lambda: pool().threads)
        self._add_gauge("lensmith_ready", "Whether requests may be sent here: 1 or 0.", is_ready, "livemax")
        if is_quota_store_up is not None:
            what = "Whether the shared store of quotas answers: 1 or 0."
            self._add_gauge("lensmith_quota_store_up", what, is_quota_store_up, "livemin")
        self._info = Gauge(
            "lensmith_model_info",
            "What is served, by the labels: 1, or 0 once it no longer is.",
            ["name", "version", "engine", "precision"],
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._described: set[tuple[str, str, str, str]] = set()
        self.describe_models()
        what = "Lines of the log that could not be written: its disk is full, its folder gone, its reader stalled."
        self._dropped_lines = counter("lensmith_log_lines_dropped", what)
        self._dropped_before = dropped_lines.total
        self.failures = ObserverFailures(registry)
        folder = os.environ.get(SHARED_FOLDER)
        self._files = files = SharedFiles(Path(folder)) if folder else None
        if files is None:
            ProcessCollector(registry=registry)
            usage = UsageCollector(lambda: [os.getpid()])
        else:
            registry = CollectorRegistry()
            registry.register(GuardedCollector("metrics", files.collect, self.failures))
            usage = UsageCollector(lambda: pids_of_service(files.folder))
        registry.register(GuardedCollector("usage", usage.collect, self.failures))
        self._exposed = registry

    def describe_models(self) -> None:
        """Update `lensmith_model_info` after the served models have changed."""
        served = {
            (each.name, each.version, each.classifier.engine.name, each.classifier.engine.precision)
            for each in self._models.all
        }
        for gone in self._described - served:
            self._info.labels(*gone).set(0)  # a series that several processes share cannot be removed
        for each in served:
            self._info.labels(*each).set(1)
        self._described |= served

    def count_request(self, state: Mapping[str, Any], route: str, status: int, seconds: float) -> None:
        """Count one request that has ended.

        Args:
            state: the request's state: the `model` that answered it (without one, the active model is named) and the
                kind of `problem` it ended with.
            route: route template.
            status: HTTP status, or CLIENT_LEFT.
            seconds: time from its headers to the end of its answer.
        """
        model: LoadedModel = state.get("model") or self._models.active
        self._requests.labels(route, status, model.version).inc()
        if status < HTTPStatus.BAD_REQUEST:  # refusals would make a busy service look quick
            self._latency.labels(route).observe(seconds)
        if (kind := state.get("problem")) is None:
            return
        if kind in SHED:
            self._shed.labels(SHED[kind]).inc()
        elif kind == "over-quota":
            self._over_quota.inc()

    def flush(self) -> None:
        """Let other processes see what was counted."""
        if self._files is not None:
            flush_values()

    def count_image(self, model: LoadedModel, found: TimedPrediction) -> None:
        """Count one classified image."""
        self._queue.observe(found.queue_s)
        self._decode.observe(found.decode_s)
        self._inference.observe(found.inference_s)
        self._batch.observe(found.batch)
        top = found.prediction.top[0]
        label = top.label if top.class_id < MOST_LABELS else "other"
        self._answers.labels(label, model.version).inc()
        self._confidence.labels(model.version).observe(top.confidence)
        with self.failures.guard("drift"):
            self._drift.note(model, found)
        if found.prediction.abstained:
            self._abstained.inc()

    def exposition(self) -> bytes:
        """All metrics in Prometheus's text format."""
        self.update_gauges()
        return generate_latest(self._exposed)

    def update_gauges(self) -> None:
        """Update this process's gauges; with several processes each has to, as any of them may be scraped."""
        for gauge, read in self._gauges:
            with self.failures.guard("metrics"):
                gauge.set(read())
        dropped = dropped_lines.total
        self._dropped_lines.inc(dropped - self._dropped_before)
        self._dropped_before = dropped
        with self.failures.guard("drift"):
            self._drift.show(self._models.all)
        if self._files is not None:
            self._files.store()

    def _add_gauge(self, name: str, what: str, read: Callable[[], float], mode: str = "livesum") -> None:
        """Add a gauge that is read at each scrape; `mode` is how the values of several processes become one."""
        gauge = Gauge(name, what, registry=self.registry, multiprocess_mode=mode)  # type: ignore[arg-type]
        gauge.set(read())  # at once: with `livemin`, a process that just starts would show 0 for all
        self._gauges.append((gauge, read))
