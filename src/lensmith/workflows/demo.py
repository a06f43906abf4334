"""The main job from end to end on real images, and the proof that the service answers as the offline run did.

fetch ─► check ─► train and export ─► evaluate ─► serve ─► the held-out images over HTTP ─► compare
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import urllib3

from lensmith.config import DemoSettings, EvaluateSettings, FetchSettings
from lensmith.core.progress import track
from lensmith.data.fetch import fetch
from lensmith.data.verify import check
from lensmith.errors import ServiceError
from lensmith.evaluation.evaluation import Evaluation
from lensmith.evaluation.run import evaluate
from lensmith.serving.child_process import start_service
from lensmith.workflows.train_and_export import train

RECIPE: dict[str, Any] = {
    "preset": "fast",
    "model": "tf_efficientnet_lite0",
    "image_size": 128,
    "resize": "squash",
}
"""A minute on two cores: the frozen backbone sees each picture once, and the head is solved for."""

CONNECTIONS = 4
"""Enough to keep two cores busy without asking the service for more than it takes in."""


@dataclass(frozen=True)
class Demonstrated:
    """What the demo showed.

    Attributes:
        accuracy_offline: on the held-out images, by `lensmith evaluate`.
        accuracy_http: on the same images, by the service.
        top1_agreement: share of them with the same class by both.
        seconds_total: everything.
        requests_per_second: over HTTP, client on the same machine.
        latency_ms: of a request, median.
        run: run folder.
        bundle: bundle in it.
        report: HTML report of the evaluation.
        steps: name → seconds of each step.
        source: where the images came from.
        url: of the service, if it was left up.
        pid: of the service, if it was left up.
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

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def demo(settings: DemoSettings) -> Demonstrated:
    """Run it; the images are kept for the next time, the run gets a folder of its own.

    Raises:
        LensmithError: as the verbs that it calls.
    """
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
            answers, latencies_s = _over_http(service.url, offline.files)
    except BaseException:
        service.stop()
        raise
    if not settings.keep_serving:
        service.stop()
    predicted = offline.probabilities.argmax(axis=1)
    return Demonstrated(
        accuracy_offline=offline.metrics.accuracy,
        accuracy_http=float((answers == offline.truth).mean()),
        top1_agreement=float((answers == predicted).mean()),
        seconds_total=time.perf_counter() - started,
        requests_per_second=len(answers) / steps["classify over HTTP"],
        latency_ms=1e3 * float(np.median(latencies_s)),
        run=str(trained.run),
        bundle=str(trained.bundle),
        report=str(_report(offline)),
        steps=steps,
        source=fetched.source,
        url=service.url if settings.keep_serving else None,
        pid=service.process.pid if settings.keep_serving else None,
    )


def _over_http(url: str, files: tuple[Path, ...]) -> tuple[np.ndarray[Any, Any], list[float]]:
    """Post every file; returns int64 (N,) classes and the seconds each request took."""
    pool = urllib3.PoolManager(maxsize=CONNECTIONS, retries=False, timeout=30.0)

    def ask(file: Path) -> tuple[int, float]:
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

    with ThreadPoolExecutor(CONNECTIONS) as threads:
        pairs = list(track(threads.map(ask, files), "Classifying over HTTP", len(files)))
    return np.array([answer for answer, _ in pairs]), [seconds for _, seconds in pairs]


def _report(offline: Evaluation) -> Path:
    assert offline.report is not None  # evaluate writes it
    return offline.report


@contextmanager
def _timed(steps: dict[str, float], name: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    steps[name] = round(time.perf_counter() - started, 2)
