"""Chunk sizes of a batch, and inference in chunks with an out-of-memory retry."""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor

from lensmith.core.text import first_line
from lensmith.training.microbatch import memory
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.onednn_workaround import in_healthy_thread


def split_evenly(length: int, most: int) -> list[int]:
    """Near-equal sizes that sum to `length`, as few as keep each within `most`; an empty list for length 0."""
    return split_into(length, -(-length // most))


def split_into(length: int, number: int) -> list[int]:
    """`number` near-equal sizes that sum to `length`, the larger ones first."""
    return [length // number + (index < length % number) for index in range(number)]


def chunks_of_virtual_batches(length: int, virtual_batch: int, most: int) -> list[list[int]]:
    """Sizes of the virtual batches in each chunk, with as few chunks as possible.

    Args:
        length: images in the batch.
        virtual_batch: images that BatchNorm normalises together, at most.
        most: images in a chunk, at most; where that is less than a virtual batch, each chunk is one smaller than that.
    """
    sizes = split_evenly(length, virtual_batch)
    if sizes and max(sizes) > most:
        return [[size] for size in split_evenly(length, most)]
    number = -(-length // most)
    while sum(sizes[: -(-len(sizes) // max(1, number))]) > most:  # the first chunk, which is the largest
        number += 1
    ends = list(itertools.accumulate(split_into(len(sizes), number), initial=0))
    return [sizes[start:end] for start, end in itertools.pairwise(ends)]


def infer_in_chunks(
    scheduler: ChunkScheduler, batch: Tensor, forward: Callable[[Tensor], Tensor], device: torch.device
) -> Tensor:
    """Run `forward` over a batch in as many chunks as memory asks for.

    Args:
        scheduler: knows what fits; one for each use.
        batch: any dtype (N, …), N ≥ 1.
        forward: a chunk (n, …) → its outputs (n, …).
        device: the device whose memory can run out.

    Returns:
        The outputs of all N rows, in the dtype and shape that `forward` gives them.

    Raises:
        TooLargeError: one row alone does not fit.
    """
    while True:
        outputs, problem = _chunk_by_chunk(scheduler, batch, forward)
        if outputs is not None:
            scheduler.on_success(len(batch))
            return outputs
        take_smaller_chunks(scheduler, len(batch), device, problem)


def take_smaller_chunks(scheduler: ChunkScheduler, images: int, device: torch.device, problem: str) -> None:
    """Release unused memory and schedule smaller chunks, after memory ran out on a batch of `images`.

    Raises:
        TooLargeError: nothing smaller is left to try.
    """
    memory.release(device)
    if not scheduler.on_out_of_memory(images):
        raise memory.TooLargeError(
            f"{scheduler.chunk_size(images)} of {images} images at once were expected to fit into memory.",
            f"They do not ({problem}).",
            "Use smaller images, a smaller model, or a machine with more memory.",
        )


def _chunk_by_chunk(
    scheduler: ChunkScheduler, batch: Tensor, forward: Callable[[Tensor], Tensor]
) -> tuple[Tensor | None, str]:
    """The outputs, or the message of an out-of-memory error, without the error itself, which would pin tensors."""
    try:
        chunks = torch.split(batch, split_evenly(len(batch), scheduler.chunk_size(len(batch))))
        outputs = in_healthy_thread(lambda: [forward(chunk) for chunk in chunks])
        return (torch.cat(outputs) if len(outputs) > 1 else outputs[0]), ""
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None, first_line(error)
