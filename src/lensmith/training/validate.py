"""Validation: a torch model over the images of one part, through the same preprocessing as the service."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from lensmith.errors import DataError
from lensmith.evaluation.confidence import supported_confidence
from lensmith.evaluation.metrics import measure
from lensmith.training.dataloading.dataset import Batches
from lensmith.training.microbatch.chunk_scheduler import ChunkScheduler
from lensmith.training.microbatch.chunks import infer_in_chunks
from lensmith.training.microbatch.distributed import World
from lensmith.training.models.backbone import evaluating
from lensmith.training.precision import full_fp32


@dataclass(frozen=True)
class ModelOutputs:
    """A model's logits for one part.

    Attributes:
        logits: float32 (N, C) on the CPU.
        labels: int64 (N,).
        indices: sample numbers of the N rows.
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
    def smoothed_loss(self) -> float:
        """Mean cross-entropy in nats, with targets that leave each label the doubt that so many images leave.

        To search candidates by: where no answer is wrong the plain loss falls with every growth of confidence, so that
        the most extreme candidate would win. Source: Platt, Probabilistic Outputs for Support Vector Machines, 1999.
        """
        classes = self.logits.shape[1]
        doubt = 1 - supported_confidence(len(self.labels))
        smoothing = min(1.0, doubt * classes / max(1, classes - 1))  # of which torch gives the true class its share
        return nn.functional.cross_entropy(self.logits, self.labels, label_smoothing=smoothing).item()

    @property
    def accuracy(self) -> float:
        """Share of samples whose likeliest class is correct, 0..1."""
        return (self.logits.argmax(1) == self.labels).float().mean().item()

    def score(self, monitor: str) -> float:
        """The score by the setting `monitor` (loss, accuracy, balanced_accuracy or f1); more is better."""
        if monitor in ("loss", "accuracy"):
            return self.accuracy if monitor == "accuracy" else -self.loss
        found = measure(self.labels.numpy(), self.logits.softmax(1).numpy())
        return found.f1_macro if monitor == "f1" else found.balanced_accuracy


def compute_outputs(
    model: nn.Module,
    batches: Batches,
    device: torch.device,
    watch: Callable[[int, int], None] = lambda done, total: None,
    scheduler: ChunkScheduler | None = None,
    world: World | None = None,
) -> ModelOutputs:
    """Run `model` in evaluation mode and full precision over `batches`; its mode is put back afterwards.

    A batch that does not fit into memory goes through in chunks.

    Args:
        model: float32 (N, 3, S, S), or features (N, …), → logits (N, C).
        batches: unaugmented images or features.
        device: the model's device.
        watch: called with the number of batches done, and of all batches.
        scheduler: the chunk scheduler, which knows from earlier calls how much fits.
        world: the ranks that have a share of each batch, whose logits are put together.

    Raises:
        DataError: not one image can be read.
        TooLargeError: one image alone does not fit into memory.
    """
    scheduler, world = scheduler or ChunkScheduler(), world or World()

    def forward(images: torch.Tensor) -> torch.Tensor:
        """Inputs (N, …) of any dtype → logits float32 (N, C) on the CPU."""
        layout = torch.channels_last if images.ndim == 4 else torch.preserve_format
        answer: torch.Tensor = model(images.to(device, torch.float32, non_blocking=True, memory_format=layout))
        return answer.float().cpu()

    logits, labels, indices, unreadable = [], [], [], []
    with evaluating(model), torch.inference_mode(), full_fp32():
        for done, batch in enumerate(batches, start=1):
            unreadable += batch.unreadable
            if len(batch.labels):
                logits.append(infer_in_chunks(scheduler, batch.images, forward, device))
                labels.append(batch.labels)
                indices += batch.indices
            watch(done, len(batches))
    own = (torch.cat(logits), torch.cat(labels)) if logits else None
    ranks = world.all_gather_object((own, indices, unreadable))
    unreadable = [error for *_, errors in ranks for error in errors]
    if all(answered is None for answered, *_ in ranks):
        path, reason = unreadable[0]
        raise DataError(
            "Images that can be read were expected, to evaluate the model on.",
            f"None of {len(unreadable):,} can; the first, {path}: {reason}",
            "Replace or remove them; `lensmith data check DIR` says what is wrong with each.",
        )
    indices = [index for _, part, _ in ranks for index in part]
    order = sorted(range(len(indices)), key=indices.__getitem__)  # the same however many ranks there are
    all_logits, all_labels = (
        torch.cat([answered[number] for answered, *_ in ranks if answered is not None])[order] for number in (0, 1)
    )
    return ModelOutputs(all_logits, all_labels, [indices[row] for row in order], unreadable)
