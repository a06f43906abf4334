"""Which head: every way is judged by the same score on the validation part, and the best is put into the network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.training.feature_cache.features import Features
from lensmith.training.linear_probe.lbfgs import FeatureTable, LinearHead, fit_lbfgs
from lensmith.training.linear_probe.nearest_mean import SMALL_CLASS, nearest_mean
from lensmith.training.loss import Task
from lensmith.training.validate import Answers


@dataclass(frozen=True)
class LinearProbe:
    """A head, and how it was found.

    Attributes:
        head: on the CPU.
        tried: name, strength and score of each candidate.
        seen: rows that it was made from.
        weight: their weights' sum.
        loss_sum: sum of their weighted losses.
        correct: how many of them it answers right.
    """

    head: LinearHead
    tried: list[dict[str, Any]]
    seen: int
    weight: float
    loss_sum: float
    correct: int


def can_solve(head: nn.Module, settings: TrainSettings) -> bool:
    """Whether the head is one linear layer and the settings do not ask for steps."""
    return settings.head_solver != "minibatch" and type(head) is nn.Linear and head.bias is not None


def fit_linear_probe(
    views: list[Features],
    labels: Tensor,
    classes: int,
    held: tuple[Features, Tensor] | None,
    task: Task,
    settings: TrainSettings,
    device: torch.device,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> LinearProbe:
    """The best head on these features.

    Args:
        views: float16 (N, F) each, of the training images.
        labels: int64 (N,).
        classes: C.
        held: features and labels of the validation part; None: there is none.
        task: its loss and weights count.
        settings: of the run; `head_solver` says which ways to try.
        device: where to compute.
        watch: told how far it is; what it raises stops the work.
    """
    table = FeatureTable(views, labels, device)
    score = _score(held, settings.monitor, device) if held is not None else None
    found: list[tuple[LinearHead, float]] = []
    if settings.head_solver in ("auto", "lbfgs"):
        found += fit_lbfgs(table, classes, task, score, watch)[1]
    smallest = min(Counter(labels.tolist()).values())
    if settings.head_solver == "ncm" or (settings.head_solver == "auto" and score and smallest <= SMALL_CLASS):
        head, _ = nearest_mean(table, classes, None if held is None else _score(held, "loss", device))
        found.append((head, score(head) if score else 0.0))
    head, _ = max(found, key=lambda pair: pair[1])
    weight = loss_sum = 0.0
    correct = 0
    with torch.inference_mode():
        for features, truth in table:
            logits = head(features)
            weight += float(task.weights(truth).sum())
            loss_sum += float(task.loss(logits, truth, features))
            correct += int((logits.argmax(1) == truth).sum())
    tried = [{"way": one.name, "strength": one.strength, "score": value} for one, value in found]
    kept = LinearHead(head.weight.cpu(), head.bias.cpu(), head.name, head.strength)
    return LinearProbe(kept, tried, table.count, weight, loss_sum, correct)


@torch.no_grad()
def copy_head(head: LinearHead, *modules: nn.Module) -> None:
    """Put a head's numbers into linear layers."""
    for module in modules:
        assert isinstance(module, nn.Linear)
        module.weight.copy_(head.weight)
        module.bias.copy_(head.bias)


def _score(held: tuple[Features, Tensor], monitor: str, device: torch.device) -> Callable[[LinearHead], float] | None:
    """None where not one validation image can be read."""
    table = FeatureTable([held[0]], held[1], device)
    if not table.count:
        return None
    labels = torch.cat([truth.cpu() for _, truth in table])

    def score(head: LinearHead) -> float:
        logits = torch.cat([head(features).cpu() for features, _ in table])
        return Answers(logits, labels, [], []).score(monitor)

    return score
