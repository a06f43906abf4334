"""Both models of a canary release in numbers, for people and programs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lensmith.rollout.metrics import ModelCounts, quantile_ms
from lensmith.rollout.sequential_tests import shift, wilson


def figures(champion: ModelCounts, challenger: ModelCounts) -> dict[str, Any]:
    """What is known of both; None for what nothing is known of.

    Returns:
        Plain values: `champion` and `challenger` as `_of` says; `class_shift`, 0 to 1 or None; `compared` and, where it
        is not 0, `agreement` with its interval.
    """
    known = champion.classes.total() > 0 and challenger.classes.total() > 0
    result: dict[str, Any] = {
        "champion": _of(champion),
        "challenger": _of(challenger),
        "class_shift": round(shift(*by_class(challenger, champion)), 4) if known else None,
        "compared": challenger.compared,
        "agreement": _share(challenger.agreed, challenger.compared),
        "agreement_interval": _interval(challenger.agreed, challenger.compared),
    }
    return result


def by_class(challenger: ModelCounts, champion: ModelCounts) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Both models' answers by class, (C,) each, as if every request had held one image.

    Images of one request often show the same, and go to the same model: as evidence they count as one.
    """
    classes = sorted(challenger.classes.keys() | champion.classes.keys())
    made = []
    for counts in (challenger, champion):
        images = counts.classes.total()
        weight = min(1.0, counts.answered / images) if images else 0.0
        made.append(np.array([counts.classes[each] for each in classes], np.float64) * weight)
    return made[0], made[1]


def _of(counts: ModelCounts) -> dict[str, Any]:
    labels = counts.right + counts.wrong
    return {
        "requests": counts.requests,
        "failed": counts.failed,
        "error_rate": _share(counts.failed, counts.requests),
        "error_rate_interval": _interval(counts.failed, counts.requests),
        "p50_ms": _quantile(counts.latency, 0.5),
        "p99_ms": _quantile(counts.latency, 0.99),
        "work_p99_ms": _quantile(counts.work, 0.99),
        "labels": labels,
        "accuracy": _share(counts.right, labels),
        "accuracy_interval": _interval(counts.right, labels),
    }


def _share(hits: int, trials: int) -> float | None:
    return round(hits / trials, 6) if trials else None


def _interval(hits: int, trials: int) -> list[float] | None:
    return [round(end, 6) for end in wilson(hits, trials)] if trials else None


def _quantile(histogram: dict[int, int], share: float) -> float | None:
    found = quantile_ms(histogram, share)
    return None if math.isnan(found) else round(found, 2)
