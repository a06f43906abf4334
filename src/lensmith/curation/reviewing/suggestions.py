"""Suggestions of a bundle for the pictures of a review, computed in the background while people look at the first ones.

One thread runs the bundle, so that the other cores decode what the page asks for. Pictures that people look at are
taken first. Answers are memoized on disk for each bundle and file, so a review that is started again has them at once.
"""

import json
import threading
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensmith.bundle.manifest import MANIFEST
from lensmith.core.file_memo import Values, memoized_by_file
from lensmith.core.files import sha256
from lensmith.curation.reviewing.items import ReviewSource
from lensmith.errors import ImageError
from lensmith.imaging.crops import picture_of
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
        self._files = [source.file(item.path) for item in source.items]
        self._kind = f"suggestions {TOP} {sha256(self._classifier.bundle.path / MANIFEST)}"
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
        recalled = memoized_by_file((self._kind,), self._files, lambda _: (None,), picture_of)
        for position, (answer,) in enumerate(recalled):
            if answer is not None:
                self.done.append(_suggestion(position, answer))
            if self._stopped.is_set():
                return
        made = {each.position for each in self.done}
        rest = iter(range(len(self._files)))
        while not self._stopped.is_set() and len(made) < len(self._files):
            position = self._urgent.pop() if self._urgent else next(rest)
            if position not in made:
                made.add(position)
                ((answer,),) = memoized_by_file((self._kind,), [self._files[position]], self._answer, picture_of)
                self.done.append(_suggestion(position, answer))

    def _answer(self, file: Path) -> Values:
        """Pairs of label and probability as JSON; none where the picture cannot be read."""
        try:
            tensor = self._classifier.prepare(read(file))
        except ImageError:
            return (None,)
        answer = self._classifier.rank(self._classifier.engine.run(tensor[np.newaxis])[0], TOP)
        return (json.dumps([(each.label, each.confidence) for each in answer.top]).encode(),)


def _suggestion(position: int, answer: bytes | None) -> Suggestion:
    return Suggestion(position, tuple((label, share) for label, share in json.loads(answer or b"[]")))
