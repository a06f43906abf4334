"""Suggestions of a bundle for the pictures of a review, computed in the background while people look at the first ones.

One thread runs the bundle, so that the other cores decode what the page asks for. Pictures that people look at are
taken first.
"""

import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensmith.curation.reviewing.items import ReviewSource
from lensmith.errors import ImageError
from lensmith.imaging.decoding import read
from lensmith.inference.classifier import Classifier, load

TOP = 3


@dataclass(frozen=True)
class Suggestion:
    """What the bundle thinks of a picture.

    Attributes:
        position: position of the item in the source.
        top: the likeliest classes with their probabilities, 0..1; empty where the picture cannot be read.
    """

    position: int
    top: tuple[tuple[str, float], ...]


class Suggester:
    """A thread that classifies the pictures of a source, in their order.

    Attributes:
        name: name and version of the bundle.
        labels: classes of the bundle.
        done: suggestions so far, in the order in which they were made.
    """

    def __init__(self, source: ReviewSource, bundle: Path) -> None:
        self._classifier: Classifier = load(bundle)
        manifest = self._classifier.bundle.manifest
        self.name = f"{manifest.name} version {manifest.version}"
        self.labels: tuple[str, ...] = tuple(self._classifier.bundle.labels)
        self.done: list[Suggestion] = []
        self._source = source
        self._urgent: deque[int] = deque(maxlen=64)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._work, name="suggestions", daemon=True)

    def start(self) -> None:
        """Begin with the first picture."""
        self._thread.start()

    def stop(self) -> None:
        """End after the picture under way."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def hurry(self, position: int) -> None:
        """Take a picture next, since somebody looks at it."""
        self._urgent.append(position)

    def _work(self) -> None:
        made: set[int] = set()
        rest = iter(range(len(self._source.items)))
        while not self._stopped.is_set():
            position = self._urgent.pop() if self._urgent else next(rest, None)
            if position is None:
                if self._stopped.wait(0.2) or len(made) == len(self._source.items):
                    return
                continue
            if position not in made:
                made.add(position)
                self.done.append(self._suggestion(position))

    def _suggestion(self, position: int) -> Suggestion:
        try:
            tensor = self._classifier.prepare(read(self._source.file(self._source.items[position].path)))
        except ImageError:
            return Suggestion(position, ())
        answer = self._classifier.rank(self._classifier.engine.run(tensor[np.newaxis])[0], TOP)
        return Suggestion(position, tuple((each.label, each.confidence) for each in answer.top))
