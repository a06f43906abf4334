"""Chunk scheduler: how small the chunks of a batch get when memory runs out, and how they grow back.

    smaller chunks  →  activation checkpointing  →  smaller chunks  →  TooLargeError

Plain arithmetic without torch. Every rank computes the same, since all ranks see the same verdicts.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PATIENCE = 8
"""Steps without a failure before larger chunks are tried; doubled each time such a try fails."""

LONGEST_PATIENCE = 4096

_STATE = ("limit", "checkpointing", "failed", "clean", "patience", "widest", "before")


@dataclass
class ChunkScheduler:
    """The size of the chunks that fit into memory, as far as it is known.

    Attributes:
        min_chunk: fewest images that go through the network at once.
        max_chunk: most images at once, even where memory would take more; None: the whole batch.
        checkpoint_below: chunk size in images; checkpointing is tried before chunks get smaller than this.
        can_checkpoint: whether activation checkpointing may be turned on and off here.
        limit: most images that memory takes at once, as far as known; None: all.
        checkpointing: whether activations are computed again in the backward pass instead of stored.
        failed: smallest limit known to be too large in the current mode; None: none is known.
        clean: steps since the last change.
        patience: number of clean steps to wait for.
        widest: images of the batch that did not fit, or of the largest since. A smaller batch that fits, such as the
            last of an epoch, proves nothing.
        before: limit and checkpointing to return to if the current try to grow fails; None: no try is under way.
    """

    min_chunk: int = 1
    max_chunk: int | None = None
    checkpoint_below: int = 8
    can_checkpoint: bool = False
    limit: int | None = None
    checkpointing: bool = False
    failed: int | None = None
    clean: int = 0
    patience: int = PATIENCE
    widest: int = 0
    before: tuple[int | None, bool] | None = None

    def chunk_size(self, images: int) -> int:
        """Most images that go through the network at once, of a batch of `images`; ≥ 1."""
        return max(1, min(self.limit or images, self.max_chunk or images, images))

    def chunks(self, images: int) -> int:
        """Number of chunks for a batch of `images`; ≥ 1."""
        return max(1, math.ceil(images / self.chunk_size(images)))

    def on_out_of_memory(self, images: int) -> bool:
        """Take smaller chunks, or checkpointing, after memory ran out on a batch of `images`.

        Returns:
            False where nothing smaller is left to try.
        """
        limit = self.chunk_size(images)
        if self.before is not None:  # it was only a try to grow
            if self.checkpointing == self.before[1]:
                self.failed = limit
            (self.limit, self.checkpointing), self.before = self.before, None
            self.clean, self.patience = 0, min(2 * self.patience, LONGEST_PATIENCE)
            return True
        smaller = math.ceil(images / (2 * self.chunks(images)))
        self.clean, self.widest = 0, images
        too_small = smaller < self.checkpoint_below or limit <= self.min_chunk
        if self.can_checkpoint and not self.checkpointing and too_small:
            self.checkpointing, self.failed = True, None
            return True
        if limit <= max(1, self.min_chunk):
            return False
        self.failed, self.limit = limit, max(self.min_chunk, smaller)
        return True

    def on_success(self, images: int, fits: Callable[[int], bool] = lambda limit: True) -> None:
        """Count a step that fitted, and after enough of them try larger chunks.

        Args:
            images: size of the step's batch.
            fits: chunk size in images → whether memory seems to have room for it.
        """
        if images < self.widest:
            return
        self.widest, self.before = images, None
        if self.limit is None and not self._may_stop_checkpointing:
            return
        self.clean += 1
        if self.clean < self.patience:
            return
        self.clean = 0
        chunks, fewest = self.chunks(images), math.ceil(images / (self.max_chunk or images))
        # A size that failed is not tried again while any size between it and the current one is left. Not every number
        # of chunks exists: 131 images in 13 chunks would be 12 of 11. So numbers of chunks below that size are counted.
        left = math.ceil(images / max(1, self.failed - 1)) if self.failed else chunks
        if left < chunks:
            self._try(math.ceil(images / ((left + chunks) // 2)), fits)
        elif self.failed and chunks > fewest:  # the failure is long ago by now
            self.failed, self.patience = None, min(2 * self.patience, LONGEST_PATIENCE)
        elif chunks > fewest:
            self._try(math.ceil(images / (chunks - 1)), fits)
        elif self._may_stop_checkpointing:
            if fits(self.chunk_size(images)):
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
        """Forget what fits: image size, trainable layers or precision changed."""
        self.limit, self.failed, self.before = None, None, None
        self.checkpointing = self.checkpointing and not self.can_checkpoint
        self.clean, self.patience, self.widest = 0, PATIENCE, 0

    def state(self) -> dict[str, Any]:
        """What was found so far, as plain values for a checkpoint."""
        return {name: getattr(self, name) for name in _STATE}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from what `state` returned."""
        for name in _STATE[:-1]:
            setattr(self, name, state[name])
        self.before = tuple(state["before"]) if state["before"] else None
