"""Linear head by full-batch L-BFGS, with the weight decay chosen on the validation part.

Features are scaled, and the scaling is folded into the weights afterwards. Divided by their standard deviation,
features that hardly vary would count as much as those that separate the classes; unscaled they would count too little.
So they are divided by its square root. Weight decay goes from strong to weak, each solution starting from the last one.

Sources: Kornblith et al., Do Better ImageNet Models Transfer Better?, 2019, appendix A.6, for the procedure; van den
Berg et al., Centering, scaling, and transformations, 2006, for the scaling, there named after Pareto.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import psutil
import torch
from torch import Tensor

from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.loss import Task

STRENGTHS = tuple(10.0**-power for power in np.arange(0, 5.5, 0.5))
"""Weight decay λ of λ/2 ‖W‖² beside the mean loss, strongest first."""

UNTRIED = 3e-2
"""λ where there is no validation part to choose it on."""

WORSE = 2
"""Solutions in a row without a better score, after which no weaker λ is tried."""

_ITERATIONS = 20
_PIECE_BYTES = 64 * 10**6
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class LinearHead:
    """A linear head: logits = x Wᵀ + b.

    Attributes:
        weight: float32 (C, F).
        bias: float32 (C,).
        name: solver that found it.
        strength: chosen weight decay λ, or sharpness.
    """

    weight: Tensor
    bias: Tensor
    name: str
    strength: float

    def __call__(self, features: Tensor) -> Tensor:
        """Logits float32 (N, C) of features float32 (N, F)."""
        return features @ self.weight.T + self.bias


class FeatureTable:
    """Features of all views with their labels, in pieces; in memory as float32 where there is room.

    Attributes:
        features: number of features F.
        count: number of readable rows in all views.

    Args:
        views: features in each view, float16 (N, F) each; unreadable rows are left out.
        labels: int64 (N,), class indices, the same for each view.
        device: the device that computes.
    """

    def __init__(self, views: list[Features], labels: Tensor, device: torch.device) -> None:
        self.device, self.features = device, views[0].values.shape[1]
        self._labels = labels
        everyone = np.arange(len(labels))
        self._views = [(rows.values, np.delete(everyone, list(rows.unreadable))) for rows in views]
        self.count = sum(len(readable) for _, readable in self._views)
        self._pieces: list[tuple[Tensor, Tensor]] | None = None
        free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
        if 4 * self.count * self.features < _MEMORY_SHARE * free:
            self._pieces = list(self._read())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield pieces: features float32 (n, F) and labels int64 (n,), on the device."""
        return iter(self._pieces) if self._pieces is not None else self._read()

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, _PIECE_BYTES // (4 * self.features))
        for values, readable in self._views:
            for start in range(0, len(readable), size):
                rows = readable[start : start + size]
                part = torch.from_numpy(values[rows].astype(np.float32))
                yield part.to(self.device), self._labels[torch.from_numpy(rows)].to(self.device)

    @cached_property
    def mean(self) -> Tensor:
        """Mean of each feature, float32 (F,)."""
        total = torch.zeros(self.features, dtype=torch.float64, device=self.device)
        for features, _ in self:
            total += features.sum(0, dtype=torch.float64)
        return (total / self.count).float()

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of each feature, float32 (F,); 1 for a constant one."""
        squares = torch.zeros(self.features, dtype=torch.float64, device=self.device)
        for features, _ in self:
            squares += (features - self.mean).square().sum(0, dtype=torch.float64)
        std = (squares / self.count).sqrt().float()
        return torch.where(std > 1e-6, std, torch.ones_like(std))

    @cached_property
    def scale(self) -> Tensor:
        """Divisor of each feature, float32 (F,): the geometric mean of its own standard deviation and a common one."""
        common = self.std.square().mean().sqrt()
        return (self.std * common).sqrt()

    def folded(self, weight: Tensor, bias: Tensor, scale: Tensor, name: str, strength: float) -> LinearHead:
        """A head on unscaled features.

        Args:
            weight: float32 (C, F), weight for centred features divided by `scale`.
            bias: float32 (C,), bias for the same.
            scale: float32 (F,), divisor of each feature.
            name: solver's name, see `LinearHead`.
            strength: value chosen for it, see `LinearHead`.
        """
        plain = weight / scale
        return LinearHead(plain, bias - plain @ self.mean, name, strength)


def fit_lbfgs(
    table: FeatureTable,
    classes: int,
    task: Task,
    score: Callable[[LinearHead], float] | None,
    watch: Callable[[int, int], None] = lambda done, total: None,
    chosen: float | None = None,
) -> list[tuple[LinearHead, float]]:
    """Heads with their scores, one for each λ that was tried, from strong to weak.

    Args:
        table: features and labels to fit.
        classes: number of classes C.
        task: loss function and weights to minimise.
        score: a head's score on the validation part, more is better; None: there is none, and λ is UNTRIED.
        watch: progress callback: number of λ done, of how many. An exception stops the work.
        chosen: the λ to end with; None: it is searched for.
    """
    weight = torch.zeros(classes, table.features, device=table.device)
    bias = torch.zeros(classes, device=table.device)
    tried: list[tuple[LinearHead, float]] = []
    strengths = STRENGTHS if score else (UNTRIED,)
    if chosen is not None:  # by the same path, each solution starting from the last one
        strengths = (*(each for each in STRENGTHS if each > chosen), chosen)
    best = 0
    for number, strength in enumerate(strengths):
        watch(number, len(strengths))
        _minimise(table, task, weight, bias, strength)
        head = table.folded(weight.clone(), bias.clone(), table.scale, "L-BFGS", strength)
        tried.append((head, score(head) if score else 0.0))
        best = number if tried[number][1] > tried[best][1] else best
        if score is not None and number - best >= WORSE:
            break
    return tried


def _minimise(table: FeatureTable, task: Task, weight: Tensor, bias: Tensor, strength: float) -> None:
    """Minimise the regularised loss on scaled features; weight (C, F) and bias (C,) are changed in place."""
    parameters = [weight.requires_grad_(True), bias.requires_grad_(True)]
    total = sum(float(task.weights(labels).sum()) for _, labels in table)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_ITERATIONS, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        """The loss, a float32 scalar, with its gradients computed."""
        optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=table.device)
        for features, labels in table:
            # The weights are scaled instead of the features, which would need a copy of them.
            plain = weight / table.scale
            logits = features @ plain.T + (bias - plain @ table.mean)
            part = task.loss(logits, labels, features) / total
            part.backward()  # type: ignore[no-untyped-call]
            value += part.detach()
        penalty = 0.5 * strength * weight.square().sum()
        penalty.backward()  # type: ignore[no-untyped-call]
        return value + penalty.detach()

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    for parameter in parameters:
        parameter.requires_grad_(False).grad = None
