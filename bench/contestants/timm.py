"""timm with its own data set, loader, optimizer and schedule factories, and the loop of its train.py.

Settings, from timm's documents (Scripts: "Training Script", the fine-tuning example there) and train.py's defaults:
AdamW with weight decay 0.01, cosine, label smoothing 0.1, the prefetcher that normalises on the device, persistent
workers (4 in train.py, here as many as there are cores), `--amp` with bfloat16 where that is the faster format. The
rate is 1e-3, not that example's 1e-4, which is for training all of a pretrained network. Crops and colour are
turned off, so that all contestants see the same pictures. Frozen: `timm.utils.freeze`, which also freezes BatchNorm's
statistics.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import AverageMeter, accuracy, freeze, random_seed
from torch import nn

from contestants.shared import network
from contestants.task import MEAN, STD, Clock, Task


def run(task: Task, clock: Clock) -> nn.Module:
    """Train as the task says."""
    random_seed(task.seed)
    device = torch.device(task.device)
    classes = {name: number for number, name in enumerate(task.classes)}
    parts = {part: create_dataset("", root=task.folder(part), class_map=classes) for part in ("train", "val")}
    make = partial(
        create_loader,
        input_size=(3, task.image_size, task.image_size),
        batch_size=task.batch_size,
        interpolation="bicubic",
        mean=MEAN,
        std=STD,
        num_workers=task.workers,
        pin_memory=device.type == "cuda",
        device=device,
    )
    whole = (1.0, 1.0)  # a crop of the whole picture: all that is left of it is the squash
    train: Any = make(parts["train"], is_training=True, scale=whole, ratio=whole, hflip=0.5, color_jitter=None)
    val: Any = make(parts["val"], is_training=False, crop_pct=1.0, crop_mode="squash")

    model = network(task)
    if task.frozen:
        head = {name for name, module in model.named_modules() if module is model.get_classifier()}
        freeze(model, [name for name, _ in model.named_children() if name not in head])
    model = model.to(device)
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.01)
    scheduler, _ = create_scheduler_v2(
        optimizer, sched="cosine", num_epochs=task.epochs, step_on_epochs=False, updates_per_epoch=len(train)
    )
    criterion = LabelSmoothingCrossEntropy(0.1)
    amp = partial(torch.autocast, device.type, dtype=torch.bfloat16, enabled=task.bf16)

    updates = 0
    for epoch in range(task.epochs):
        model.train()
        losses = AverageMeter()
        with clock.training(len(parts["train"])):
            for images, labels in train:
                with amp():
                    loss = criterion(model(images), labels)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                updates += 1
                losses.update(loss.item(), len(images))
                scheduler.step_update(updates, metric=losses.avg)
        scheduler.step(epoch + 1)
        model.eval()
        top1 = AverageMeter()
        with torch.inference_mode():
            for images, labels in val:
                with amp():
                    output = model(images)
                top1.update(accuracy(output, labels)[0].item() / 100, len(images))
        clock.epoch(top1.avg)
    return model
