"""MixUp and CutMix: pictures and labels of a whole batch blended or patched together in pairs.

What is random is a pure function of (seed, step), so a resumed run mixes the same.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


class Mixer:
    """Mixes each batch one way; with both, a coin says which.

    Sources: Zhang et al., mixup, 2018; Yun et al., CutMix, 2019; torchvision's, which pair a picture with the one
    before it.

    Args:
        mixup: alpha of the Beta distribution that shares are drawn from; 0: no MixUp.
        cutmix: the same for the area of the patch; 0: no CutMix.
        classes: C.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        self._ways = [
            kind(alpha=alpha, num_classes=classes)
            for kind, alpha in ((v2.MixUp, mixup), (v2.CutMix, cutmix))
            if alpha > 0
        ]
        if not self._ways:
            raise ValueError("neither mixup nor cutmix is above 0")

    def __call__(self, pictures: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Mix a batch of at least one picture.

        Args:
            pictures: float (N, 3, S, S).
            labels: int64 (N,).
            seed: of the run.
            step: 0-based.

        Returns:
            Pictures of the same shape and memory format, and targets float32 (N, C) whose rows sum to 1.
        """
        # A key of its own: those of epochs, which count below it, stay far away.
        random = np.random.Generator(np.random.Philox(key=(1 << 126) + (seed << 32) + step))
        way = self._ways[int(random.integers(len(self._ways)))]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            mixed, targets = way(pictures, labels)
        return mixed, targets
