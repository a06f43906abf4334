"""The training step as a transaction: it happens once, wholly, or not at all; memory only decides in how many chunks.

    batch ─► chunks ─► forward, backward ─► vote ─► gradients added up over the ranks ─► optimizer
                 ▲                           │
                 └── all undone, more chunks ┘ out of memory on any rank

Usable in any PyTorch loop:

    micro = MicroBatcher(model)
    for images, labels in loader:
        micro.backward((images, labels), lambda x, y: F.cross_entropy(model(x), y, reduction="sum"))
        optimizer.step()
        optimizer.zero_grad()
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lensmith.training.microbatch import malloc, memory
from lensmith.training.microbatch.attempt import (
    Loss,
    StepAttempt,
    StepInputs,
    StepVerdict,
    device_of,
    set_checkpointing,
)
from lensmith.training.microbatch.batchnorm import GhostBatchNorm, training_batchnorms
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.chunks import chunks_of_virtual_batches, infer_in_chunks, split_evenly, split_into
from lensmith.training.microbatch.distributed import LostRankError, World


@dataclass(frozen=True)
class StepResult:
    """A step that went through.

    Attributes:
        loss: mean over the whole batch, of all ranks' images by their weights; float64 scalar on the device. With
            several ranks it is this one's share of that mean.
        sums: what the loss function returned besides, added up over this rank's chunks; None where it returned none,
            and of a step that is thrown away.
        chunks: how many this rank's batch was cut into.
        checkpointing: whether activations were computed again instead of kept.
        retries: tries that ran out of memory before.
        verdict: FINE, SAVE, STOP, or NOT_A_NUMBER, whose gradients are thrown away.
        images: of all ranks together; 0 where there was nothing to learn from.
        weight: sum of this rank's sample weights.
        exact: False where BatchNorm's tiles had to be cut, so that the number of chunks changed the result.
    """

    loss: Tensor
    sums: Tensor | None
    chunks: int
    checkpointing: bool
    retries: int
    verdict: StepVerdict
    images: int
    weight: float
    exact: bool


class MicroBatcher:
    """Takes whole batches forward and back in as many chunks as memory asks for.

    The gradients are those of the whole batch, whatever the number of chunks: exactly where BatchNorm is frozen or
    absent, and where it learns as long as a chunk holds a whole tile (see `transaction.batchnorm`). Dropout draws
    other numbers for another number of chunks.

    Args:
        model: its parameters and buffers. The loss function may use others, as long as it moves nothing.
        min_chunk: fewest images that go through at once.
        max_chunk: most, also where memory would take more.
        tile: images that BatchNorm normalises together where it learns.
        checkpointing: `auto` turns the model's activation checkpointing on when chunks get small, `always`, `never`.
        world: ranks that step together.
        sync_batch_norm: where BatchNorm learns, its statistics are those of all ranks.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        min_chunk: int = 1,
        max_chunk: int | None = None,
        tile: int = 32,
        checkpointing: str = "auto",
        world: World | None = None,
        sync_batch_norm: bool = False,
    ) -> None:
        self.model, self.world = model, world or World()
        self.tile = min(tile, max_chunk or tile)
        self.sync_batch_norm = sync_batch_norm and self.world.size > 1
        self.retries = 0
        self._failed_peak = -1  # bytes allocated at most when memory last ran out, on a GPU
        self.inference_scheduler = ChunkScheduler()
        able = checkpointing != "never" and set_checkpointing(model, True)
        set_checkpointing(model, False)
        self.scheduler = ChunkScheduler(
            floor=min_chunk, ceiling=max_chunk, can_checkpoint=able and checkpointing == "auto",
            checkpointing=able and checkpointing == "always",
        )  # fmt: skip
        self.restart()

    def restart(self) -> None:
        """Take note that the image size, what learns, or the precision has changed: what fits is found anew."""
        self._unknown = True
        self.scheduler.restart()
        self.inference_scheduler.restart()
        self.refresh()

    def refresh(self) -> None:
        """Look which BatchNorm layers learn now."""
        self.batchnorm = GhostBatchNorm(self.model, torch.distributed.group.WORLD if self.sync_batch_norm else None)
        # Below a tile BatchNorm's result changes, and checkpointing is the smaller evil. A CPU computes few images
        # nearly as fast as many, and everything twice in half as much time again.
        few = 8 if device_of(self.model).type == "cuda" else 1
        self.scheduler.gentle = self.tile if self.batchnorm.layers else few
        self._probed = not (self.sync_batch_norm and self.batchnorm.layers)

    def backward(
        self,
        batch: Sequence[Tensor],
        loss: Loss,
        *,
        weight: float | None = None,
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
        claim: Callable[[], None] = lambda: None,
        vote: Callable[[], StepVerdict] = lambda: StepVerdict.FINE,
        refuse_nan: bool = False,
    ) -> StepResult:
        """Add the gradients of the mean loss over `batch`, of all ranks together, to the parameters' `.grad`.

        Args:
            batch: tensors of the same first dimension N ≥ 0, of at least one image on some rank.
            loss: see `Loss`.
            weight: sum of this rank's sample weights, what the sum of losses is divided by; N by default.
            scale: of a gradient scaler.
            claim: takes, before the vote, memory that is needed after it, such as the optimizer's.
            vote: what this rank has to say, asked when its chunks are done.
            refuse_nan: look at the loss (which waits for the device) and throw the step away if it is not finite.

        Raises:
            TooLargeError: on every rank alike; weights, statistics and random state are as they were.
            RunError: another rank failed or is gone.
        """
        if training_batchnorms(self.model) != self.batchnorm.layers:
            self.refresh()
        own = len(batch[0])
        said = self.world.all_gather([own, own if weight is None else weight])
        total, images = sum(weights for _, weights in said), int(sum(n for n, _ in said))
        reference = max(1, -(-images // self.world.size))  # the same on all ranks, so that they climb together

        def attempt(together: bool) -> StepAttempt:
            chunks = self._cut(own, reference, together)
            work = StepInputs(
                batch, chunks, total, self.scheduler.checkpointing, together, loss, scale, claim, refuse_nan
            )
            return StepAttempt(self.model, self.batchnorm, self.world, work)

        careful = self._unknown and device_of(self.model).type == "cpu"
        if careful:
            malloc.return_freed_memory()
        if not self._probed:
            self._probe(attempt, reference)
        together = self.sync_batch_norm and min(n for n, _ in said) >= self.scheduler.chunks(reference)
        done, verdict, retries = self._settle(lambda: attempt(together), reference, vote)
        if verdict is StepVerdict.NOT_A_NUMBER:
            done.undo()
        else:
            done.commit()
        chunks = self._cut(own, reference, together)
        outcome = StepResult(
            loss=done.loss, sums=done.sums, chunks=len(chunks), checkpointing=self.scheduler.checkpointing,
            retries=retries, verdict=verdict, images=images, weight=said[self.world.rank][1],
            exact=not self.batchnorm.layers
            or list(itertools.chain(*chunks)) == split_evenly(own, own if together else self.tile),
        )  # fmt: skip
        self.scheduler.succeed(reference, self._fits)
        if careful:
            malloc.retain_freed_memory()  # which they are not where memory ran out
        self._unknown = False
        return outcome

    def infer(self, batch: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The model's answers without gradients, in as many chunks as memory asks for; its mode is left as it is.

        Args:
            batch: (N, …), N ≥ 1.
            forward: a chunk → an answer for each of its rows; the model itself by default.

        Raises:
            TooLargeError: one row alone does not fit.
        """
        with torch.inference_mode():
            return infer_in_chunks(self.inference_scheduler, batch, forward or self.model, device_of(self.model))

    def _settle(
        self,
        attempt: Callable[[], StepAttempt],
        reference: int,
        vote: Callable[[], StepVerdict] = lambda: StepVerdict.FINE,
    ) -> tuple[StepAttempt, StepVerdict, int]:
        """Try until it goes through on every rank: the attempt, what was voted, and how often it had to be undone."""
        for retries in itertools.count():
            tried = attempt()
            try:
                verdict = StepVerdict(self.world.all_reduce_max(max(vote(), tried.ballot)))
            except BaseException:
                tried.undo()
                raise
            if verdict < StepVerdict.OUT_OF_MEMORY:
                return tried, verdict, retries
            tried.undo()
            problem = tried.problem
            if verdict is StepVerdict.FAILED:
                raise tried.error or LostRankError(
                    f"All {self.world.size} processes were expected to take this step.",
                    "Another one failed at it.",
                    "See what it said.",
                )
            del tried
            device = device_of(self.model)
            memory.release(device)
            self._failed_peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else -1
            self.retries += 1
            if not self.scheduler.fail(reference):
                size = self.scheduler.at_once(reference)
                raise memory.TooLargeError(
                    f"{size} of {reference} images at once were expected to fit into memory.",
                    f"They do not ({problem or 'on another rank'}).",
                    "Use smaller images, a smaller model, or a machine with more memory.",
                )
        raise AssertionError  # count() does not end

    def _cut(self, images: int, reference: int, together: bool) -> list[list[int]]:
        """Chunks as lists of tiles; together: as many on every rank."""
        if together:
            return [[size] for size in split_into(images, self.scheduler.chunks(reference))]
        if self.batchnorm.layers:
            return chunks_of_virtual_batches(images, self.tile, self.scheduler.at_once(reference))
        return [[size] for size in split_evenly(images, self.scheduler.at_once(reference))]

    def _probe(self, attempt: Callable[[bool], StepAttempt], reference: int) -> None:
        """Find what fits, with a margin and without collectives in the forward pass, where a rank alone can fail."""
        self._settle(lambda: attempt(False), reference)[0].undo()
        if self.scheduler.limit is not None:
            self.scheduler.limit = max(1, self.scheduler.floor, int(0.8 * self.scheduler.limit))
        self.scheduler.before = self.scheduler.failed = None
        self._probed = True

    def _fits(self, limit: int) -> bool:
        """Whether a GPU has room for chunks of `limit`, by what the last ones took; on a CPU one can only try."""
        if self.sync_batch_norm and self.batchnorm.layers:
            return False
        device = device_of(self.model)
        if device.type != "cuda":
            return True
        standing, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        if peak == self._failed_peak:  # that of a failed try, which says nothing of those that fit
            return True
        free, whole = torch.cuda.mem_get_info(device)
        cap = int(whole * torch.cuda.get_per_process_memory_fraction(device))
        room = min(cap, free + torch.cuda.memory_reserved(device))
        return standing + (peak - standing) * limit / (self.scheduler.limit or limit) < room
