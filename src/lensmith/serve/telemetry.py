"""What Prometheus reads at /metrics. Each app has a registry of its own, so several can live in one process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from lensmith.classifier import Classifier
from lensmith.serve.workers import Workers

REQUEST_BUCKETS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.08, 0.1, 0.15, 0.2, 0.25, 0.3, 0.5, 1.0, 2.5, 5.0)
"""Seconds; close together around the 50 ms and 200 ms that latency is judged by."""
STAGE_BUCKETS = (0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Seconds of one stage of one image."""

CLIENT_LEFT = 499
"""Counted as the status of a request whose client left before the answer; never sent."""


class Telemetry:
    """The service's measurements.

    Args:
        classifier: its model's name and version become labels.
        workers: asked for their load at each scrape.
    """

    def __init__(self, classifier: Classifier, workers: Workers) -> None:
        manifest, engine = classifier.bundle.manifest, classifier.engine
        self._version = manifest.version
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self._requests = Counter(
            "lensmith_requests",
            "Requests answered, by route, status and model version; 499: the client left first.",
            ["route", "status", "version"],
            registry=registry,
        )
        self._latency = Histogram(
            "lensmith_request_seconds",
            "Time from a request's headers to the end of its answer.",
            ["route"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self.decode = Histogram(
            "lensmith_decode_seconds",
            "Time from an image's bytes to the model's input.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.inference = Histogram(
            "lensmith_inference_seconds",
            "Time from the model's input to the ranked classes.",
            buckets=STAGE_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge(
            "lensmith_requests_in_flight", "Requests not yet answered, this scrape included.", registry=registry
        )
        self.abstained = Counter(
            "lensmith_abstained", "Answers below the model's threshold of confidence.", registry=registry
        )
        self.shed = Counter("lensmith_shed", "Requests refused because the queue was full.", registry=registry)
        Gauge("lensmith_images_running", "Images that a thread works on.", registry=registry).set_function(
            lambda: workers.running
        )
        Gauge("lensmith_images_queued", "Images that wait for a thread.", registry=registry).set_function(
            lambda: workers.waiting
        )
        Gauge("lensmith_threads", "Images that can be worked on at once.", registry=registry).set(workers.threads)
        Gauge(
            "lensmith_model_info",
            "Always 1; the labels say what is served.",
            ["name", "version", "engine", "precision"],
            registry=registry,
        ).labels(manifest.name, manifest.version, engine.name, engine.precision).set(1)

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one request: route template, HTTP status, time it took."""
        self._requests.labels(route, status, self._version).inc()
        self._latency.labels(route).observe(seconds)

    def exposition(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self._registry)
