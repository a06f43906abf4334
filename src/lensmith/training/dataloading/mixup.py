"""MixUp and CutMix: images and labels of a whole batch blended, or patched together, in pairs.

Random numbers are a pure function of (seed, step), so a resumed run mixes the same.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2


class Mixer:
    """MixUp or CutMix of batches; where both are on, a coin toss chooses for each batch.

    Sources: Zhang et al., mixup, 2018; Yun et al., CutMix, 2019; torchvision's, which pair an image with the one before
    it.

    Args:
        mixup: alpha of the Beta distribution from which MixUp draws shares; 0: no MixUp.
        cutmix: alpha of the Beta distribution from which CutMix draws the share of the patch; 0: no CutMix.
        classes: number of classes C.
    """

    def __init__(self, mixup: float, cutmix: float, classes: int) -> None:
        kinds = ((v2.MixUp, mixup), (v2.CutMix, cutmix))
        self._transforms = [kind(alpha=alpha, num_classes=classes) for kind, alpha in kinds if alpha > 0]

    def __call__(self, pictures: Tensor, labels: Tensor, seed: int, step: int) -> tuple[Tensor, Tensor]:
        """Mix a batch of at least one image.

        Args:
            pictures: float (N, 3, S, S), in any value range.
            labels: int64 (N,), class indices.
            seed: the run's seed.
            step: number of the step, 0-based.

        Returns:
            Images of the same dtype, shape and memory format, and targets float32 (N, C) whose rows sum to 1.
        """
        # A key far from those of epochs, which are smaller.
        random = np.random.Generator(np.random.Philox(key=(1 << 126) + (seed << 32) + step))
        transform = self._transforms[int(random.integers(len(self._transforms)))]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(random.integers(2**63)))
            mixed, targets = transform(pictures, labels)
        return mixed, targets
