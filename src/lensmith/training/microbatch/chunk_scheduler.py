"""How a batch is cut when memory is short, and how it grows back.

    more chunks  →  activation checkpointing  →  more chunks  →  nothing is left

Plain arithmetic without torch, the same on every rank, since all ranks see the same votes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

PATIENCE = 8
"""Clean steps before fewer chunks are tried; doubled each time the try fails."""

LONGEST_PATIENCE = 4096


@dataclass
class ChunkScheduler:
    """Where one stands on it.

    Attributes:
        floor: fewest images that go through the network at once.
        ceiling: most images, also where memory would take more; None: the whole batch.
        gentle: checkpointing is tried before chunks get smaller than this.
        can_checkpoint: whether the network has activation checkpointing that is off.
        limit: most images that memory takes at once, as far as is known; None: all.
        checkpointing: whether activations are computed again instead of kept.
        failed: the smallest limit that is known to be too large, as things are.
        clean: steps since the last change.
        patience: clean steps to wait for.
        widest: images of the batch that did not fit, or of the largest since. What goes well with a smaller one, such
            as an epoch's last, proves nothing.
        before: limit and checkpointing before a try to grow, while it is under way.
    """

    floor: int = 1
    ceiling: int | None = None
    gentle: int = 8
    can_checkpoint: bool = False
    limit: int | None = None
    checkpointing: bool = False
    failed: int | None = None
    clean: int = 0
    patience: int = PATIENCE
    widest: int = 0
    before: tuple[int | None, bool] | None = field(default=None)

    def at_once(self, images: int) -> int:
        """Most images that go through the network at once, of a batch of `images`; ≥ 1."""
        return max(1, min(self.limit or images, self.ceiling or images, images))

    def chunks(self, images: int) -> int:
        """How many chunks `images` are cut into, ≥ 1."""
        return max(1, math.ceil(images / self.at_once(images)))

    def fail(self, images: int) -> bool:
        """Memory ran out on a batch of `images`: go one rung up; False where there is none."""
        limit = self.at_once(images)
        if self.before is not None:  # it was only a try to grow
            if self.checkpointing == self.before[1]:
                self.failed = limit
            (self.limit, self.checkpointing), self.before = self.before, None
            self.clean, self.patience = 0, min(2 * self.patience, LONGEST_PATIENCE)
            return True
        smaller = math.ceil(images / (2 * self.chunks(images)))
        self.clean, self.widest = 0, images
        if self.can_checkpoint and not self.checkpointing and (smaller < self.gentle or limit <= self.floor):
            self.checkpointing, self.failed = True, None
            return True
        if limit <= max(1, self.floor):
            return False
        self.failed, self.limit = limit, max(self.floor, smaller)
        return True

    def succeed(self, images: int, fits: Callable[[int], bool] = lambda limit: True) -> None:
        """A step went through; after enough of them, try larger chunks where `fits(limit)` sees room for them."""
        if images < self.widest:
            return
        self.widest, self.before = images, None
        if self.limit is None and not self._may_stop_checkpointing:
            return
        self.clean += 1
        if self.clean < self.patience:
            return
        self.clean = 0
        chunks, fewest = self.chunks(images), math.ceil(images / (self.ceiling or images))
        # What was too large once is not tried while anything smaller lies between. Not every number of chunks can be
        # had: 131 images in 13 would be 12 of 11, so it is asked which are left below the size that failed.
        left = math.ceil(images / max(1, self.failed - 1)) if self.failed else chunks
        if left < chunks:
            self._try(math.ceil(images / ((left + chunks) // 2)), fits)
        elif self.failed and chunks > fewest:  # what was found is old by now
            self.failed, self.patience = None, min(2 * self.patience, LONGEST_PATIENCE)
        elif chunks > fewest:
            self._try(math.ceil(images / (chunks - 1)), fits)
        elif self._may_stop_checkpointing:
            if fits(self.at_once(images)):
                self.before, self.checkpointing = (self.limit, True), False
        else:
            self.limit = None

    def _try(self, limit: int, fits: Callable[[int], bool]) -> None:
        if fits(limit):
            self.before, self.limit = (self.limit, self.checkpointing), limit

    @property
    def _may_stop_checkpointing(self) -> bool:
        return self.checkpointing and self.can_checkpoint

    def restart(self) -> None:
        """Resolution, trainable set or precision changed: what was found no longer holds."""
        self.limit, self.failed, self.before = None, None, None
        self.checkpointing = self.checkpointing and not self.can_checkpoint
        self.clean, self.patience, self.widest = 0, PATIENCE, 0

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return asdict(self)

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what `state` returned, but for the settings."""
        for name in ("limit", "checkpointing", "failed", "clean", "patience", "widest"):
            setattr(self, name, state[name])
        self.before = tuple(state["before"]) if state["before"] else None
