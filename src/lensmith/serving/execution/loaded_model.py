"""A loaded model: a bundle that is opened and verified, and classifies images for requests."""

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
"""Niceness of the thread that loads a model while another answers; on Linux it applies to that thread only."""


class ModelVersion(NamedTuple):
    """Name and version of a model: the registry's where it comes from there, else the bundle's."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version}"


class NotFiniteError(Exception):
    """An engine returned probabilities that are NaN or infinite."""


@dataclass(frozen=True, slots=True)
class TimedPrediction:
    """One image's prediction, and where its time went.

    Attributes:
        prediction: the ranked classes.
        decode_s: seconds from the encoded bytes to the model's input.
        inference_s: seconds from the model's input to the ranked classes, for the whole batch where it was in one.
        queue_s: seconds that it waited for a thread.
        batch: number of images in the same run of the engine.
        features: float32 (D,), input of the last layer, where the bundle's graph returns it.
        file_hash: hash of the bytes of its file, see `file_hash`; None for a tensor.
    """

    prediction: Prediction
    decode_s: float
    inference_s: float
    queue_s: float = 0.0
    batch: int = 1
    features: Tensor | None = None
    file_hash: int | None = None


class LoadedModel:
    """A classifier with a limit on pixels. Safe to call from several threads.

    Args:
        classifier: the bundle's classifier, opened with one thread, as each thread of a pool runs images of its own.
        max_pixels: largest picture, in pixels.
        path: path of its bundle.
        named: name and version; by default those in the bundle.

    Attributes:
        identity: name and version.
        labels: class names; a class ID is an index into them.
        trained_formats: keys of the formats of the training images; empty where the bundle has none.
        input_shape: shape of one prepared image, (3, S, S).
    """

    def __init__(self, classifier: Classifier, max_pixels: int, path: Path, named: ModelVersion | None = None) -> None:
        manifest = classifier.bundle.manifest
        self.classifier = classifier
        self.path = path
        self.identity = named or ModelVersion(manifest.name, manifest.version)
        self.labels = manifest.labels
        self.trained_formats = tuple(manifest.formats)
        self._max_pixels = max_pixels
        self._image_hashes = classifier.bundle.image_hashes()
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
        """Open a bundle and verify its hashes and golden samples.

        Args:
            path: the bundle's folder or zip.
            engine: name of the engine; None: the one that the bundle chose.
            max_pixels: largest picture, in pixels.
            low_priority: lower the priority of the calling thread for good, so that requests go first.
            named: name and version; by default those in the bundle.

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
        """The name, without the version."""
        return self.identity.name

    @property
    def version(self) -> str:
        """The version, without the name."""
        return self.identity.version

    @property
    def on_gpu(self) -> bool:
        """Whether its engine runs on a GPU, so that the cores only decode."""
        return self.classifier.engine.name in ("onnxruntime-cuda", "onnxruntime-tensorrt")

    def prepare(self, encoded: bytes) -> Tensor:
        """Decode and preprocess an image: encoded bytes → float32 (3, S, S), normalised.

        Raises:
            ImageError: the bytes are not a whole image, or it has too many pixels.
        """
        return self.classifier.prepare(encoded, self._max_pixels)

    @property
    def has_image_hashes(self) -> bool:
        """Whether its bundle has the hashes of all images that it learnt from or was chosen on."""
        return self._image_hashes is not None and self._image_hashes.complete

    def knows(self, file_hash: int | None) -> bool:
        """Whether the model learnt from this very file, or was chosen on it; False for None, and without hashes."""
        return file_hash is not None and self._image_hashes is not None and self._image_hashes.holds_file(file_hash)

    def infer(self, batch: Tensor) -> Tensor:
        """Run the engine: float32 (N, 3, S, S), normalised → float32 (N, C), probabilities 0..1."""
        return self.classifier.engine.run(batch)

    def infer_with_features(self, batch: Tensor) -> tuple[Tensor, Tensor | None]:
        """`infer`, and the input of the last layer: float32 (N, D), or None where the bundle has no reference."""
        if not self._compares_features:
            return self.infer(batch), None
        return self.classifier.engine.run_with_features(batch)

    def rank(self, probabilities: Tensor, top_k: int) -> Prediction:
        """Rank classes: float32 (C,), probabilities 0..1 → the `top_k` likeliest classes.

        Raises:
            NotFiniteError: some of the probabilities are NaN or infinite.
        """
        if not np.isfinite(probabilities).all():
            raise NotFiniteError(f"{np.count_nonzero(~np.isfinite(probabilities))} of {len(probabilities)} classes")
        return self.classifier.rank(probabilities, top_k)

    def sample(self) -> bytes:
        """A real encoded image of the bundle, for warm-up and measurements."""
        return self.classifier.bundle.golden().images[0]

    def classify(self, encoded: bytes) -> float:
        """Classify one encoded image in the caller's thread; returns the seconds that it took."""
        started = time.perf_counter()
        self.rank(self.infer(self.prepare(encoded)[None])[0], top_k=1)
        return time.perf_counter() - started
