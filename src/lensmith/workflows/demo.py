"""`lensmith demo`: all steps from data to service on real images, with offline and online predictions compared.

fetch ─► check ─► train and export ─► evaluate ─► serve ─► classify the test images over HTTP ─► compare
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from lensmith.config import DemoSettings, EvaluateSettings, FetchSettings
from lensmith.core.output_names import require_folder_name
from lensmith.core.packages import SERVING, TRAINING, require_packages
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.threads import map_in_order
from lensmith.data.fetch import fetch
from lensmith.data.verify import check
from lensmith.errors import ServiceError
from lensmith.evaluation.run import evaluate
from lensmith.serving.child_process import start_service
from lensmith.workflows.train_and_export import train

RECIPE: dict[str, Any] = {"preset": "fast", "model": "tf_efficientnet_lite0", "image_size": 128, "resize": "squash"}
"""A minute of training on two cores: the frozen backbone computes features once, and L-BFGS fits the head."""

CONNECTIONS = 4
"""Connections that keep two cores busy, with no more requests than the service admits."""


@dataclass(frozen=True)
class DemoResult(Result):
    """Result of `lensmith demo`.

    Attributes:
        accuracy_offline: accuracy of `lensmith evaluate` on the test images, 0..1.
        accuracy_http: accuracy of the service on the same images, 0..1.
        top1_agreement: share of the images for which both predict the same class, 0..1.
        seconds_total: duration of all steps in seconds.
        requests_per_second: throughput of the service with a client on the same machine.
        latency_ms: median latency of a request in milliseconds.
        steps: name of each step → its duration in seconds.
        url: URL of the service, if it is still running.
        pid: process ID of the service, if it is still running.
    """

    accuracy_offline: float
    accuracy_http: float
    top1_agreement: float
    seconds_total: float
    requests_per_second: float
    latency_ms: float
    run: str
    bundle: str
    report: str
    steps: dict[str, float]
    source: str
    url: str | None = None
    pid: int | None = None


def demo(settings: DemoSettings) -> DemoResult:
    """Run all steps of the demo; the images stay for a second demo, the run gets a folder of its own.

    Raises:
        LensmithError: as the verbs that it calls.
    """
    require_folder_name(settings.out, "data, run and report, with --out")
    require_packages(*TRAINING, *SERVING)
    steps: dict[str, float] = {}
    started = time.perf_counter()
    data = settings.out / "fashion-mnist"
    run = settings.out / f"run-{datetime.now():%Y%m%d-%H%M%S}"
    with _timed(steps, "fetch"):
        sizes = {"max_train": settings.train_images, "max_test": settings.test_images}
        fetched = fetch(FetchSettings(name="fashion-mnist", folder=data, seed=settings.seed, **sizes))
    with _timed(steps, "check"):
        check(data)
    with _timed(steps, "train and export"):
        trained = train({"data": data, "out": run, "seed": settings.seed, **RECIPE})
    with _timed(steps, "evaluate"):
        offline = evaluate(EvaluateSettings(bundle=trained.bundle, data=data, part="test", out=run / "evaluation"))
    with _timed(steps, "serve"):
        service = start_service(trained.bundle, settings.port)
    try:
        with _timed(steps, "classify over HTTP"):
            predicted_online, latencies_s = _classify_over_http(service.url, offline.files)
    except BaseException:
        service.stop()
        raise
    if not settings.keep_serving:
        service.stop()
    predicted = offline.probabilities.argmax(axis=1)
    return DemoResult(
        accuracy_offline=offline.metrics.accuracy,
        accuracy_http=float((predicted_online == offline.truth).mean()),
        top1_agreement=float((predicted_online == predicted).mean()),
        seconds_total=time.perf_counter() - started,
        requests_per_second=len(predicted_online) / steps["classify over HTTP"],
        latency_ms=1e3 * float(np.median(latencies_s)),
        run=str(trained.run),
        bundle=str(trained.bundle),
        report=str(offline.report),
        steps=steps,
        source=fetched.source,
        url=service.url if settings.keep_serving else None,
        pid=service.process.pid if settings.keep_serving else None,
    )


def _classify_over_http(url: str, files: tuple[Path, ...]) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Post every file; returns the predicted classes, int64 (N,), and the latencies in seconds."""
    pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False, timeout=30.0)

    def post(file: Path) -> tuple[int, float]:
        body = file.read_bytes()
        started = time.perf_counter()
        answer = pool.request("POST", f"{url}/predict", body=body, headers={"Content-Type": "image/png"})
        if answer.status != 200:
            raise ServiceError(
                f"The service was expected to classify {file}.",
                f"It answered {answer.status}: {answer.data[:200].decode(errors='replace')}",
                "Run `lensmith doctor`, and the demo again with --debug.",
            )
        return int(answer.json()["class_id"]), time.perf_counter() - started

    posted = map_in_order(post, files, CONNECTIONS, 4 * CONNECTIONS, "demo")
    pairs = list(track(posted, "Classifying over HTTP", len(files)))
    return np.array([answer for answer, _ in pairs]), [seconds for _, seconds in pairs]


@contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    steps[name] = round(time.perf_counter() - started, 2)
