"""Features of a student held against its teacher's, sample by sample, without anything that is learnt besides.

A *feature* is a number that a network's head is given; there are as many for each image as its last layer is wide.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lensmith.errors import ModelError


@contextmanager
def tapped(head: nn.Module | None) -> Iterator[list[Tensor]]:
    """See what a head is given while this lasts; nothing is left on the network that a copy could take along.

    Activation checkpointing makes no difference: it runs stages of the backbone again, never the head.

    Args:
        head: None: nothing is looked at.

    Yields:
        Float32 (N, F) of each call so far, with its gradients: as the head gets them, so after dropout.
    """
    seen: list[Tensor] = []
    hook = head.register_forward_pre_hook(lambda head, given: seen.append(_pooled(head, given[0]))) if head else None
    try:
        yield seen
    finally:
        if hook is not None:
            hook.remove()


def width(model: nn.Module, head: nn.Module, image_size: int) -> int:
    """How many features `head` is given for an image; the model is left as it is.

    Raises:
        ModelError: the head is never called, so that nothing can be seen of them.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        with torch.no_grad(), tapped(head) as seen:
            model.eval()(torch.zeros(1, 3, image_size, image_size, device=next(model.parameters()).device))
    finally:
        for module, training in modes.items():
            module.training = training
    if not seen:
        raise ModelError(
            "A backbone whose features go through its head was expected, to match them.",
            f"{type(model).__name__} does not call its head.",
            "Choose another, or leave --feature-weight out.",
        )
    return seen[-1].shape[1]


class Matching:
    """How far a student's features are from its teacher's: 1 − the cosine between them, 0..2.

    The two are of different widths, so both are seen through random orthonormal projections, fixed by the seed. The
    teacher's keeps angles nearly (Johnson and Lindenstrauss, 1984). The student's is to a third of its width: features
    that are never negative, as after ReLU, can point anywhere only in a space of clearly less than half as many
    dimensions (Wendel, 1962).

    Source of the idea: Romero et al., FitNets, 2015, there with a projection that is learnt, and thrown away.

    Args:
        head: the teacher's.
        own: features of the student.
        theirs: features of the teacher.
        weight: share of the loss, 0..1.
        seed: of the projections.
        device: where the features will be.
    """

    def __init__(self, head: nn.Module, own: int, theirs: int, weight: float, seed: int, device: torch.device) -> None:
        self.head, self.weight = head, weight
        # On the CPU and in float64: all ranks have the same, and so has a run that goes on elsewhere.
        generator = torch.Generator().manual_seed(seed)
        common = max(1, min(own // 3, theirs))
        self._own, self._theirs = (projection(wide, common, generator).to(device) for wide in (own, theirs))

    def apart(self, own: Tensor, theirs: Tensor) -> Tensor:
        """Float32 (N, F) of the student and (N, G) of the teacher → (N,); no sample's depends on another."""
        return 1 - nn.functional.cosine_similarity(own @ self._own, theirs @ self._theirs, dim=1)


def projection(wide: int, narrow: int, generator: torch.Generator) -> Tensor:
    """Float32 (wide, narrow) with orthonormal columns, narrow ≤ wide."""
    drawn = torch.randn(wide, narrow, dtype=torch.float64, generator=generator)
    orthonormal: Tensor = torch.linalg.qr(drawn)[0]
    return orthonormal.float()


def _pooled(head: nn.Module, given: Tensor) -> Tensor:
    """What a head is given, as float32 (N, F): where it answers to each place, the mean over all."""
    rows = given.movedim(1, -1) if isinstance(head, nn.Conv2d) else given
    return rows.float() if rows.ndim == 2 else rows.float().flatten(1, -2).mean(1)
