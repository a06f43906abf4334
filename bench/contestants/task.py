"""The job of every contestant, and the clock that it reports to."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TextIO

from lensmith.core.machine import allowed_cores

MEAN = STD = (0.5, 0.5, 0.5)
"""Preprocessing of EfficientNet-Lite0's weights; the other network, which starts from scratch, gets the same."""


@dataclass(frozen=True)
class Task:
    """One contestant's job.

    Attributes:
        data: folder with `train/CLASS/*.png` and `val/CLASS/*.png`.
        classes: sorted class names.
        image_size: S, pixels a side; pictures are squashed to it with a bicubic filter.
        epochs: number of epochs, also for planning the learning rate.
        batch_size: images in an optimizer step.
        model: timm's name of the network.
        weights: folder with `model.safetensors` (the whole network, its new head too) and `config.json`.
        pretrained: whether the weights are ImageNet's, except for the head.
        mode: `frozen` trains the head alone, `full` all layers.
        seed: seed of all random generators.
        bf16: whether bfloat16 is the faster format here; for those whose documents recommend it on a CPU.
        device: `cpu` or `cuda`.
        out: empty folder for the contestant's files.
    """

    data: str
    classes: tuple[str, ...]
    image_size: int
    epochs: int
    batch_size: int
    model: str
    weights: str
    pretrained: bool
    mode: Literal["frozen", "full"]
    seed: int
    bf16: bool
    device: str
    out: str

    @property
    def frozen(self) -> bool:
        """Whether the head alone is trained."""
        return self.mode == "frozen"

    @property
    def workers(self) -> int:
        """Number of data-loader workers, for those whose documents recommend one for each core."""
        return allowed_cores()

    def folder(self, part: Literal["train", "val"]) -> Path:
        """Folder with the images of a part."""
        return Path(self.data) / part

    def as_json(self) -> str:
        """JSON for the command line of the contestant's process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The task from `as_json`."""
        values: dict[str, Any] = json.loads(text)
        return cls(**{**values, "classes": tuple(values["classes"])})


class Clock:
    """A clock that starts when it is made, and writes a line of JSON for each epoch.

    Args:
        out: stream for the lines.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._started = out, time.perf_counter()
        self._images, self._training_s = 0, 0.0
        self._begun = self._started

    def begin(self) -> None:
        """Begin the training part of an epoch."""
        self._begun = time.perf_counter()

    def end(self, images: int) -> None:
        """End it, after so many images."""
        self._training_s += time.perf_counter() - self._begun
        self._images += images

    @contextmanager
    def training(self, images: int) -> Iterator[None]:
        """Time a block that trains on so many images."""
        self.begin()
        yield
        self.end(images)

    def epoch(self, accuracy: float) -> None:
        """Report an epoch whose training and validation are done, with its validation accuracy, 0..1."""
        self.report(
            seconds=time.perf_counter() - self._started,
            accuracy=accuracy,
            images=self._images,
            training_s=self._training_s,
        )

    def report(self, **figures: Any) -> None:
        """Write one line of figures."""
        print(json.dumps(figures), file=self._out, flush=True)
