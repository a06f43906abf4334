"""Linear discriminant analysis with a shrunk covariance, solved in closed form from sums over the features.

The sums of a part of the rows are subtracted from those of all rows, so heads for many folds and subsets cost one pass
over the features, which may be larger than memory, and one Cholesky decomposition each.

Sources: Fisher, The Use of Multiple Measurements in Taxonomic Problems, 1936; Friedman, Regularized Discriminant
Analysis, 1989, for the shrinkage; van den Berg et al., Centering, scaling, and transformations, 2006, for the scaling.

Shapes: N rows, F features, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve, solve_triangular

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

MOST_FEATURES = 2048
"""Wider features are projected at random to so many: a covariance matrix grows with their square."""

ABSENT = -1e4
"""Logit of a class without a row."""

_BLOCK_BYTES = 32 * 10**6


class FeatureRows:
    """Features in blocks, centred and scaled, as float32.

    A feature is divided by the geometric mean of its own standard deviation and the common one: divided by its own,
    features that hardly vary would count as much as those that separate the classes.

    Args:
        values: float16 or float32 (N, F), perhaps mapped into memory; without unreadable rows.
        seed: seed of the projection, where there is one.
    """

    def __init__(self, values: npt.NDArray[Any], seed: int = 0) -> None:
        self._values = values
        self.projection: Floats32 | None = None
        if values.shape[1] > MOST_FEATURES:
            drawn = np.random.default_rng(seed).standard_normal((values.shape[1], MOST_FEATURES), dtype=np.float32)
            self.projection = drawn / np.float32(np.sqrt(MOST_FEATURES))

    def __len__(self) -> int:
        return len(self._values)

    @property
    def features(self) -> int:
        """Number of features F after the projection."""
        return int(self._values.shape[1]) if self.projection is None else MOST_FEATURES

    def blocks(self, rows: Ints | None = None) -> Iterator[tuple[Ints, Floats32]]:
        """Yield row numbers, int64 (N,), and scaled features, float32 (N, F), of all rows or of those named."""
        rows = np.arange(len(self)) if rows is None else rows
        centre, scale = self._centre_and_scale
        for some, block in self._plain(rows):
            yield some, (block - centre) / scale

    def _plain(self, rows: Ints) -> Iterator[tuple[Ints, Floats32]]:
        size = max(1, _BLOCK_BYTES // (4 * self._values.shape[1]))
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            block = np.asarray(self._values[some], dtype=np.float32)
            yield some, block if self.projection is None else block @ self.projection

    @cached_property
    def _centre_and_scale(self) -> tuple[Floats32, Floats32]:
        total, squares = np.zeros(self.features), np.zeros(self.features)
        for _, block in self._plain(np.arange(len(self))):
            total += block.sum(axis=0, dtype=np.float64)
        centre = total / max(1, len(self))
        for _, block in self._plain(np.arange(len(self))):
            squares += np.square(block - centre.astype(np.float32)).sum(axis=0, dtype=np.float64)
        std = np.sqrt(squares / max(1, len(self)))
        common = float(np.sqrt(np.square(std).mean()))
        scale = np.sqrt(np.where(std > 1e-6, std, 1.0) * (common or 1.0))
        return centre.astype(np.float32), scale.astype(np.float32)


@dataclass(frozen=True)
class Moments:
    """Sums over rows.

    Attributes:
        counts: float64 (C,): number of rows of each class.
        sums: float64 (C, F): sum of each class's rows.
        products: float64 (F, F): sum of the rows' outer products.
    """

    counts: Floats
    sums: Floats
    products: Floats

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(self.counts + other.counts, self.sums + other.sums, self.products + other.products)

    def __sub__(self, other: "Moments") -> "Moments":
        return Moments(self.counts - other.counts, self.sums - other.sums, self.products - other.products)

    @staticmethod
    def zero(classes: int, features: int) -> "Moments":
        """Sums over no row."""
        return Moments(np.zeros(classes), np.zeros((classes, features)), np.zeros((features, features)))


def moments_by_part(rows: FeatureRows, labels: Ints, classes: int, parts: Ints, count: int) -> list[Moments]:
    """Sums over the rows of each part, in one pass.

    Args:
        rows: features.
        labels: int64 (N,): class indices.
        classes: number of classes C.
        parts: int64 (N,): number of each row's part; rows with a negative one are left out.
        count: number of parts.
    """
    found = [Moments.zero(classes, rows.features) for _ in range(count)]
    for some, block in rows.blocks():
        for part in np.unique(parts[some]):
            if part < 0:
                continue
            mine = parts[some] == part
            x, y, sums = block[mine], labels[some][mine], found[part]
            sums.counts[:] += np.bincount(y, minlength=classes)
            order = np.argsort(y, kind="stable")
            present, first = np.unique(y[order], return_index=True)
            sums.sums[present] += np.add.reduceat(x[order], first, axis=0)
            sums.products[:] += x.T @ x
    return found


@dataclass(frozen=True)
class Discriminant:
    """A linear head: logits = x W + b.

    Attributes:
        weight: float32 (F, C).
        bias: float32 (C,).
        means: float32 (C, F): mean of each class; zeros for a class without a row.
        factor: Cholesky factor of the shrunk covariance within classes, lower triangle, float32 (F, F).
        background: the same of the covariance of all rows.
        centre: float32 (F,): mean of all rows.
    """

    weight: Floats32
    bias: Floats32
    means: Floats32
    factor: Floats32
    background: Floats32 | None
    centre: Floats32

    def logits(self, x: Floats32) -> Floats32:
        """float32 (n, C) of scaled features float32 (n, F)."""
        found: Floats32 = x @ self.weight + self.bias
        return found

    def distance(self, x: Floats32) -> Floats:
        """Distance of scaled features, float32 (N, F), from the nearest class relative to all rows: float64 (N,).

        Source: Ren et al., A Simple Fix to Mahalanobis Distance for Improving Near-OOD Detection, 2021.
        """
        assert self.background is not None
        white = solve_triangular(self.factor, x.T, lower=True, check_finite=False)
        own = solve_triangular(self.factor, self.means.T, lower=True, check_finite=False)
        squares = np.square(white).sum(axis=0)[:, None] - 2 * white.T @ own + np.square(own).sum(axis=0)
        squares[:, self.bias <= ABSENT] = np.inf
        around = solve_triangular(self.background, (x - self.centre).T, lower=True, check_finite=False)
        return np.asarray(squares.min(axis=1) - np.square(around).sum(axis=0), dtype=np.float64)


def fit_discriminant(moments: Moments, shrinkage: float, background: bool = False) -> Discriminant:
    """Solve for the head of the rows that `moments` sums up.

    Args:
        moments: sums over the rows, at least one.
        shrinkage: share, 0 < s ≤ 1, of the covariance that is replaced by its mean variance in every direction.
        background: whether `Discriminant.distance` will be asked for.
    """
    counts, total = moments.counts, max(1.0, float(moments.counts.sum()))
    present = counts > 0.5
    means = (moments.sums / np.maximum(counts, 1)[:, None]).astype(np.float32)
    within = moments.products - (means.T * counts) @ means
    factor = _shrunk_factor(within / total, shrinkage)
    weight = cho_solve((factor, True), means.T, check_finite=False)
    priors = np.log(np.maximum(counts, 1) / total)
    bias = np.where(present, priors - 0.5 * (means.T * weight).sum(axis=0), ABSENT)
    centre = (moments.sums.sum(axis=0) / total).astype(np.float32)
    spread = _shrunk_factor(moments.products / total - np.outer(centre, centre), shrinkage) if background else None
    return Discriminant(weight.astype(np.float32), bias.astype(np.float32), means, factor, spread, centre)


def _shrunk_factor(covariance: Floats, shrinkage: float) -> Floats32:
    """Cholesky factor float32 (F, F), of which the lower triangle alone is valid."""
    mean = max(1e-6, float(np.trace(covariance)) / len(covariance))
    shrunk = ((1 - shrinkage) * covariance).astype(np.float32)  # shrunk, it is far from singular
    shrunk[np.diag_indices(len(shrunk))] += np.float32(shrinkage * mean)
    factor: Floats32 = cho_factor(shrunk, lower=True, overwrite_a=True, check_finite=False)[0]
    return factor


def stratified_folds(labels: Ints, folds: int, seed: int, groups: Sequence[str] | None = None) -> Ints:
    """Number of each row's fold, int64 (N,): at random, each class spread evenly.

    Args:
        labels: int64 (N,): class indices.
        folds: number of folds.
        seed: seed of the order.
        groups: N names of groups that stay in one fold; an empty name is a group of its own. None: rows are single.
    """
    rng = np.random.default_rng(seed)
    folded = np.empty(len(labels), dtype=np.int64)
    if groups is None or not any(groups):
        order = rng.permutation(len(labels))
        order = order[np.argsort(labels[order], kind="stable")]
        # Each class begins where the last one ended, so that tiny classes do not all lie in the first fold.
        folded[order] = np.arange(len(labels)) % folds
        return folded
    members: dict[tuple[int, str], list[int]] = {}
    for row, group in enumerate(groups):
        members.setdefault((-1, group) if group else (row, ""), []).append(row)
    sizes = np.zeros((folds, int(labels.max()) + 1))
    keys = list(members)
    drawn = rng.permutation(len(keys))
    for key in sorted(drawn.tolist(), key=lambda number: -len(members[keys[number]])):  # the largest first
        rows = members[keys[key]]
        mine = labels[rows]
        present = np.unique(mine)
        fold = int(np.argmin(sizes[:, present].sum(axis=1) + 1e-6 * sizes.sum(axis=1)))
        folded[rows] = fold
        np.add.at(sizes[fold], mine, 1)
    return folded
