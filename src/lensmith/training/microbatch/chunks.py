"""Where a batch is cut, and the way through a network without gradients, in as many chunks as memory asks for."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lensmith.training.microbatch import memory
from lensmith.training.microbatch.chunk_scheduler import Ladder
from lensmith.training.microbatch.onednn_workaround import unbroken


def cut(length: int, most: int) -> list[int]:
    """`length` in as few near-equal pieces as keep each within `most`; none where there is nothing."""
    return pieces(length, -(-length // most))


def pieces(length: int, number: int) -> list[int]:
    """`length` in `number` near-equal pieces, the larger ones first."""
    return [length // number + (place < length % number) for place in range(number)]


def cut_at_tiles(length: int, tile: int, most: int) -> list[list[int]]:
    """Chunks of at most `most` images, as few as can be, each a list of whole tiles; of a tile that is more, pieces."""
    tiles = cut(length, tile)
    if tiles and max(tiles) > most:
        return [[piece] for piece in cut(length, most)]
    number = -(-length // most)
    while sum(tiles[: -(-len(tiles) // max(1, number))]) > most:  # the first chunk, which is the largest
        number += 1
    counts = pieces(len(tiles), number)
    ends = list(itertools.accumulate(counts, initial=0))
    return [tiles[start:end] for start, end in itertools.pairwise(ends)]


def in_chunks(ladder: Ladder, batch: Tensor, forward: Callable[[Tensor], Tensor], device: torch.device) -> Tensor:
    """`forward` over a batch without gradients, in as many chunks as memory asks for.

    Args:
        ladder: remembers what fits; one for each use.
        batch: (N, …), N ≥ 1.
        forward: a chunk → an answer for each of its rows.
        device: where memory can run out.

    Returns:
        The answers of all N rows.

    Raises:
        TooLargeError: one row alone does not fit.
    """
    while True:
        answer, problem = _chunk_by_chunk(ladder, batch, forward)
        if answer is not None:
            ladder.succeed(len(batch))
            return answer
        memory.release(device)
        if not ladder.fail(len(batch)):
            raise memory.TooLargeError(
                f"{ladder.at_once(len(batch))} images at once were expected to fit into memory.",
                f"They do not ({problem}).",
                "Use smaller images, a smaller model, or a machine with more memory.",
            )


def _chunk_by_chunk(ladder: Ladder, batch: Tensor, forward: Callable[[Tensor], Tensor]) -> tuple[Tensor | None, str]:
    """The answers, or what ran out of memory: leaving `except` lets go of all tensors."""
    try:
        chunks = torch.split(batch, cut(len(batch), ladder.at_once(len(batch))))
        answers = unbroken(lambda: [forward(chunk) for chunk in chunks])
        return (torch.cat(answers) if len(answers) > 1 else answers[0]), ""
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None, memory.first_line(error)
