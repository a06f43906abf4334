"""Where a batch is cut, and the way through a network without gradients, in as many chunks as memory asks for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lensmith.training.microbatch import memory
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread


def split_evenly(length: int, most: int) -> list[int]:
    """`length` in as few near-equal pieces as keep each within `most`; none where there is nothing."""
    return split_into(length, -(-length // most))


def split_into(length: int, number: int) -> list[int]:
    """`length` in `number` near-equal pieces, the larger ones first."""
    return [length // number + (place < length % number) for place in range(number)]


def chunks_of_virtual_batches(length: int, tile: int, most: int) -> list[list[int]]:
    """Chunks of at most `most` images, as few as can be, each a list of whole tiles; of a tile that is more, pieces."""
    tiles = split_evenly(length, tile)
    if tiles and max(tiles) > most:
        return [[piece] for piece in split_evenly(length, most)]
    number = -(-length // most)
    while sum(tiles[: -(-len(tiles) // max(1, number))]) > most:  # the first chunk, which is the largest
        number += 1
    counts = split_into(len(tiles), number)
    ends = list(itertools.accumulate(counts, initial=0))
    return [tiles[start:end] for start, end in itertools.pairwise(ends)]


def infer_in_chunks(
    scheduler: ChunkScheduler, batch: Tensor, forward: Callable[[Tensor], Tensor], device: torch.device
) -> Tensor:
    """`forward` over a batch without gradients, in as many chunks as memory asks for.

    Args:
        scheduler: remembers what fits; one for each use.
        batch: (N, …), N ≥ 1.
        forward: a chunk → an answer for each of its rows.
        device: where memory can run out.

    Returns:
        The answers of all N rows.

    Raises:
        TooLargeError: one row alone does not fit.
    """
    while True:
        answer, problem = _chunk_by_chunk(scheduler, batch, forward)
        if answer is not None:
            scheduler.succeed(len(batch))
            return answer
        memory.release(device)
        if not scheduler.fail(len(batch)):
            raise memory.TooLargeError(
                f"{scheduler.at_once(len(batch))} images at once were expected to fit into memory.",
                f"They do not ({problem}).",
                "Use smaller images, a smaller model, or a machine with more memory.",
            )


def _chunk_by_chunk(
    scheduler: ChunkScheduler, batch: Tensor, forward: Callable[[Tensor], Tensor]
) -> tuple[Tensor | None, str]:
    """The answers, or what ran out of memory: leaving `except` lets go of all tensors."""
    try:
        chunks = torch.split(batch, split_evenly(len(batch), scheduler.at_once(len(batch))))
        answers = in_healthy_thread(lambda: [forward(chunk) for chunk in chunks])
        return (torch.cat(answers) if len(answers) > 1 else answers[0]), ""
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None, memory.first_line(error)
