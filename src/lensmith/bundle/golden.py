"""Golden samples: a few real images with each engine's answers, which every load of a bundle must reproduce."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from lensmith.bundle import archive
from lensmith.core.text import first_line
from lensmith.errors import BundleError

REMEDY = "Copy the bundle again, or export it again with `lensmith export RUN`."
_ENGINE = "engine_"


@dataclass(frozen=True)
class Golden:
    """Images and answers of the export, which every load must reproduce.

    Attributes:
        images: N encoded files.
        probabilities: float32 (N, C), answers of the engine that was selected in the export.
        others: float32 (N, C) each, answers of other engines, by the names of their records.
    """

    images: tuple[bytes, ...]
    probabilities: npt.NDArray[np.float32]
    others: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def save(self, path: Path, labels: Sequence[str]) -> None:
        """Write an .npz without pickle: `probabilities`, `labels`, `image_N` (uint8), `engine_NAME`."""
        arrays: dict[str, Any] = {f"image_{i}": np.frombuffer(image, np.uint8) for i, image in enumerate(self.images)}
        arrays |= {f"{_ENGINE}{name}": answers for name, answers in self.others.items()}
        np.savez(
            path, allow_pickle=False, probabilities=self.probabilities, labels=np.array(labels, dtype=str), **arrays
        )

    @classmethod
    def read(cls, path: Path, labels: Sequence[str]) -> Self:
        """Read a file that `save` wrote.

        Raises:
            BundleError: the file has another form, or was made for other labels.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                count = sum(name.startswith("image_") for name in arrays.files)
                images = tuple(arrays[f"image_{i}"].tobytes() for i in range(count))
                others = {n.removeprefix(_ENGINE): arrays[n] for n in arrays.files if n.startswith(_ENGINE)}
                golden, stored = cls(images, arrays["probabilities"], others), arrays["labels"].tolist()
        except (*archive.DAMAGE, OSError, KeyError, MemoryError) as error:  # a forged array may claim a huge size
            raise BundleError(f"Golden samples were expected in {path}.", f"{first_line(error)}.", REMEDY) from error
        if not images:
            problem = "There are none"
        elif stored != list(labels):
            problem = "They were made for other labels, or in another order"
        elif any(answers.shape != (count, len(labels)) for answers in (golden.probabilities, *others.values())):
            problem = "They are not one answer for each image and label"
        else:
            return golden
        raise BundleError(f"Golden samples of this bundle were expected in {path}.", f"{problem}.", REMEDY)

    def problem(self, name: str, answered: npt.NDArray[np.float32], tolerance: float) -> str:
        """Describe how an engine's answers to the golden images differ from the export's; empty text if they do not.

        Args:
            name: name of the engine's record.
            answered: the engine's answers, float32; probabilities of shape (N, C) are expected.
            tolerance: largest allowed difference of a probability.
        """
        expected = self.others.get(name, self.probabilities)
        if answered.shape != expected.shape:
            return f"it answered with shape {answered.shape} instead of {expected.shape}"
        if not np.isfinite(answered).all():
            return "it answered with values that are not numbers"
        difference = float(np.abs(answered - expected).max())
        allowed = f"a probability differs by {difference:.2g}, and {tolerance:.2g} is allowed"
        return "" if difference <= tolerance else allowed
