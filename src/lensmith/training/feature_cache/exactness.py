"""Exactness of features: whether rounded ones (bfloat16, float16) are exact enough for the images and for the head.

How far features may be rounded depends on both: where images differ little (a fixed camera, dark frames), what
separates the classes is as small as the rounding, and a head learns the rounding instead, or nothing. So some training
images, the probe, have exact features beside the rounded ones. Rounding has to be small beside the differences between
the images, and what the network answers has to be the same from either, but for a few images, and as good.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from lensmith.training.validate import ModelOutputs

PROBE_ROWS, PROBE_BYTES = 256, 64 * 10**6
"""The most training images, and bytes of their exact features, in the probe."""

ROUNDING = 0.2
"""Largest rounding error, as a share of how far features are from their mean. In bfloat16 it is 0.06 to 0.08 with
ordinary photos, and 0.6 to 2.6 where images differ little (docs/log.md)."""

CHANGED = 0.04
"""Largest share of the probe whose class may change."""

LOSS_RATIO, LOSS_NATS = 0.1, 0.01
"""Largest difference of the loss, relative and in nats, that both together are allowed."""


def rounding_share(rounded: np.ndarray[Any, Any], exact: np.ndarray[Any, Any]) -> float:
    """The rounding error of features, as a share of how far the exact ones are from their mean.

    Args:
        rounded: features (N, …) of any float dtype.
        exact: float32 (N, …), the same images' exact features; rows of NaN in either are left out.
    """
    ours, theirs = (rows.reshape(len(rows), -1).astype(np.float32) for rows in (rounded, exact))
    good = np.isfinite(ours).all(axis=1) & np.isfinite(theirs).all(axis=1)
    ours, theirs = ours[good], theirs[good]
    error = float(np.linalg.norm(ours - theirs))
    spread = float(np.linalg.norm(theirs - theirs.mean(axis=0))) if len(theirs) else 0.0
    return error / spread if spread else float("inf") if error else 0.0


@dataclass(frozen=True)
class Exactness:
    """Answers of one network to the same images, from rounded and from exact features.

    Attributes:
        rows: number of images.
        changed: number of images whose likeliest class differs.
        loss: mean cross-entropy with rounded features, in nats.
        exact_loss: mean cross-entropy with exact features, in nats.
    """

    rows: int
    changed: int
    loss: float
    exact_loss: float

    @classmethod
    def of(cls, rounded: ModelOutputs, exact: ModelOutputs) -> "Exactness":
        """Compare two outputs for the same images, but for those that one of them lacks."""
        both = sorted({*rounded.indices} & {*exact.indices})  # a file can be gone in between
        ours, theirs = (_rows(one, both) for one in (rounded, exact))
        changed = int((ours.logits.argmax(1) != theirs.logits.argmax(1)).sum())
        return cls(len(both), changed, ours.loss, theirs.loss)

    @property
    def suffices(self) -> bool:
        """Whether the difference is negligible."""
        # `<=` is false of what is no number, too
        return (
            self.changed <= CHANGED * self.rows
            and abs(self.exact_loss - self.loss) <= LOSS_RATIO * min(self.loss, self.exact_loss) + LOSS_NATS
        )

    def __str__(self) -> str:
        """The difference, for people."""
        return (
            f"with fp32 features {self.changed} of {self.rows} training images get another class,"
            f" and their loss is {self.exact_loss:.3g} instead of {self.loss:.3g}"
        )


def _rows(outputs: ModelOutputs, indices: list[int]) -> ModelOutputs:
    places = {index: place for place, index in enumerate(outputs.indices)}
    taken = [places[index] for index in indices]
    return ModelOutputs(outputs.logits[taken], outputs.labels[taken], indices, [])
