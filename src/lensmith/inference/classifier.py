"""The classifier: a bundle with its engine. Classifies one image for the service, or a stream of files."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lensmith.bundle.format import Bundle
from lensmith.core.machine import allowed_cores
from lensmith.core.result import Result
from lensmith.core.threads import map_in_order
from lensmith.errors import ImageError, SettingsError
from lensmith.imaging.decoding import MAX_PIXELS, read
from lensmith.imaging.preprocessing import Tensor, preprocess
from lensmith.inference.engine import Engine, open_engine


@dataclass(frozen=True)
class Ranked:
    """One class with its probability.

    Attributes:
        class_id: index in the bundle's labels.
        label: name of the class.
        confidence: probability of the class, 0..1.
    """

    class_id: int
    label: str
    confidence: float


@dataclass(frozen=True)
class Prediction(Result):
    """The answer for one image: classes by falling probability, or the reason why there is none.

    Attributes:
        top: the k likeliest classes; empty where `error` is set.
        path: path of the file, where there was one.
        error: reason why the image could not be read; None if it could.
        probabilities: float32 (C,), the whole distribution; None where `error` is set.
        abstained: whether the confidence is below the bundle's abstention threshold, so that the label is a guess;
            False where the bundle has no threshold, and where `error` is set.
    """

    top: tuple[Ranked, ...] = ()
    path: str | None = None
    error: str | None = None
    probabilities: Tensor | None = None
    abstained: bool = False

    @property
    def label(self) -> str | None:
        """Name of the likeliest class."""
        return self.top[0].label if self.top else None

    @property
    def class_id(self) -> int | None:
        """Index of the likeliest class in the bundle's labels."""
        return self.top[0].class_id if self.top else None

    @property
    def confidence(self) -> float | None:
        """Probability of the likeliest class, 0..1."""
        return self.top[0].confidence if self.top else None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON: path, label, class_id, confidence, abstained, top, error."""
        return {
            "path": self.path,
            "label": self.label,
            "class_id": self.class_id,
            "confidence": self.confidence,
            "abstained": self.abstained,
            "top": [vars(ranked) for ranked in self.top],
            "error": self.error,
        }


class Classifier:
    """A bundle with its engine, which classifies images. Safe to call from several threads.

    Args:
        bundle: the bundle; its labels, preprocessing and abstention threshold apply.
        engine: engine that runs the bundle; `load` opens the selected one.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self.bundle = bundle
        self.engine = engine

    def classify(self, encoded: bytes, top_k: int = 5) -> Prediction:
        """Classify one encoded image, in the caller's thread.

        Raises:
            ImageError: the bytes are not a whole image.
        """
        return self.rank(self.engine.run(self.prepare(encoded)[np.newaxis])[0], top_k)

    def prepare(self, encoded: bytes, max_pixels: int = MAX_PIXELS) -> Tensor:
        """Encoded bytes → float32 (3, S, S), the model input.

        Raises:
            ImageError: the bytes are not a whole image, or it has more than `max_pixels`.
        """
        return preprocess(encoded, self.bundle.manifest.preprocessing, max_pixels)

    def rank(self, probabilities: Tensor, top_k: int = 5) -> Prediction:
        """float32 (C,) → the k likeliest classes, ties by class index; abstained below the bundle's threshold.

        Raises:
            SettingsError: `top_k` is below 1.
        """
        if top_k < 1:
            raise SettingsError(
                "At least one class to name was expected.", f"top_k = {top_k} arrived.", "Give 1 or more."
            )
        order = np.argsort(-probabilities, kind="stable")[:top_k]
        top = tuple(Ranked(int(i), self.bundle.labels[i], float(probabilities[i])) for i in order)
        abstention = self.bundle.manifest.abstention
        abstained = abstention is not None and top[0].confidence < abstention.threshold
        return Prediction(top=top, probabilities=probabilities, abstained=abstained)

    def stream(self, paths: Iterable[str | os.PathLike[str]], top_k: int = 5) -> Iterator[Prediction]:
        """Classify many files, in their order, on all cores allowed; an unreadable file gets its reason.

        Each core runs decode, normalise and inference of one image to the end, which measured faster on CPUs than
        batching behind a queue. At most four images a core are in flight, so a million paths take no memory.
        """
        cores = max(1, allowed_cores() // self.engine.threads)
        yield from map_in_order(lambda path: self._file(Path(path), top_k), paths, cores, 4 * cores, "predict")

    def predict(
        self, images: str | os.PathLike[str] | Iterable[str | os.PathLike[str]], top_k: int = 5
    ) -> list[Prediction]:
        """Classify one path or many, as a list."""
        paths = [images] if isinstance(images, (str, os.PathLike)) else images
        return list(self.stream(paths, top_k))

    def _file(self, path: Path, top_k: int) -> Prediction:
        try:
            return replace(self.classify(read(path), top_k), path=str(path))
        except ImageError as error:
            return Prediction(path=str(path), error=error.arrived)


def load(path: str | os.PathLike[str], engine: str | None = None, threads: int = 1) -> Classifier:
    """Open a bundle (folder or zip), verify it, and open its engine.

    Args:
        path: bundle folder or zip.
        engine: name of an engine to use instead of the selected one.
        threads: threads for one image; 1 lets each core work on an image of its own.

    Raises:
        BundleError: the bundle is damaged, incomplete, of another schema, or fails its golden samples.
    """
    if threads < 1:
        raise SettingsError("At least one thread was expected.", f"{threads} arrived.", "Leave threads out, or give 1.")
    bundle = Bundle.load(path)
    return Classifier(bundle, open_engine(bundle, engine, threads))
