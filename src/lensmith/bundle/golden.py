"""Golden samples: a handful of real images with each engine's answers, which every load must give again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.bundle import archive
from lensmith.core.text import first_line
from lensmith.errors import BundleError


@dataclass(frozen=True)
class Golden:
    """Samples that every load must answer as the exporter saw them.

    Attributes:
        images: encoded files.
        probabilities: float32 (len(images), C), of the engine that was chosen when the bundle was made.
        others: the same of other engines, by their records' names.
    """

    images: tuple[bytes, ...]
    probabilities: npt.NDArray[np.float32]
    others: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def of(self, engine: str) -> npt.NDArray[np.float32]:
        """What the engine of that name answered."""
        return self.others.get(engine, self.probabilities)

    def save(self, path: Path, labels: Sequence[str]) -> None:
        """Write as an .npz without pickle: `probabilities`, `labels`, `image_0` … as uint8 arrays, `engine_NAME` …"""
        arrays: dict[str, Any] = {f"image_{i}": np.frombuffer(image, np.uint8) for i, image in enumerate(self.images)}
        arrays |= {f"{_ENGINE}{name}": answers for name, answers in self.others.items()}
        np.savez(
            path, allow_pickle=False, probabilities=self.probabilities, labels=np.array(labels, dtype=str), **arrays
        )

    @classmethod
    def read(cls, path: Path, labels: Sequence[str]) -> Golden:
        """Read what `save` wrote.

        Raises:
            BundleError: it is of another form, or was made for other labels.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count = sum(name.startswith("image_") for name in arrays.files)
                images = tuple(arrays[f"image_{i}"].tobytes() for i in range(count))
                others = {n.removeprefix(_ENGINE): arrays[n] for n in arrays.files if n.startswith(_ENGINE)}
                golden, stored = cls(images, arrays["probabilities"], others), arrays["labels"].tolist()
        except (*archive.DAMAGE, OSError, KeyError, MemoryError) as error:  # an array may say that it is huge
            raise BundleError(f"Golden samples were expected in {path}.", f"{first_line(error)}.", _AGAIN) from error
        problem = "" if images else "There are none"
        if stored != list(labels):
            problem = problem or "They were made for other labels, or in another order"
        if any(answers.shape != (count, len(labels)) for answers in (golden.probabilities, *others.values())):
            problem = problem or "They are not one answer for each image and label"
        if problem:
            raise BundleError(f"Golden samples of this bundle were expected in {path}.", f"{problem}.", _AGAIN)
        return golden


_ENGINE = "engine_"
_AGAIN = "Copy the bundle again, or export it again with `lensmith export RUN`."
