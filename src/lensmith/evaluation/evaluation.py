"""The result of an evaluation: a bundle's answers on labelled images, and the metrics computed from them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import Abstention
from lensmith.core.result import plain
from lensmith.data.consensus import Contested
from lensmith.evaluation.confidence import Answered, answered_at
from lensmith.evaluation.cross_validation import OUT_OF_FOLD
from lensmith.evaluation.held_out import HeldOut
from lensmith.evaluation.metrics import Metrics
from lensmith.evaluation.near_training import NearTraining
from lensmith.imaging.preprocessing import Tensor
from lensmith.imaging.value_range import ValueRange


@dataclass(frozen=True)
class Evaluation:
    """A bundle's answers on labelled images, with their metrics. N images, C classes of the bundle.

    Attributes:
        bundle: name and version of the bundle.
        engine: name of the engine, such as `onnxruntime`.
        precision: precision of the engine, such as `fp32`.
        data: folder of the images.
        part: evaluated part: train, val, test or all; out-of-fold after a cross-validation.
        fingerprint: hash of the data (`ImageSet.fingerprint`).
        labels: the bundle's C class names, in its order.
        metrics: accuracy, F1, calibration and the confusion matrix.
        files: the N files that could be read, in order.
        truth: int64 (N,), true classes by the bundle's index.
        probabilities: float32 (N, C), each row summing to 1.
        unreadable: file and reason of each image that could not be read.
        images_per_second: throughput from files to answers, on all cores allowed.
        latency_ms: median time of one image alone, from its bytes to the answer, in milliseconds.
        seconds: duration of the whole evaluation, in seconds.
        created: time of the evaluation, in UTC.
        versions: versions of the libraries that took part.
        notes: remarks on the data, for the report.
        abstention: the bundle's abstention threshold, if it has one.
        report: path of the HTML report, once it is written.
        held_out: counts of the images of the part that the model knows; None where the part is the training's own.
        value_ranges: the bundle's black and white by kind of values; None: each picture is taken for itself.
        contested: images of the set that are left out since their labels contradict each other.
        near_training: near copies of training images among these; None: not searched, as of the training part.
    """

    bundle: str
    engine: str
    precision: str
    data: Path
    part: str
    fingerprint: str
    labels: tuple[str, ...]
    metrics: Metrics
    files: tuple[Path, ...]
    truth: npt.NDArray[np.int64]
    probabilities: Tensor
    unreadable: tuple[tuple[str, str], ...]
    images_per_second: float
    latency_ms: float
    seconds: float
    created: datetime
    versions: dict[str, str]
    notes: tuple[str, ...] = ()
    abstention: Abstention | None = None
    report: Path | None = None
    held_out: HeldOut | None = None
    value_ranges: Mapping[str, ValueRange] | None = None
    contested: tuple[Contested, ...] = ()
    near_training: NearTraining | None = None

    @property
    def headline(self) -> str:
        """The number of images, their part, and whether the model knows them."""
        if self.part == OUT_OF_FOLD:
            return f"{self.metrics.images:,} images, each answered by the model of its fold, which did not see it"
        if self.held_out is None:
            return f"{self.metrics.images:,} images, part {self.part}"
        return self.held_out.headline(self.metrics.images, self.part)

    @property
    def absent(self) -> tuple[str, ...]:
        """Classes of the bundle that have no image here."""
        return tuple(self.labels[index] for index in self.metrics.absent)

    @property
    def answered(self) -> Answered | None:
        """Effect of the bundle's abstention threshold on these images; None if the bundle has none."""
        if self.abstention is None:
            return None
        return answered_at(self.truth, self.probabilities, self.abstention.threshold)

    def mistakes(self) -> npt.NDArray[np.int64]:
        """int64 (K,): rows with a wrong answer, the most confident first."""
        wrong = np.flatnonzero(self.probabilities.argmax(axis=1) != self.truth)
        return wrong[np.argsort(-self.probabilities[wrong].max(axis=1), kind="stable")]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: the engine, the metrics, and each mistake as path, label, predicted, confidence.

        `abstention` is the bundle's threshold with the precision and coverage of its answers here, or None.
        """
        metrics, answered = self.metrics.as_dict(), self.answered
        metrics["per_class"] = [
            {"label": label, **scores} for label, scores in zip(self.labels, metrics["per_class"], strict=True)
        ]
        names = ("bundle", "engine", "precision", "data", "part", "fingerprint")
        return {
            **{name: plain(getattr(self, name)) for name in names},
            **metrics,
            "held_out": self.held_out and self.held_out.as_dict(),
            "headline": self.headline,
            "abstention": None if answered is None else {**plain(self.abstention), **plain(answered)},
            "labels": list(self.labels),
            "absent": list(self.absent),
            "mistakes": [self._answer(row) for row in self.mistakes()],
            "unreadable": [{"path": path, "error": reason} for path, reason in self.unreadable],
            "contested": plain(self.contested),
            "near_training": self.near_training and self.near_training.as_dict(),
            "images_per_second": round(self.images_per_second, 1),
            "latency_ms": round(self.latency_ms, 3),
            "seconds": round(self.seconds, 3),
            "created": self.created.isoformat(),
            "versions": self.versions,
            "notes": list(self.notes),
            "report": str(self.report) if self.report else None,
        }

    def _answer(self, row: np.int64) -> dict[str, Any]:
        predicted = int(self.probabilities[row].argmax())
        return {
            "path": str(self.files[row]),
            "label": self.labels[self.truth[row]],
            "predicted": self.labels[predicted],
            "confidence": float(self.probabilities[row, predicted]),
        }
