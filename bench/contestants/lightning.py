"""Lightning with its own fine-tuning callback.

Settings, from the documents: "Transfer Learning" (the feature extractor in evaluation mode) and the fine-tuning example
of its repository (a `BaseFinetuning` that freezes without `train_bn`, Adam 1e-3); "Speed Up Model Training" (as many
workers as cores, persistent); "N-Bit Precision" (`bf16-mixed`, here where bfloat16 is the faster format). A checkpoint
each epoch is the Trainer's own default. The ready-made `BackboneFinetuning` would go on training BatchNorm all through
the backbone, which is not the task, and pay for it.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import BaseFinetuning
from torch import Tensor, nn
from torch.utils.data import DataLoader

from contestants.shared import folder, network
from contestants.task import Clock, Task


class Classifier(LightningModule):
    """A backbone without its head, which the callback freezes, and the head."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.backbone = network(task)
        self.head = self.backbone.get_classifier()
        self.backbone.reset_classifier(0)
        if task.frozen:
            self.backbone.eval()  # the Trainer keeps the mode that a module has

    def forward(self, images: Tensor) -> Tensor:
        """Float (N, 3, S, S) → logits (N, C)."""
        return self.head(self.backbone(images))

    def training_step(self, batch: Any, _: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        loss = nn.functional.cross_entropy(self(images), labels)
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        """Loss and accuracy of a batch; Lightning takes the mean over images."""
        images, labels = batch
        logits = self(images)
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True)
        self.log("val_acc", (logits.argmax(1) == labels).float().mean(), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Adam over the trainable parameters."""
        return torch.optim.Adam((one for one in self.parameters() if one.requires_grad), lr=1e-3)


class Frozen(BaseFinetuning):
    """The head is trained alone, from the first epoch to the last."""

    def freeze_before_training(self, pl_module: Any) -> None:
        """All of the backbone, with its BatchNorm."""
        self.freeze(pl_module.backbone, train_bn=False)

    def finetune_function(self, *_: Any) -> None:
        """Nothing is ever unfrozen."""


class Report(Callback):
    """Reports epochs to the clock."""

    def __init__(self, clock: Clock, images: int) -> None:
        self.clock, self.images = clock, images

    def on_train_epoch_start(self, *_: Any) -> None:
        """Training begins."""
        self.clock.begin()

    def on_validation_start(self, *_: Any) -> None:
        """Training ends: validation runs inside its epoch."""
        self.clock.end(self.images)

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Validation ends."""
        self.clock.epoch(float(trainer.callback_metrics["val_acc"]))


def run(task: Task, clock: Clock) -> nn.Module:
    """Train as the task says."""
    seed_everything(task.seed, verbose=False)
    train, val = folder(task, "train"), folder(task, "val")
    how: dict[str, Any] = {
        "batch_size": task.batch_size,
        "num_workers": task.workers,
        "persistent_workers": True,
        "pin_memory": task.device == "cuda",
    }
    callbacks: list[Callback] = [Report(clock, len(train))]
    if task.frozen:
        callbacks.append(Frozen())
    trainer = Trainer(
        max_epochs=task.epochs,
        accelerator="cpu" if task.device == "cpu" else "gpu",
        devices=1,
        precision="bf16-mixed" if task.bf16 else "32-true",
        callbacks=callbacks,
        num_sanity_val_steps=0,
        default_root_dir=task.out,
        logger=False,
    )
    model = Classifier(task)
    trainer.fit(model, DataLoader(train, shuffle=True, **how), DataLoader(val, **how))
    return model
