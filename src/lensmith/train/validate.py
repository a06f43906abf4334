"""A torch model over the images of one part, through the same preprocessing as the service."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.utils.data import DataLoader

from lensmith.errors import DataError
from lensmith.train.dataset import Batch


@dataclass(frozen=True)
class Answers:
    """What a model said.

    Attributes:
        logits: float32 (N, C) on the CPU.
        labels: int64 (N,).
        indices: which samples the rows are.
        unreadable: (path, reason) of samples left out.
    """

    logits: torch.Tensor
    labels: torch.Tensor
    indices: list[int]
    unreadable: list[tuple[str, str]]

    @property
    def loss(self) -> float:
        """Mean cross-entropy in nats, without label smoothing."""
        return nn.functional.cross_entropy(self.logits, self.labels).item()

    @property
    def accuracy(self) -> float:
        """Share of samples whose likeliest class is right."""
        return (self.logits.argmax(1) == self.labels).float().mean().item()


def answers(
    model: nn.Module,
    batches: DataLoader[Batch],
    device: torch.device,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> Answers:
    """Run `model` in evaluation mode and full precision over `batches`; its mode is put back afterwards.

    Args:
        model: float32 (N, 3, S, S) → logits (N, C).
        batches: a loader whose dataset does not augment.
        device: where the model is.
        watch: told the batches done and their number.

    Raises:
        DataError: not one image can be read.
    """
    modes = {module: module.training for module in model.modules()}
    logits, labels, indices, unreadable = [], [], [], []
    try:
        model.eval()
        with torch.inference_mode():
            for done, batch in enumerate(batches, start=1):
                unreadable += batch.unreadable
                if len(batch.labels):
                    images = batch.images.to(device, non_blocking=True, memory_format=torch.channels_last)
                    logits.append(model(images).float().cpu())
                    labels.append(batch.labels)
                    indices += batch.indices
                watch(done, len(batches))
    finally:
        for module, training in modes.items():
            module.training = training
    if not logits:
        path, reason = unreadable[0]
        raise DataError(
            "Images that can be read were expected, to judge the model by.",
            f"None of {len(unreadable):,} can; the first, {path}: {reason}",
            "Replace or remove them; `lensmith data check DIR` says what is wrong with each.",
        )
    return Answers(torch.cat(logits), torch.cat(labels), indices, unreadable)
