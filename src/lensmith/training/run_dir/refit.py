"""What the folds of a cross-validation chose, for the model that learns from all images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class HeadChoice:
    """A solved head's hyperparameters.

    Attributes:
        name: solver, as `LinearHead.name`.
        strength: weight decay or sharpness, as `LinearHead.strength`.
        temperature: divisor of its logits, 1 or more.
    """

    name: str
    strength: float
    temperature: float


@dataclass(frozen=True)
class Refit:
    """What the folds of a cross-validation chose for the model that learns from all images.

    Attributes:
        epochs: number of epochs that it learns, out of the schedule of `epochs` in the settings.
        head: how the head is solved for; None: by the settings.
    """

    epochs: int
    head: HeadChoice | None = None

    @classmethod
    def read(cls, stored: Mapping[str, Any]) -> Refit:
        """From plain values, as run.json has them."""
        head = stored.get("head")
        return cls(stored["epochs"], None if head is None else HeadChoice(**head))
