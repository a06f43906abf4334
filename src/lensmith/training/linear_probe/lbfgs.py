"""A linear head by full-batch L-BFGS, with the strength of regularisation picked on the validation part.

Features are scaled, and the scaling is folded into the weights afterwards. Divided by their deviation, features that
hardly change would count as much as those that tell classes apart; as they are, they would count too little. So they
are divided by its square root. From strong to weak each solution begins where the last one ended.

Sources: Kornblith et al., Do Better ImageNet Models Transfer Better?, 2019, appendix A.6, for the procedure; van den
Berg et al., Centering, scaling, and transformations, 2006, for the scaling, there named after Pareto.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import psutil
import torch
from torch import Tensor

from lensmith.training.feature_cache.features import Features
from lensmith.training.loss import Task

STRENGTHS = tuple(10.0**-power for power in np.arange(0, 5.5, 0.5))
"""λ of λ/2 ‖W‖² beside the mean loss, strongest first."""

UNTRIED = 3e-2
"""λ where there is no validation part to pick it on."""

WORSE = 2
"""Solutions in a row that are no better than the best, after which weaker regularisation is not tried."""

_ITERATIONS = 20
_PIECE_BYTES = 64 * 10**6
_MEMORY_SHARE = 0.25


@dataclass(frozen=True)
class LinearHead:
    """A head: logits = x Wᵀ + b.

    Attributes:
        weight: float32 (C, F).
        bias: float32 (C,).
        name: how it came about.
        strength: what was picked for it.
    """

    weight: Tensor
    bias: Tensor
    name: str
    strength: float

    def __call__(self, features: Tensor) -> Tensor:
        """Float32 (N, F) → logits (N, C)."""
        return features @ self.weight.T + self.bias


class FeatureTable:
    """Features of all views with their labels, in pieces; in memory as float32 where there is room.

    Args:
        views: float16 (N, F) each; unreadable rows are left out.
        labels: int64 (N,), the same for each view.
        device: where to compute.
    """

    def __init__(self, views: list[Features], labels: Tensor, device: torch.device) -> None:
        self.device, self.features = device, views[0].values.shape[1]
        self._labels = labels
        self._views = [(rows.values, _readable(rows, len(labels))) for rows in views]
        self.count = sum(len(readable) for _, readable in self._views)
        self._pieces: list[tuple[Tensor, Tensor]] | None = None
        if 4 * self.count * self.features < _MEMORY_SHARE * _available(device):
            self._pieces = list(self._read())

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Pieces: float32 (n, F) on the device, and int64 labels (n,)."""
        return iter(self._pieces) if self._pieces is not None else self._read()

    def _read(self) -> Iterator[tuple[Tensor, Tensor]]:
        size = max(1, _PIECE_BYTES // (4 * self.features))
        for values, readable in self._views:
            for start in range(0, len(readable), size):
                rows = readable[start : start + size]
                part = torch.from_numpy(values[rows].astype(np.float32))
                yield part.to(self.device), self._labels[torch.from_numpy(rows)].to(self.device)

    @property
    def mean(self) -> Tensor:
        """Float32 (F,): of each feature."""
        return self._moments[0]

    @property
    def std(self) -> Tensor:
        """Float32 (F,): standard deviation of each feature; 1 for one that never changes."""
        return self._moments[1]

    @cached_property
    def scale(self) -> Tensor:
        """Float32 (F,): what features are divided by: the square root of their deviation and a common one."""
        common = self.std.square().mean().sqrt()
        return (self.std * common).sqrt()

    @cached_property
    def _moments(self) -> tuple[Tensor, Tensor]:
        total = torch.zeros(self.features, dtype=torch.float64, device=self.device)
        for features, _ in self:
            total += features.sum(0, dtype=torch.float64)
        mean, squares = total / self.count, torch.zeros_like(total)
        for features, _ in self:
            squares += (features - mean.float()).square().sum(0, dtype=torch.float64)
        std = (squares / self.count).sqrt().float()
        return mean.float(), torch.where(std > 1e-6, std, torch.ones_like(std))

    def folded(self, weight: Tensor, bias: Tensor, scale: Tensor, name: str, strength: float) -> LinearHead:
        """A head on centred features, divided by `scale`, as one on the features themselves."""
        plain = weight / scale
        return LinearHead(plain, bias - plain @ self.mean, name, strength)


def fit_lbfgs(
    table: FeatureTable,
    classes: int,
    task: Task,
    score: Callable[[LinearHead], float] | None,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[LinearHead, list[tuple[LinearHead, float]]]:
    """The head with the best score, and all that were tried.

    Args:
        table: to learn from.
        classes: C.
        task: its loss and weights are what is made small.
        score: of a head on the validation part, more is better; None: there is none, and λ is UNTRIED.
        watch: told the number of λ done, and of all; what it raises stops the work.
    """
    weight = torch.zeros(classes, table.features, device=table.device)
    bias = torch.zeros(classes, device=table.device)
    tried: list[tuple[LinearHead, float]] = []
    strengths = STRENGTHS if score else (UNTRIED,)
    best = 0
    for number, strength in enumerate(strengths):
        watch(number, len(strengths))
        _minimise(table, task, weight, bias, strength)
        head = table.folded(weight.clone(), bias.clone(), table.scale, "L-BFGS", strength)
        tried.append((head, score(head) if score else 0.0))
        best = number if tried[number][1] > tried[best][1] else best
        if number - best >= WORSE:
            break
    return tried[best][0], tried


def _minimise(table: FeatureTable, task: Task, weight: Tensor, bias: Tensor, strength: float) -> None:
    """Move weight and bias, in place, to where the regularised loss on scaled features is smallest."""
    parameters = [weight.requires_grad_(True), bias.requires_grad_(True)]
    total = sum(float(task.weights(labels).sum()) for _, labels in table)
    optimizer = torch.optim.LBFGS(
        parameters, max_iter=_ITERATIONS, history_size=10, tolerance_grad=1e-5, tolerance_change=1e-6,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def closure() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        value = torch.zeros((), device=table.device)
        for features, labels in table:
            # Scaling the weights instead of the features spares a copy of them.
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


def _readable(rows: Features, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([row for row in range(count) if row not in rows.unreadable], dtype=np.int64)


def _available(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
