"""Two bundles timed by turns on this machine, in a process of its own.

By turns, since a machine that is busy for a second would else make one of them look slow; in a process of its own,
where no thread of a training waits about.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path

from lensmith.core.helper_process import HelperError, answer_request, run_helper
from lensmith.core.text import first_line
from lensmith.errors import GateError
from lensmith.imaging.decode import read
from lensmith.inference.classifier import Classifier, load

ROUNDS, LEAST_ROUNDS = 60, 9
IMAGES = 8
"""Timed in each round."""
SECONDS = 12.0
"""After which no further round begins, once there are enough."""
LIMIT_S = 600.0


def measure(bundles: Sequence[Path], images: Sequence[Path]) -> list[list[float]]:
    """Milliseconds from bytes to answer, one image alone on one core: a median a round, for each bundle.

    Args:
        bundles: one, or two that are compared.
        images: files, taken in turn.

    Raises:
        GateError: a bundle that does not run here.
    """
    asked = {"bundles": [str(bundle) for bundle in bundles], "images": [str(image) for image in images[:IMAGES]]}
    try:
        times: list[list[float]] = run_helper("lensmith.workflows.pipeline.latency", asked, LIMIT_S)
    except HelperError as error:
        raise GateError(
            f"The latency of {' and '.join(map(str, bundles))} was to be measured.",
            f"A bundle did not answer: {first_line(error)}.",
            "See what is wrong with it: lensmith bundle verify BUNDLE",
        ) from error
    return times


def _answer(asked: dict[str, list[str]]) -> list[list[float]]:
    classifiers = [load(bundle) for bundle in asked["bundles"]]
    images = [read(Path(image)) for image in asked["images"]]
    for classifier in classifiers:
        for _ in range(2):  # warms up
            _round(classifier, images)
    times: list[list[float]] = [[] for _ in classifiers]
    end = time.perf_counter() + SECONDS
    for number in range(ROUNDS):
        order = range(len(classifiers)) if number % 2 else reversed(range(len(classifiers)))
        for which in order:
            times[which].append(_round(classifiers[which], images))
        if number + 1 >= LEAST_ROUNDS and time.perf_counter() > end:
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
    answer_request(_answer)
