"""The forward pass of a training step: mixed precision, memory layout, and where in the network the inputs enter."""

import torch
from torch import Tensor, nn

from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training import precision
from lensmith.training.feature_cache.split_model import SplitPoint


class ForwardPass:
    """A network as a phase runs it: on images, or on features that enter behind its frozen layers.

    Args:
        model: the network, on the device; float32 (N, 3, S, S), normalised → logits (N, C).
        preprocessing: the run's preprocessing, whose mean and std normalise the images.

    Attributes:
        precision: the number format of mixed precision: fp32, bf16 or fp16.
        layout: the memory format of images and weights.
        input_shape: the shape of one input: (3, S, S), or that of one image's features.
        tail: the trainable tail that features enter; None: the whole network, on images.
    """

    def __init__(self, model: nn.Module, preprocessing: Preprocessing, device: torch.device) -> None:
        self.model, self.device = model, device
        self.precision, self.layout = "fp32", torch.channels_last
        self.input_shape: tuple[int, ...] = (3, preprocessing.image_size, preprocessing.image_size)
        self.tail: nn.Module | None = None
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(preprocessing.std, device=device).view(1, 3, 1, 1)

    def enter_at(self, split_point: SplitPoint | None, image_size: int) -> None:
        """Choose where inputs enter: features at a split point, or images of `image_size` pixels a side."""
        self.tail = None if split_point is None else split_point.trainable_tail(self.model)
        self.input_shape = (3, image_size, image_size) if split_point is None else split_point.shape

    def use(self, chosen: str, layout: str) -> None:
        """Compute at a precision (fp32, bf16 or fp16) and in a memory layout (channels_last or channels_first)."""
        self.precision = chosen
        if self.layout != precision.LAYOUTS[layout]:
            self.layout = precision.LAYOUTS[layout]
            self.model.to(memory_format=self.layout)

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits (N, C), in the dtype of the precision.

        Args:
            inputs: float32 (N, 3, S, S) in 0..1, not normalised; or features (N, *input_shape).
        """
        with precision.autocast(self.device, self.precision):
            if self.tail is None:
                logits: Tensor = self.model((inputs - self._mean).div_(self._std))
            else:
                if hasattr(self.model, "grad_checkpointing"):  # the tail has a flag of its own
                    self.tail.grad_checkpointing = self.model.grad_checkpointing
                logits = self.tail(inputs)
        return logits
