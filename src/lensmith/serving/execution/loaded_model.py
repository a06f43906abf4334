"""A bundle that is loaded, proven and warm: what a request is answered with."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.imaging.preprocessing import Tensor
from lensmith.inference.classifier import Classifier, Prediction
from lensmith.inference.engine import open_engine

LOADING_NICENESS = 10
"""Niceness of the thread that loads a model while another answers; on Linux it is that thread's alone."""


class ModelVersion(NamedTuple):
    """What answers: as the registry names it where it comes from there, else as the bundle does."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class NotFiniteError(Exception):
    """An engine answered with what is no number."""


@dataclass(frozen=True, slots=True)
class TimedPrediction:
    """One image's answer, and where its time went.

    Attributes:
        prediction: the classes.
        decode_s: from the encoded bytes to the model's input, in seconds.
        inference_s: from there to the ranked classes; of the whole batch, where it was answered in one.
        queue_s: waiting for a thread.
        batch: images answered together, itself included.
        features: float32 (D,), what the last layer took, where the bundle's graph gives it.
    """

    prediction: Prediction
    decode_s: float
    inference_s: float
    queue_s: float = 0.0
    batch: int = 1
    features: Tensor | None = None


class LoadedModel:
    """A classifier with the limits that uploads have to keep. Safe to call from several threads.

    Args:
        classifier: opened with one thread, as each worker runs images of its own.
        max_pixels: largest picture.
        path: where its bundle lies.
        named: what it is called; as the bundle says by default.
    """

    def __init__(self, classifier: Classifier, max_pixels: int, path: Path, named: ModelVersion | None = None) -> None:
        manifest = classifier.bundle.manifest
        self.classifier = classifier
        self.path = path
        self.identity = named or ModelVersion(manifest.name, manifest.version)
        self.labels = manifest.labels
        self._max_pixels = max_pixels
        self._compares_features = manifest.reference is not None and manifest.reference.feature_images > 0
        size = manifest.preprocessing.image_size
        self.input_shape = (3, size, size)

    @classmethod
    def load(
        cls,
        path: Path,
        engine: str | None,
        max_pixels: int,
        low_priority: bool = False,
        named: ModelVersion | None = None,
    ) -> LoadedModel:
        """Open a bundle and prove it by its hashes and golden samples.

        Args:
            path: the bundle.
            engine: another of its engines than the chosen one.
            max_pixels: largest picture.
            low_priority: let the rest of the process go first; lowers the priority of the calling thread for good.
            named: what it is called; as the bundle says by default.

        Raises:
            BundleError: damaged, incomplete, or answering differently from the exporter.
        """
        bundle = Bundle.load(path)
        # OpenVINO's threads would inherit the priority, and answer with it.
        if low_priority and hasattr(os, "setpriority") and bundle.records(engine)[0].engine == "onnxruntime":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), LOADING_NICENESS)
        return cls(Classifier(bundle, open_engine(bundle, engine, threads=1)), max_pixels, path, named)

    @property
    def name(self) -> str:
        """What it is called, without its version."""
        return self.identity.name

    @property
    def version(self) -> str:
        """Which of that name."""
        return self.identity.version

    @property
    def on_gpu(self) -> bool:
        """Whether its engine runs beside the processor's cores, which then only decode."""
        return self.classifier.engine.name in ("onnxruntime-cuda", "onnxruntime-tensorrt")

    def prepare(self, encoded: bytes) -> Tensor:
        """Encoded bytes → float32 (3, S, S).

        Raises:
            ImageError: the bytes are not a whole image, or it has too many pixels.
        """
        return self.classifier.prepare(encoded, self._max_pixels)

    def infer(self, batch: Tensor) -> Tensor:
        """float32 (N, 3, S, S) → float32 (N, C): probabilities."""
        return self.classifier.engine.run(batch)

    def infer_with_features(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """`infer`, and beside it what the last layer took: float32 (N, D), where the bundle can compare it."""
        if not self._compares_features:
            return self.infer(batch), None
        return self.classifier.engine.run_with_features(batch)

    def rank(self, probabilities: Tensor, top_k: int) -> Prediction:
        """float32 (C,) → the k likeliest classes.

        Raises:
            NotFiniteError: some of the probabilities are no numbers.
        """
        if not np.isfinite(probabilities).all():
            raise NotFiniteError(f"{np.count_nonzero(~np.isfinite(probabilities))} of {len(probabilities)} classes")
        return self.classifier.rank(probabilities, top_k)

    def sample(self) -> bytes:
        """A real encoded image to warm up and to measure with."""
        return self.classifier.bundle.golden().images[0]

    def answer(self, encoded: bytes, top_k: int = 1) -> TimedPrediction:
        """One image from its bytes to its answer, in the caller's thread."""
        started = time.perf_counter()
        prepared = self.prepare(encoded)
        decoded = time.perf_counter()
        prediction = self.rank(self.infer(prepared[None])[0], top_k)
        return TimedPrediction(prediction, decoded - started, time.perf_counter() - decoded)
