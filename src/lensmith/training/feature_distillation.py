"""Feature distillation: a student's features compared with its teacher's, sample by sample, with nothing else to learn.

A *feature* is a number that a network's head is given; there are as many for each image as its last layer is wide.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lensmith.errors import ModelError
from lensmith.training.models.backbone import evaluating


@contextmanager
def feature_hook(head: nn.Module | None) -> Iterator[list[Tensor]]:
    """Collect the inputs of a head during the block; the hook is removed afterwards, so that no copy inherits it.

    Activation checkpointing makes no difference: it runs stages of the backbone again, never the head. Without a head
    nothing is collected.

    Yields:
        The features of each call so far, float32 (N, F), with gradients, after dropout.
    """
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda head, given: seen.append(_pooled(head, given[0]))) if head else None
    try:
        yield seen
    finally:
        if hook is not None:
            hook.remove()


def feature_width(model: nn.Module, head: nn.Module, image_size: int) -> int:
    """The number of features that `head` is given for an image; the model's modes stay as they are.

    Raises:
        ModelError: the head is never called, so that its features cannot be collected.
    """
    with evaluating(model), torch.no_grad(), feature_hook(head) as seen:
        model(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    if not seen:
        raise ModelError(
            "A backbone whose features go through its head was expected, to distil them.",
            f"{type(model).__name__} does not call its head.",
            "Choose another, or leave --feature-weight out.",
        )
    return seen[-1].shape[1]


class FeatureDistillation:
    """The distance of a student's features from its teacher's: 1 − the cosine between them, 0..2.

    The two are of different widths, so both are seen through random orthonormal projections, fixed by the seed. The
    teacher's preserves angles nearly (Johnson and Lindenstrauss, 1984). The student's is to a third of its width:
    features that are never negative, as after ReLU, can point anywhere only in a space of clearly less than half as
    many dimensions (Wendel, 1962).

    Source of the idea: Romero et al., FitNets, 2015, there with a projection that is learnt, and thrown away.

    Args:
        head: the teacher's last layer.
        own: number of the student's features.
        theirs: number of the teacher's features.
        weight: share of this distance in the loss, 0..1.
        seed: seed of the projections.
        device: the features' device.
    """

    def __init__(self, head: nn.Module, own: int, theirs: int, weight: float, seed: int, device: torch.device) -> None:
        self.head, self.weight = head, weight
        # On the CPU and in float64: the same on all ranks, and in a run that resumes on another device.
        generator = torch.Generator().manual_seed(seed)
        common = max(1, min(own // 3, theirs))
        self._own, self._theirs = (projection(wide, common, generator).to(device) for wide in (own, theirs))

    def distance(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Distances float32 (N,) of student features float32 (N, F) and teacher features float32 (N, G)."""
        return 1 - nn.functional.cosine_similarity(own @ self._own, theirs @ self._theirs, dim=1)


def projection(wide: int, narrow: int, generator: torch.Generator) -> Tensor:
    """A random projection with orthonormal columns: float32 of shape (wide, narrow), narrow ≤ wide."""
    drawn = torch.randn(wide, narrow, dtype=torch.float64, generator=generator)
    orthonormal: Tensor = torch.linalg.qr(drawn)[0]
    return orthonormal.float()


def _pooled(head: nn.Module, given: Tensor) -> Tensor:
    """A head's input as float32 (N, F); for a convolutional head, the mean over all positions."""
    rows = given.movedim(1, -1) if isinstance(head, nn.Conv2d) else given
    return rows.float() if rows.ndim == 2 else rows.float().flatten(1, -2).mean(1)
