"""What every contestant is asked to do, and the clock it reports to."""

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
"""What EfficientNet-Lite0's weights expect; the other network, which starts from scratch, gets the same."""


@dataclass(frozen=True)
class Task:
    """One contestant's job.

    Attributes:
        data: folder with `train/CLASS/*.png` and `val/CLASS/*.png`.
        classes: sorted.
        image_size: S, pixels a side; pictures are squashed to it with a bicubic filter.
        epochs: to run, and to plan the learning rate for.
        batch_size: images an optimizer step.
        model: timm name.
        weights: folder with `model.safetensors` (the whole network, its new head too) and `config.json`.
        pretrained: whether they are ImageNet's, but for the head.
        mode: `frozen` trains the head alone, `full` everything.
        seed: of everything random.
        bf16: whether bfloat16 was the faster format here; for those whose documents recommend it on a CPU.
        device: `cpu` or `cuda`.
        out: an empty folder of the contestant's own.
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
        """Whether the head alone learns."""
        return self.mode == "frozen"

    @property
    def workers(self) -> int:
        """Data processes, for those whose documents say: as many as there are cores."""
        return allowed_cores()

    def folder(self, part: Literal["train", "val"]) -> Path:
        """Where the images of a part are."""
        return Path(self.data) / part

    def as_json(self) -> str:
        """For the command line of the contestant's process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `as_json` made."""
        told: dict[str, Any] = json.loads(text)
        return cls(**{**told, "classes": tuple(told["classes"])})


class Clock:
    """Starts when it is made, and writes a line of JSON for each epoch.

    Args:
        out: where the lines go.
    """

    def __init__(self, out: TextIO) -> None:
        self._out, self._started = out, time.perf_counter()
        self._images, self._training_s = 0, 0.0
        self._begun = self._started

    def begin(self) -> None:
        """The training part of an epoch begins."""
        self._begun = time.perf_counter()

    def end(self, images: int) -> None:
        """It has ended, after so many images."""
        self._training_s += time.perf_counter() - self._begun
        self._images += images

    @contextmanager
    def training(self, images: int) -> Iterator[None]:
        """Both, around a block that trains on so many images."""
        self.begin()
        yield
        self.end(images)

    def epoch(self, accuracy: float) -> None:
        """An epoch's training and validation are done, the latter with this share of right answers."""
        self.tell(
            seconds=time.perf_counter() - self._started,
            accuracy=accuracy,
            images=self._images,
            training_s=self._training_s,
        )

    def tell(self, **figures: Any) -> None:
        """Write one line."""
        print(json.dumps(figures), file=self._out, flush=True)
