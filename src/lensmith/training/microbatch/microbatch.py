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
from lensmith.training.microbatch.attempt import Attempt, Loss, Verdict, Work, device_of, set_checkpointing
from lensmith.training.microbatch.batchnorm import Tiles, learning_norms
from lensmith.training.microbatch.chunk_scheduler import Ladder
from lensmith.training.microbatch.chunks import cut, cut_at_tiles, in_chunks, pieces
from lensmith.training.microbatch.distributed import LostRankError, World


@dataclass(frozen=True)
class Outcome:
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
    verdict: Verdict
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
        self.inference = Ladder()
        able = checkpointing != "never" and set_checkpointing(model, True)
        set_checkpointing(model, False)
        self.ladder = Ladder(
            floor=min_chunk, ceiling=max_chunk, can_checkpoint=able and checkpointing == "auto",
            checkpointing=able and checkpointing == "always",
        )  # fmt: skip
        self.restart()

    def restart(self) -> None:
        """Take note that the image size, what learns, or the precision has changed: what fits is found anew."""
        self._unknown = True
        self.ladder.restart()
        self.inference.restart()
        self.refresh()

    def refresh(self) -> None:
        """Look which BatchNorm layers learn now."""
        self.tiles = Tiles(self.model, torch.distributed.group.WORLD if self.sync_batch_norm else None)
        # Below a tile BatchNorm's result changes, and checkpointing is the smaller evil. A CPU computes few images
        # nearly as fast as many, and everything twice in half as much time again.
        few = 8 if device_of(self.model).type == "cuda" else 1
        self.ladder.gentle = self.tile if self.tiles.norms else few
        self._probed = not (self.sync_batch_norm and self.tiles.norms)

    def backward(
        self,
        batch: Sequence[Tensor],
        loss: Loss,
        *,
        weight: float | None = None,
        scale: Callable[[Tensor], Tensor] = lambda loss: loss,
        claim: Callable[[], None] = lambda: None,
        vote: Callable[[], Verdict] = lambda: Verdict.FINE,
        refuse_nan: bool = False,
    ) -> Outcome:
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
        if learning_norms(self.model) != self.tiles.norms:
            self.refresh()
        own = len(batch[0])
        said = self.world.tell([own, own if weight is None else weight])
        total, images = sum(weights for _, weights in said), int(sum(n for n, _ in said))
        reference = max(1, -(-images // self.world.size))  # the same on all ranks, so that they climb together

        def attempt(together: bool) -> Attempt:
            chunks = self._cut(own, reference, together)
            work = Work(batch, chunks, total, self.ladder.checkpointing, together, loss, scale, claim, refuse_nan)
            return Attempt(self.model, self.tiles, self.world, work)

        careful = self._unknown and device_of(self.model).type == "cpu"
        if careful:
            malloc.apart()
        if not self._probed:
            self._probe(attempt, reference)
        together = self.sync_batch_norm and min(n for n, _ in said) >= self.ladder.chunks(reference)
        done, verdict, retries = self._settle(lambda: attempt(together), reference, vote)
        if verdict is Verdict.NOT_A_NUMBER:
            done.undo()
        else:
            done.commit()
        chunks = self._cut(own, reference, together)
        outcome = Outcome(
            loss=done.loss, sums=done.sums, chunks=len(chunks), checkpointing=self.ladder.checkpointing,
            retries=retries, verdict=verdict, images=images, weight=said[self.world.rank][1],
            exact=not self.tiles.norms or list(itertools.chain(*chunks)) == cut(own, own if together else self.tile),
        )  # fmt: skip
        self.ladder.succeed(reference, self._fits)
        if careful:
            malloc.kept()  # which they are not where memory ran out
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
            return in_chunks(self.inference, batch, forward or self.model, device_of(self.model))

    def _settle(
        self,
        attempt: Callable[[], Attempt],
        reference: int,
        vote: Callable[[], Verdict] = lambda: Verdict.FINE,
    ) -> tuple[Attempt, Verdict, int]:
        """Try until it goes through on every rank: the attempt, what was voted, and how often it had to be undone."""
        for retries in itertools.count():
            tried = attempt()
            try:
                verdict = Verdict(self.world.vote(max(vote(), tried.ballot)))
            except BaseException:
                tried.undo()
                raise
            if verdict < Verdict.OUT_OF_MEMORY:
                return tried, verdict, retries
            tried.undo()
            problem = tried.problem
            if verdict is Verdict.FAILED:
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
            if not self.ladder.fail(reference):
                size = self.ladder.at_once(reference)
                raise memory.TooLargeError(
                    f"{size} of {reference} images at once were expected to fit into memory.",
                    f"They do not ({problem or 'on another rank'}).",
                    "Use smaller images, a smaller model, or a machine with more memory.",
                )
        raise AssertionError  # count() does not end

    def _cut(self, images: int, reference: int, together: bool) -> list[list[int]]:
        """Chunks as lists of tiles; together: as many on every rank."""
        if together:
            return [[size] for size in pieces(images, self.ladder.chunks(reference))]
        if self.tiles.norms:
            return cut_at_tiles(images, self.tile, self.ladder.at_once(reference))
        return [[size] for size in cut(images, self.ladder.at_once(reference))]

    def _probe(self, attempt: Callable[[bool], Attempt], reference: int) -> None:
        """Find what fits, with a margin and without collectives in the forward pass, where a rank alone can fail."""
        self._settle(lambda: attempt(False), reference)[0].undo()
        if self.ladder.limit is not None:
            self.ladder.limit = max(1, self.ladder.floor, int(0.8 * self.ladder.limit))
        self.ladder.before = self.ladder.failed = None
        self._probed = True

    def _fits(self, limit: int) -> bool:
        """Whether a GPU has room for chunks of `limit`, by what the last ones took; on a CPU one can only try."""
        if self.sync_batch_norm and self.tiles.norms:
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
        return standing + (peak - standing) * limit / (self.ladder.limit or limit) < room
