"""Micro-batch step (gradient accumulation with out-of-memory retry): it happens wholly or not at all.

Memory only decides in how many chunks the batch goes through the network:

    batch ─► chunks ─► forward, backward ─► verdict ─► gradients added up over the ranks ─► optimizer
                 ▲                             │
                 └── all undone, more chunks ──┘ out of memory on any rank

Usable in any PyTorch loop:

    micro = MicroBatcher(model)
    for images, labels in loader:
        micro.backward((images, labels), lambda x, y: F.cross_entropy(model(x), y, reduction="sum"))
        optimizer.step()
        optimizer.zero_grad()
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lensmith.training.microbatch import malloc
from lensmith.training.microbatch.attempt import (
    Loss,
    StepAttempt,
    StepInputs,
    StepVerdict,
    device_of,
    set_checkpointing,
)  # fmt: skip
from lensmith.training.microbatch.batchnorm import GhostBatchNorm, training_batchnorms
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.chunks import (
    chunks_of_virtual_batches,
    infer_in_chunks,
    split_evenly,
    split_into,
    take_smaller_chunks,
)  # fmt: skip
from lensmith.training.microbatch.distributed import LostRankError, World


@dataclass(frozen=True)
class StepResult:
    """A finished step.

    Attributes:
        loss: float64 scalar on the device: this rank's share of the weighted mean loss over all ranks' images, which
            is the whole mean in a world of one.
        sums: further sums of the loss function, added up over this rank's chunks, in its dtype and shape; None where
            it returns none, and for a discarded step.
        chunks: number of chunks of this rank's batch.
        checkpointing: whether activations were computed again in the backward pass instead of stored.
        retries: number of attempts that ran out of memory before.
        verdict: FINE, SAVE, STOP, or NOT_A_NUMBER, whose gradients are discarded.
        images: number of images of all ranks; 0 where there was nothing to learn from.
        weight: sum of this rank's sample weights.
        exact: False where BatchNorm's virtual batches had to be split, so that the number of chunks changed the result.
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
    """Gradients of whole batches, computed in as many chunks as memory asks for.

    The gradients do not depend on the number of chunks: exactly so where BatchNorm is frozen or absent, and where it
    trains as long as a chunk holds a whole virtual batch (see `microbatch.batchnorm`). Dropout draws other numbers for
    another number of chunks.

    Args:
        model: network whose parameters and buffers a step changes. The loss function may use other networks, as long
            as it changes nothing in them.
        min_chunk: fewest images that go through at once.
        max_chunk: most images at once, even where memory would take more.
        tile: virtual batch, in images: how many BatchNorm normalises together where it trains.
        checkpointing: use of the model's activation checkpointing: `auto` (when chunks get small), `always`, `never`.
        world: ranks that step together.
        sync_batch_norm: whether BatchNorm shares statistics among all ranks where it trains.
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
        self._failed_peak = -1  # bytes: the peak when a GPU's memory last ran out
        self.inference_scheduler = ChunkScheduler()
        able = checkpointing != "never" and set_checkpointing(model, True)
        set_checkpointing(model, False)
        self.scheduler = ChunkScheduler(
            min_chunk, max_chunk, can_checkpoint=able and checkpointing == "auto",
            checkpointing=able and checkpointing == "always",
        )  # fmt: skip
        self._unknown = True  # whether it is unknown what fits
        self._probed = False  # whether SyncBatchNorm's chunks are known to fit
        self.refresh()

    def restart(self) -> None:
        """Forget what fits: image size, trainable layers or precision changed."""
        self._unknown = True
        self.scheduler.restart()
        self.inference_scheduler.restart()
        self.refresh()

    def refresh(self) -> None:
        """Look up which BatchNorm layers train now."""
        group = torch.distributed.group.WORLD if self.sync_batch_norm else None
        self.batchnorm = GhostBatchNorm(self.model, group)
        # Below a virtual batch BatchNorm's result changes, and checkpointing is the smaller evil. A CPU computes few
        # images nearly as fast as many, while checkpointing takes half as long again.
        few = 8 if device_of(self.model).type == "cuda" else 1
        self.scheduler.checkpoint_below = self.tile if self.batchnorm.layers else few
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
        """Add the gradients of the mean loss over the batch, of all ranks together, to the parameters' `.grad`.

        Args:
            batch: tensors of any dtype and shape (N, …) with the same N ≥ 0, N ≥ 1 on some rank.
            loss: loss function of a chunk, see `Loss`.
            weight: sum of this rank's sample weights, what the sum of losses is divided by; N by default.
            scale: gradient scaler's `scale`.
            claim: allocates, before the verdict, memory that is needed after it, such as the optimizer's.
            vote: this rank's wish to save or stop, asked for when its chunks are done.
            refuse_nan: whether to check the loss (which waits for the device) and discard the step if it is not finite.

        Raises:
            TooLargeError: on every rank alike; weights, statistics and random state are as they were.
            RunError: another rank failed or is gone.
        """
        if training_batchnorms(self.model) != self.batchnorm.layers:
            self.refresh()
        own = len(batch[0])
        gathered = self.world.all_gather([own, own if weight is None else weight])
        total, images = sum(weights for _, weights in gathered), int(sum(n for n, _ in gathered))
        reference = max(1, -(-images // self.world.size))  # the same on all ranks, so that they schedule alike

        def attempt(synchronized: bool) -> StepAttempt:
            chunks = self._split(own, reference, synchronized)
            checkpointing = self.scheduler.checkpointing
            inputs = StepInputs(batch, chunks, total, checkpointing, synchronized, loss, scale, claim, refuse_nan)
            return StepAttempt(self.model, self.batchnorm, self.world, inputs)

        careful = self._unknown and device_of(self.model).type == "cpu"
        if careful:
            malloc.return_freed_memory()
        if not self._probed:
            self._probe(attempt, reference)
        synchronized = self.sync_batch_norm and min(n for n, _ in gathered) >= self.scheduler.chunks(reference)
        done, verdict, retries = self._retry_out_of_memory(lambda: attempt(synchronized), reference, vote)
        if verdict is StepVerdict.NOT_A_NUMBER:
            done.undo()
        else:
            done.commit()
        chunks = self._split(own, reference, synchronized)
        virtual_batches = split_evenly(own, own if synchronized else self.tile)
        result = StepResult(
            loss=done.loss, sums=done.sums, chunks=len(chunks), checkpointing=self.scheduler.checkpointing,
            retries=retries, verdict=verdict, images=images, weight=gathered[self.world.rank][1],
            exact=not self.batchnorm.layers or list(itertools.chain(*chunks)) == virtual_batches,
        )  # fmt: skip
        self.scheduler.on_success(reference, self._fits)
        if careful:
            malloc.retain_freed_memory()  # has no effect where memory ran out
        self._unknown = False
        return result

    def infer(self, batch: Tensor, forward: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """Run the model without gradients, in as many chunks as memory asks for, in whatever mode it is.

        Args:
            batch: any dtype (N, …), N ≥ 1.
            forward: a chunk (n, …) → its outputs (n, …); the model itself by default.

        Raises:
            TooLargeError: one row alone does not fit.
        """
        with torch.inference_mode():
            return infer_in_chunks(self.inference_scheduler, batch, forward or self.model, device_of(self.model))

    def _retry_out_of_memory(
        self,
        attempt: Callable[[], StepAttempt],
        reference: int,
        vote: Callable[[], StepVerdict] = lambda: StepVerdict.FINE,
    ) -> tuple[StepAttempt, StepVerdict, int]:
        """Attempt a step until memory suffices on every rank: the attempt, the ranks' verdict, number of retries."""
        for retries in itertools.count():
            tried = attempt()
            try:
                verdict = StepVerdict(self.world.all_reduce_max(max(vote(), tried.verdict)))
            except BaseException:
                tried.undo()
                raise
            if verdict < StepVerdict.OUT_OF_MEMORY:
                return tried, verdict, retries
            tried.undo()
            problem = tried.problem
            if verdict is StepVerdict.FAILED:
                raise tried.error or LostRankError(
                    f"All {self.world.size} ranks were expected to take this step.",
                    "Another rank failed at it.",
                    "See that rank's output.",
                )
            del tried
            device = device_of(self.model)
            self._failed_peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else -1
            self.retries += 1
            take_smaller_chunks(self.scheduler, reference, device, problem or "on another rank")
        raise AssertionError  # count() does not end

    def _split(self, images: int, reference: int, synchronized: bool) -> list[list[int]]:
        """For each chunk the sizes of its virtual batches; synchronized: as many chunks on every rank."""
        if synchronized:
            return [[size] for size in split_into(images, self.scheduler.chunks(reference))]
        most = self.scheduler.chunk_size(reference)
        if self.batchnorm.layers:
            return chunks_of_virtual_batches(images, self.tile, most)
        return [[size] for size in split_evenly(images, most)]

    def _probe(self, attempt: Callable[[bool], StepAttempt], reference: int) -> None:
        """Find what fits, with a margin and without collectives in the forward pass, where a rank alone can fail."""
        self._retry_out_of_memory(lambda: attempt(False), reference)[0].undo()
        if self.scheduler.limit is not None:
            self.scheduler.limit = max(1, self.scheduler.min_chunk, int(0.8 * self.scheduler.limit))
        self.scheduler.before = self.scheduler.failed = None
        self._probed = True

    def _fits(self, limit: int) -> bool:
        """Whether a GPU has room for chunks of `limit` images, judging by the last ones; a CPU has to try."""
        if self.sync_batch_norm and self.batchnorm.layers:
            return False
        device = device_of(self.model)
        if device.type != "cuda":
            return True
        current, peak = torch.cuda.memory_allocated(device), torch.cuda.max_memory_allocated(device)
        if peak == self._failed_peak:  # the peak of a failed attempt says nothing about chunks that fit
            return True
        free, whole = torch.cuda.mem_get_info(device)
        cap = int(whole * torch.cuda.get_per_process_memory_fraction(device))
        room = min(cap, free + torch.cuda.memory_reserved(device))
        return current + (peak - current) * limit / (self.scheduler.limit or limit) < room
