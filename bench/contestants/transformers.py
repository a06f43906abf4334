"""Hugging Face's Trainer (transformers with accelerate) around a plain module that returns loss and logits.

Settings, from the documents: "Image classification" (evaluation and a checkpoint each epoch, the best model at the end,
warm-up over 10 % of the steps, `remove_unused_columns=False`); AdamW with a linear fall, as the Trainer comes; "CPU"
(`bf16=True, use_cpu=True`, here where bfloat16 is the faster format); `dataloader_num_workers` and persistent workers
as its pages on speed advise. The rate is 1e-3, not that page's 5e-5, which is for a whole pretrained transformer.
Frozen: `requires_grad` is off in the backbone, which stays in evaluation mode.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from contestants.shared import folder, network
from contestants.task import Clock, Task


class Classifier(nn.Module):
    """The network as the Trainer wants it."""

    def __init__(self, task: Task) -> None:
        super().__init__()
        self.net, self.frozen = network(task), task.frozen
        if self.frozen:
            self.net.requires_grad_(False)
            self.net.get_classifier().requires_grad_(True)

    def train(self, mode: bool = True) -> Classifier:
        """A frozen backbone stays as it is."""
        super().train(mode)
        if self.frozen:
            self.net.eval()
        return self

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> dict[str, Tensor]:
        """Logits, and the loss where labels are given."""
        logits = self.net(pixel_values)
        if labels is None:
            return {"logits": logits}
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Report(TrainerCallback):
    """Reports epochs to the clock."""

    def __init__(self, clock: Clock, images: int) -> None:
        self.clock, self.images = clock, images

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """Training begins."""
        self.clock.begin()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """Training ends; validation comes next."""
        self.clock.end(self.images)

    def on_evaluate(self, *_: Any, metrics: dict[str, float], **__: Any) -> None:
        """Validation ends."""
        self.clock.epoch(metrics["eval_accuracy"])


def collate(items: list[tuple[Tensor, int]]) -> dict[str, Tensor]:
    """The page's own collator, for tuples instead of dictionaries."""
    images, labels = zip(*items, strict=True)
    return {"pixel_values": torch.stack(images), "labels": torch.tensor(labels)}


def share_right(prediction: Any) -> dict[str, float]:
    """The page's `compute_metrics`."""
    return {"accuracy": float((np.argmax(prediction.predictions, axis=1) == prediction.label_ids).mean())}


def run(task: Task, clock: Clock) -> nn.Module:
    """Train as the task says."""
    train, val = folder(task, "train"), folder(task, "val")
    steps = -(-len(train) // task.batch_size) * task.epochs
    settings = TrainingArguments(
        output_dir=task.out,
        remove_unused_columns=False,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        learning_rate=1e-3,
        per_device_train_batch_size=task.batch_size,
        per_device_eval_batch_size=task.batch_size,
        num_train_epochs=task.epochs,
        warmup_steps=round(0.1 * steps),
        logging_steps=10,
        dataloader_num_workers=task.workers,
        dataloader_persistent_workers=True,
        dataloader_pin_memory=task.device == "cuda",
        bf16=task.bf16,
        use_cpu=task.device == "cpu",
        report_to="none",
        seed=task.seed,
    )
    model = Classifier(task)
    trainer = Trainer(
        model=model,
        args=settings,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=val,
        compute_metrics=share_right,
        callbacks=[Report(clock, len(train))],
    )
    trainer.train()
    return model.net
