"""Prefetch: the next batch is copied to the GPU while the current one is trained on."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, pairwise

import torch

from lensmith.training.dataloading.dataset import Batch, Batches


def prefetch(batches: Batches, device: torch.device) -> Iterator[Batch]:
    """Yield the same batches with images and factors on the device, copied on a stream of their own.

    Labels stay on the CPU, since reading them would wait for the GPU. A batch that does not fit into memory beside the
    current one stays on the CPU, too, for the step to copy it.

    Args:
        batches: batches in pinned memory, as copies of others wait.
        device: the device that trains.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    started = (_started(batch, device, stream) for batch in batches)
    for batch, _ in pairwise(chain(started, [None])):  # the next one is started before this one is used
        if batch is not None:
            yield _arrived(batch, device, stream)


def _started(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> Batch:
    try:
        with torch.cuda.stream(stream):
            images = batch.images.to(device, non_blocking=True)
            return replace(batch, images=images, factors=batch.factors.to(device, non_blocking=True))
    except torch.OutOfMemoryError:
        return batch


def _arrived(batch: Batch, device: torch.device, stream: torch.cuda.Stream) -> Batch:
    now = torch.cuda.current_stream(device)
    now.wait_stream(stream)
    for tensor in (batch.images, batch.factors):
        if tensor.is_cuda:
            tensor.record_stream(now)  # its memory is not reused before the step has read it
    return batch
