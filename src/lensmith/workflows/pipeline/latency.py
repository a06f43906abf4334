"""Latency of the new model and of the champion, measured alternately in a helper process.

They alternate, since a machine that is busy for a second would otherwise make one of them look slow; the process is
fresh, so that no thread of a training run competes with them.
"""

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lensmith.core.helper_process import HelperError, answer_request, run_helper
from lensmith.core.text import first_line
from lensmith.errors import GateError
from lensmith.imaging.decoding import read
from lensmith.inference.classifier import Classifier, load

MIN_ROUNDS, MAX_ROUNDS = 9, 60
IMAGES_PER_ROUND = 8
WARM_UP_ROUNDS = 2
MEASURE_S = 6.0
"""No further round begins after so many seconds, once there are MIN_ROUNDS."""
TIMEOUT_S = 600.0


def measure_latency(bundles: Sequence[Path], images: Sequence[Path]) -> list[list[float]]:
    """Median latency of each round in milliseconds, for each bundle: one image on one core, from bytes to answer.

    Args:
        bundles: folders of one bundle, or of two that are compared.
        images: image files; the first IMAGES_PER_ROUND are used.

    Raises:
        GateError: a bundle that does not run here.
    """
    request = {
        "bundles": [str(bundle) for bundle in bundles],
        "images": [str(image) for image in images[:IMAGES_PER_ROUND]],
    }
    try:
        times: list[list[float]] = run_helper("lensmith.workflows.pipeline.latency", request, TIMEOUT_S)
    except HelperError as error:
        raise GateError(
            f"The latency of {' and '.join(map(str, bundles))} was to be measured.",
            f"A bundle did not answer: {first_line(error)}.",
            "See what is wrong with it: lensmith bundle verify BUNDLE",
        ) from error
    return times


def _measure(request: Any) -> list[list[float]]:
    """The helper's side: time all bundles of a request."""
    classifiers = [load(bundle) for bundle in request["bundles"]]
    images = [read(Path(image)) for image in request["images"]]
    for classifier in classifiers:
        for _ in range(WARM_UP_ROUNDS):
            _round(classifier, images)
    times: list[list[float]] = [[] for _ in classifiers]
    end = time.perf_counter() + MEASURE_S
    for number in range(MAX_ROUNDS):
        order = range(len(classifiers)) if number % 2 else reversed(range(len(classifiers)))
        for which in order:
            times[which].append(_round(classifiers[which], images))
        if number + 1 >= MIN_ROUNDS and time.perf_counter() > end:
            break
    return times


def _round(classifier: Classifier, images: Sequence[bytes]) -> float:
    times = []
    for image in images:
        started = time.perf_counter()
        classifier.classify(image)
        times.append(time.perf_counter() - started)
    return 1e3 * statistics.median(times)


if __name__ == "__main__":
    answer_request(_measure)
