"""Comparison of champion and challenger in figures, for people and programs."""

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.core.stats import wilson
from lensmith.rollout.metrics import ModelCounts, quantile_ms
from lensmith.rollout.sequential_tests import shift


def figures(champion: ModelCounts, challenger: ModelCounts) -> dict[str, Any]:
    """Both models' figures; None where nothing was counted.

    Returns:
        Plain values: `champion` and `challenger` with their rates, quantiles and intervals; `class_shift`, 0..1 or
        None; `compared`, `agreement` and its interval.
    """
    has_classes = champion.classes.total() > 0 and challenger.classes.total() > 0
    return {
        "champion": _of(champion),
        "challenger": _of(challenger),
        "class_shift": round(shift(*by_class(challenger, champion)), 4) if has_classes else None,
        "compared": challenger.compared,
        "agreement": _share(challenger.agreed, challenger.compared),
        "agreement_interval": _interval(challenger.agreed, challenger.compared),
    }


def by_class(challenger: ModelCounts, champion: ModelCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both models' answers by class, float64 (C,) each, as if every request had held one image.

    Images of one request often show the same object and go to the same model, so as evidence they count as one.
    """
    classes = sorted(challenger.classes.keys() | champion.classes.keys())
    weighted = []
    for counts in (challenger, champion):
        images = counts.classes.total()
        weight = min(1.0, counts.answered / images) if images else 0.0
        weighted.append(np.array([counts.classes[each] for each in classes], np.float64) * weight)
    return weighted[0], weighted[1]


def _of(counts: ModelCounts) -> dict[str, Any]:
    return {
        "requests": counts.requests,
        "failed": counts.failed,
        "error_rate": _share(counts.failed, counts.requests),
        "error_rate_interval": _interval(counts.failed, counts.requests),
        "p50_ms": _quantile(counts.latency, 0.5),
        "p99_ms": _quantile(counts.latency, 0.99),
        "work_p99_ms": _quantile(counts.work, 0.99),
        "labels": counts.labels,
        "labels_left_out": counts.known,
        "accuracy": _share(counts.right, counts.labels),
        "accuracy_interval": _interval(counts.right, counts.labels),
    }


def _share(hits: int, trials: int) -> float | None:
    return round(hits / trials, 6) if trials else None


def _interval(hits: int, trials: int) -> list[float] | None:
    return [round(end, 6) for end in wilson(hits, trials)] if trials else None


def _quantile(histogram: Counter[int], share: float) -> float | None:
    found = quantile_ms(histogram, share)
    return None if math.isnan(found) else round(found, 2)
