"""What an export hands to the report beside the evaluation: the engines, the temperature, the answers that changed."""

from __future__ import annotations

from dataclasses import dataclass

from lensmith.bundle.format import EngineRecord
from lensmith.evaluation.confidence import Scaling


@dataclass(frozen=True)
class Changed:
    """An image that PyTorch calls otherwise than the engine that was judged.

    Attributes:
        row: index into the evaluation's files, truth and probabilities.
        reference: class index that PyTorch names.
        margin: by how much PyTorch preferred its class to the second, as a probability.
    """

    row: int
    reference: int
    margin: float


@dataclass(frozen=True)
class Choice:
    """How the engine came to be chosen, and what that changed. C classes, in label order.

    Attributes:
        engines: every candidate, those that could not be made too.
        scaling: the temperature and what it brought; None if none was looked for.
        changed: the images whose class is not PyTorch's.
        per_class_change: C recalls less PyTorch's, in points of 100: below 0 is lost; None: no image of that class.
        images: on how many images PyTorch and the engine were compared.
        max_drop: accuracy that an engine was allowed to lose, in points of 100.
    """

    engines: tuple[EngineRecord, ...]
    scaling: Scaling | None
    changed: tuple[Changed, ...]
    per_class_change: tuple[float | None, ...]
    images: int
    max_drop: float | None = None
