"""The next batch on its way to the GPU while the last one is worked on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from lensmith.training.dataloading.dataset import Batch, Batches


def prefetch(batches: Batches, device: torch.device) -> Iterator[Batch]:
    """The same batches; on a GPU their pictures and factors are there, copied on a stream of their own.

    Labels stay where they are, since looking at them would wait for the GPU. A batch that there is no room for besides
    the one under way stays on the CPU, and is copied when its turn comes.

    Args:
        batches: from pinned memory, else copies wait.
        device: where they are used.
    """
    if device.type != "cuda":
        yield from batches
        return
    stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    waiting: Batch | None = None
    for batch in batches:
        coming = _started(batch, device, stream)
        if waiting is not None:
            yield _arrived(waiting, device, stream)
        waiting = coming
    if waiting is not None:
        yield _arrived(waiting, device, stream)


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
            tensor.record_stream(now)  # its memory is not given away before it was used
    return batch
