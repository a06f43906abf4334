"""The usual tutorial's loop, written from its description (C in the sources): plain PyTorch, nothing tuned.

Frozen: gradients are turned off in all but the head, whose layer the optimizer gets; the rest stays in training mode
with its BatchNorm, as there. Resize to a square, flip, normalise; batches of 32, shuffled, read by the process that
trains; SGD 1e-3 with momentum 0.9, cross-entropy, a bar; loss and accuracy of both parts in each epoch; the best model
by validation loss is saved. Full: the same with all layers trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from contestants.shared import folder, network
from contestants.task import Clock, Task


def run(task: Task, clock: Clock) -> nn.Module:
    """Train as the task says."""
    torch.manual_seed(task.seed)
    parts: dict[str, Any] = {part: folder(task, part) for part in ("train", "val")}
    loaders = {
        part: DataLoader(dataset, batch_size=task.batch_size, shuffle=part == "train")
        for part, dataset in parts.items()
    }
    model = network(task)
    trained = model
    if task.frozen:
        for parameter in model.parameters():
            parameter.requires_grad = False
        trained = model.get_classifier()
        for parameter in trained.parameters():
            parameter.requires_grad = True
    model = model.to(task.device)
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9)

    def over(part: str) -> tuple[float, float]:
        """Mean loss and accuracy of one pass."""
        loss_sum, correct = 0.0, 0
        for images, labels in tqdm(loaders[part], desc=part):
            images, labels = images.to(task.device), labels.to(task.device)
            if part == "train":
                optimizer.zero_grad()
            outputs = model(images)
            loss = criterion(outputs, labels)
            if part == "train":
                loss.backward()
                optimizer.step()
            loss_sum += loss.item() * len(images)
            correct += int((outputs.argmax(1) == labels).sum().item())
        return loss_sum / len(parts[part]), correct / len(parts[part])

    best = float("inf")
    for _ in range(task.epochs):
        model.train()
        with clock.training(len(parts["train"])):
            over("train")
        model.eval()
        with torch.no_grad():
            loss, accuracy = over("val")
        if loss < best:
            best = loss
            torch.save(model.state_dict(), Path(task.out) / "best.pth")
        clock.epoch(accuracy)
    return model
