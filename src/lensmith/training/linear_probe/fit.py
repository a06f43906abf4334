"""Fit a linear probe: each solver's heads are scored on the validation part, and the best one is taken."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from lensmith.config import TrainSettings
from lensmith.evaluation.confidence import least_temperature
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.linear_probe.lbfgs import FeatureTable, LinearHead, fit_lbfgs
from lensmith.training.loss import Task
from lensmith.training.run_dir.refit import HeadChoice
from lensmith.training.validate import ModelOutputs

SHARPNESS = tuple(2.0**-power for power in range(15, 1, -1))
"""Candidates of the sharpness s, which changes confidences but not the nearest class; the least sure first."""

_SOLVERS = {"L-BFGS": "lbfgs", "nearest mean": "ncm"}
"""Name of a head's solver → value of the setting `head_solver`."""

SMALL_CLASS = 50
"""Images of the smallest class, above which L-BFGS always won where it was measured."""


@dataclass(frozen=True)
class LinearProbe:
    """A fitted head, and its figures on the training part.

    Attributes:
        head: the best head, on the CPU.
        tried: name (`way`), strength and score of each candidate.
        temperature: divisor of the chosen head's logits, 1 or more.
        seen: number of rows it was fitted to.
        weight: sum of the rows' weights.
        loss_sum: sum of the rows' weighted losses.
        correct: number of rows it classifies correctly.
    """

    head: LinearHead
    tried: list[dict[str, Any]]
    seen: int
    weight: float
    loss_sum: float
    correct: int
    temperature: float = 1.0


def can_solve(head: nn.Module, settings: TrainSettings) -> bool:
    """Whether the head is one linear layer, and the settings allow a solver instead of gradient steps."""
    return settings.head_solver != "minibatch" and type(head) is nn.Linear and head.bias is not None


def fit_linear_probe(
    views: list[Features],
    labels: Tensor,
    classes: int,
    validation: tuple[Features, Tensor] | None,
    task: Task,
    settings: TrainSettings,
    device: torch.device,
    watch: Callable[[int, int], None] = lambda done, total: None,
    chosen: HeadChoice | None = None,
) -> LinearProbe:
    """The head with the best score on the validation part.

    Args:
        views: features of the training part in each view, float16 (N, F) each.
        labels: int64 (N,), class indices of the training part.
        classes: number of classes C.
        validation: features float16 (M, F) and labels int64 (M,) of the validation part; None: there is none.
        task: loss function and weights.
        settings: the run's resolved settings; `head_solver` names the solvers to try.
        device: the device that computes.
        watch: progress callback: steps done, of how many. An exception stops the work.
        chosen: the solver and its strength, where a cross-validation has chosen them; None: they are searched for.
    """
    table = FeatureTable(views, labels, device)
    score = _score(validation, settings.monitor, device) if validation is not None else None
    found: list[tuple[LinearHead, float]] = []
    solver = settings.head_solver if chosen is None else _SOLVERS[chosen.name]
    if solver in ("auto", "lbfgs"):
        found += fit_lbfgs(table, classes, task, score, watch, None if chosen is None else chosen.strength)
    smallest = min(sum((Counter(truth.tolist()) for _, truth in table), Counter()).values()) // len(views)
    if solver == "ncm" or (solver == "auto" and score and smallest <= SMALL_CLASS):
        by_loss = None if validation is None else _score(validation, "loss", device)
        head, _ = nearest_mean(table, classes, by_loss, None if chosen is None else chosen.strength)
        found.append((head, score(head) if score else 0.0))
    if chosen is not None:
        found = found[-1:]  # the end of the path
    # Of equal scores the first is taken: strong weight decay before weak, and solvers before nearest means.
    head, _ = max(found, key=lambda pair: pair[1])
    temperature = 1.0 if chosen is None else chosen.temperature
    if validation is not None:
        temperature = support_temperature(head, FeatureTable([validation[0]], validation[1], device))
    if temperature > 1:
        head = replace(head, weight=head.weight / temperature, bias=head.bias / temperature)
    weight = loss_sum = 0.0
    correct = 0
    with torch.inference_mode():
        for features, truth in table:
            logits = head(features)
            weight += float(task.weights(truth).sum())
            loss_sum += float(task.loss(logits, truth, features))
            correct += int((logits.argmax(1) == truth).sum())
    tried = [{"way": one.name, "strength": one.strength, "score": value} for one, value in found]
    best = LinearHead(head.weight.cpu(), head.bias.cpu(), head.name, head.strength)
    return LinearProbe(best, tried, table.count, weight, loss_sum, correct, temperature)


def nearest_mean(
    table: FeatureTable,
    classes: int,
    score: Callable[[LinearHead], float] | None,
    chosen: float | None = None,
) -> tuple[LinearHead, float]:
    """The nearest-mean head with the best sharpness, which does not overfit with few images, and its score.

    Source: Mensink et al., Distance-Based Image Classification, 2013; the distance here counts each feature by the
    inverse of its variance within the classes. −s ‖x − μ‖² is linear in x but for a part that all classes share.

    Args:
        table: features and labels, with at least one row of each class.
        classes: number of classes C.
        score: a head's score on the validation part, which depends on confidences; None: there is none, and s is 1 / F.
        chosen: the sharpness s; None: the best by `score`.
    """
    sums = torch.zeros(classes, table.features, device=table.device)
    counts = torch.zeros(classes, device=table.device)
    for features, labels in table:
        sums.index_add_(0, labels, (features - table.mean) / table.std)
        counts.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))
    means = sums / counts.clamp(min=1)[:, None]
    spread = torch.zeros(table.features, device=table.device)
    for features, labels in table:
        spread += ((features - table.mean) / table.std - means[labels]).square().sum(0)
    # Shrunk towards the variance of all features, 1, as few images tell little about that within a class.
    spread = (spread + classes) / (table.count + classes)
    gone = torch.where(counts > 0, 0.0, -1e4)  # a class without images is never predicted
    weight, bias = 2 * means / spread, (means.square() / spread).sum(1)
    heads = [
        table.folded(sharp * weight, gone - sharp * bias, table.std, "nearest mean", sharp)
        for sharp in ((chosen,) if chosen is not None else SHARPNESS if score else (1 / table.features,))
    ]
    return max(((head, score(head) if score else 0.0) for head in heads), key=lambda pair: pair[1])


def support_temperature(head: LinearHead, validation: FeatureTable) -> float:
    """Divisor of a head's logits, 1 or more, so that its mean confidence is one that so few images can support.

    Args:
        head: the chosen head.
        validation: features and labels that it was chosen on; without a row the divisor is 1.
    """
    if not validation.count:
        return 1.0
    probabilities = torch.cat([head(features).softmax(1).cpu() for features, _ in validation]).numpy()
    return max(1.0, least_temperature(probabilities))


@torch.no_grad()
def copy_head(head: LinearHead, *modules: nn.Module) -> None:
    """Copy a head's weight and bias into linear layers."""
    for module in modules:
        assert isinstance(module, nn.Linear)
        module.weight.copy_(head.weight)
        module.bias.copy_(head.bias)


def _score(
    validation: tuple[Features, Tensor], monitor: str, device: torch.device
) -> Callable[[LinearHead], float] | None:
    """A scoring function on the validation part, more is better; None where none of its images can be read.

    With the monitor `loss` the targets are smoothed, so that no candidate wins by confidence that nothing supports.
    """
    table = FeatureTable([validation[0]], validation[1], device)
    if not table.count:
        return None
    labels = torch.cat([truth.cpu() for _, truth in table])

    def score(head: LinearHead) -> float:
        logits = torch.cat([head(features).cpu() for features, _ in table])
        outputs = ModelOutputs(logits, labels, [], [])
        return -outputs.smoothed_loss if monitor == "loss" else outputs.score(monitor)

    return score
