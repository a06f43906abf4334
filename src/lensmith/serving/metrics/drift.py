"""Drift metrics: how far each model's answers have moved from its validation part, for Prometheus.

Every process scores its own answers. Of several processes the largest score is shown: connections are distributed among
them, so each sees a sample of the same pictures, and a mean would hide what one of them saw.
"""

import os
from collections.abc import Iterable
from weakref import WeakKeyDictionary, ref

from prometheus_client import CollectorRegistry, Gauge

from lensmith.bundle.drift import DriftWindow
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction
from lensmith.serving.metrics import SHARED_FOLDER


class Drift:
    """A window of answers for each model whose bundle has reference statistics. Used only on the event loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Weak, so that a model that was replaced is freed with its last request, whether or not scores are read.
        self._windows: WeakKeyDictionary[LoadedModel, DriftWindow] = WeakKeyDictionary()
        self._shown: dict[tuple[str, str], ref[LoadedModel]] = {}
        self._gauge = Gauge(
            "lensmith_drift_score",
            "How far the last answers are from those on the validation part; about 0 without drift, from 0.2 on to be "
            "looked at. Of several processes the largest.",
            ["kind", "version"],
            registry=registry,
            multiprocess_mode="livemax",
        )

    def note(self, model: LoadedModel, found: TimedPrediction) -> None:
        """Add an answer to its model's window, unless the model knows the image: replayed, it would hide drift."""
        if model.knows(found.file_hash):
            return
        window = self._windows.get(model)
        if window is None:
            reference = model.classifier.bundle.manifest.reference
            if reference is None:
                return
            window = self._windows[model] = DriftWindow(reference)
        top = found.prediction.top[0]
        window.note(top.class_id, top.confidence, found.features)

    def show(self, served: Iterable[LoadedModel]) -> None:
        """Update the scores, and remove those of models that are no longer served."""
        loaded = set(served)
        for (kind, version), shown in list(self._shown.items()):
            if shown() not in loaded:
                del self._shown[kind, version]
                self._remove(kind, version)
        for model in loaded & set(self._windows):
            for kind, score in self._windows[model].scores().items():
                self._gauge.labels(kind, model.version).set(score)
                self._shown[kind, model.version] = ref(model)

    def _remove(self, kind: str, version: str) -> None:
        if os.environ.get(SHARED_FOLDER):  # a metric that processes share cannot be removed
            self._gauge.labels(kind, version).set(0)
        else:
            self._gauge.remove(kind, version)
