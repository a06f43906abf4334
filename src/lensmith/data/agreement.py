"""Inter-annotator agreement: percentage, Cohen's kappa, Fleiss' kappa, Krippendorff's alpha, each with an interval.

All are for nominal labels, of which any may be missing. Intervals are percentile bootstraps over pictures: pictures are
drawn with replacement, each with all of its labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.stats import percentile_interval
from lensmith.data.ratings import Floats, Ints, Ratings

DRAWS = 1000
"""Resamples of an interval."""
MOST_PAIRS = 1000
"""Pairs of annotators that are compared; of a crowd's many thousands most share a picture or two."""
PAIR_DRAWS = 100_000
"""Resamples of all pairs of annotators together, at least 200 for each: a hundred pairs have DRAWS."""
RELIABLE, TENTATIVE = 0.8, 2 / 3
"""Alphas from which on labels are reliable, and from which on tentative conclusions are allowed (Krippendorff 2019)."""
ONE_CLASS = "all labels are of one class, so there is nothing that chance could get wrong"
NOTHING_IN_COMMON = "no picture has labels of two annotators"


@dataclass(frozen=True)
class Estimate(Result):
    """A figure with its interval.

    Attributes:
        value: the figure; None where it is not defined.
        interval: both ends of the 95 % interval; None where there is none.
        reason: why the figure is not defined, in words; None where it is.
    """

    value: float | None
    interval: tuple[float, float] | None = None
    reason: str | None = None


@dataclass(frozen=True)
class ChanceCorrected(Result):
    """Agreement of all annotators together.

    Attributes:
        percentage: share of the pairs of labels of one picture that are of one class, 0..1.
        fleiss_kappa: Fleiss' kappa over `fleiss_pictures` pictures.
        fleiss_pictures: number of pictures that have exactly `fleiss_labels` labels, as Fleiss' kappa needs them.
        fleiss_labels: the number of labels, two or more, that most pictures have.
        krippendorff_alpha: Krippendorff's alpha for nominal data, over all pictures with two labels or more.
    """

    percentage: Estimate
    fleiss_kappa: Estimate
    fleiss_pictures: int
    fleiss_labels: int
    krippendorff_alpha: Estimate


@dataclass(frozen=True)
class PairAgreement(Result):
    """Agreement of two annotators.

    Attributes:
        annotators: both names.
        images: number of images that both labelled.
        agreement: share of these on which they agree, 0..1; None without one.
        cohen_kappa: Cohen's kappa over these.
        mixed_up: class of the first, class of the second, and number of images, the commonest first.
    """

    annotators: tuple[str, str]
    images: int
    agreement: float | None
    cohen_kappa: Estimate
    mixed_up: tuple[tuple[str, str, int], ...]

    @property
    def order(self) -> tuple[float, tuple[str, str]]:
        """Sort key: the lowest kappa first, then pairs without one."""
        kappa = self.cohen_kappa.value
        return (2.0 if kappa is None else kappa), self.annotators


def krippendorff_alpha(disagreements: float, class_counts: Ints) -> float:
    """Krippendorff's alpha for nominal data (Krippendorff 2019, Content Analysis, 4th edition, chapter 12).

    Args:
        disagreements: sum over pictures of the ordered pairs of labels that differ, each divided by the picture's
            number of labels less one.
        class_counts: int64 (C,): number of labels of each class, in pictures with two labels or more.

    Returns:
        The coefficient, 1 at most; NaN where all labels are of one class.
    """
    total = float(class_counts.sum())
    expected = total * total - float((class_counts.astype(np.float64) ** 2).sum())
    return 1 - (total - 1) * disagreements / expected if expected > 0 else float("nan")


def fleiss_kappa(observed: float, class_counts: Ints) -> float:
    """Fleiss' kappa (Fleiss 1971, Psychological Bulletin 76).

    Args:
        observed: mean share of the pairs of a picture's labels that agree, 0..1.
        class_counts: int64 (C,): number of labels of each class.

    Returns:
        The coefficient, 1 at most; NaN where all labels are of one class.
    """
    shares = class_counts / max(1, class_counts.sum())
    expected = float((shares**2).sum())
    return (observed - expected) / (1 - expected) if np.count_nonzero(class_counts) > 1 else float("nan")


def cohen_kappa(counts: npt.NDArray[Any], first: Ints, second: Ints) -> Floats:
    """Cohen's kappa (Cohen 1960, Educational and Psychological Measurement 20) of cells of a confusion matrix.

    Args:
        counts: number (B, K): number of pictures in each of K cells, K ≥ 1, for B resamples.
        first: int64 (K,): class that the first annotator gave, of each cell.
        second: int64 (K,): class that the second one gave.

    Returns:
        float64 (B,): 1 at most; NaN where both gave one and the same class throughout.
    """
    total = counts.sum(axis=1)
    observed = counts[:, first == second].sum(axis=1) / total
    used = np.union1d(first, second)
    expected = (_sums(counts, first, used) * _sums(counts, second, used)).sum(axis=1) / total.astype(np.float64) ** 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(expected < 1, (observed - expected) / (1 - expected), np.nan), np.float64)


def _sums(counts: npt.NDArray[Any], of_cell: Ints, used: Ints) -> Floats:
    """float64 (B, U): sums of the cells' counts, number (B, K), by class, for the U classes used."""
    order = np.argsort(of_cell, kind="stable")
    present, starts = np.unique(of_cell[order], return_index=True)
    found = np.zeros((len(counts), len(used)))
    found[:, np.searchsorted(used, present)] = np.add.reduceat(counts[:, order], starts, axis=1)
    return found


def overall_agreement(ratings: Ratings, seed: int = 0) -> ChanceCorrected:
    """Agreement of all annotators: percentage, Fleiss' kappa and Krippendorff's alpha, with bootstrap intervals.

    Args:
        ratings: the labels.
        seed: seed of the resamples.
    """
    if not ratings.compared.any():
        nothing = Estimate(None, reason=NOTHING_IN_COMMON)
        return ChanceCorrected(nothing, nothing, 0, 0, nothing)
    # Only pictures with two labels or more take part. Those with the same labels are one pattern, and are counted:
    # what a bootstrap draws of them is multinomial.
    hashes = np.random.default_rng(0).integers(2**64, size=len(ratings.classes), dtype=np.uint64)
    signatures = np.add.reduceat(hashes[ratings.label], ratings.starts)[ratings.compared]
    _, first, counts = np.unique(signatures, return_index=True, return_counts=True)  # of K patterns
    pictures = np.flatnonzero(ratings.compared)[first]
    sizes = ratings.labels_of_picture[pictures]
    label = ratings.label[
        np.concatenate([np.arange(n) + at for n, at in zip(sizes, ratings.starts[pictures], strict=True)])
    ]
    pattern = np.repeat(np.arange(len(pictures)), sizes)
    pair_picture, _, _, a, b = ratings.pairs
    agreeing = np.bincount(pair_picture, weights=a == b, minlength=len(ratings.pictures))[pictures]
    pairs = sizes * (sizes - 1) / 2
    differing = 2 * (pairs - agreeing) / (sizes - 1)
    lengths, of_length = np.unique(np.repeat(sizes, counts), return_counts=True)
    usual = int(lengths[np.flatnonzero(of_length == of_length.max())[-1]])  # of equally common ones the largest

    def figures(weights: Ints) -> tuple[float, float, float]:
        """Percentage, Fleiss' kappa and alpha of patterns that occur int64 (K,) times each."""
        as_usual = np.where(sizes == usual, weights, 0)
        # Sums of products rather than @, whose threads wait for each other on a busy machine.
        observed = float((as_usual * agreeing / pairs).sum()) / max(1, int(as_usual.sum()))
        return (
            float((weights * agreeing).sum() / (weights * pairs).sum()),
            fleiss_kappa(observed, class_counts(as_usual)),
            krippendorff_alpha(float((weights * differing).sum()), class_counts(weights)),
        )

    def class_counts(weights: Ints) -> Ints:
        """int64 (C,): number of labels of each class."""
        found = np.bincount(label, weights=weights[pattern], minlength=len(ratings.classes))
        return found.astype(np.int64)

    generator, total = np.random.default_rng(seed), int(counts.sum())
    drawn = [figures(generator.multinomial(total, counts / total)) for _ in track(range(DRAWS), "intervals")]
    percentage, kappa, alpha = (
        _estimate(value, draws) for value, draws in zip(figures(counts), np.array(drawn).T, strict=True)
    )
    return ChanceCorrected(percentage, kappa, int(of_length.max()), usual, alpha)


def pair_count(ratings: Ratings) -> int:
    """Number of pairs of annotators who labelled a picture in common."""
    _, one, other, _, _ = ratings.pairs
    return len(np.unique(one * len(ratings.annotators) + other))


def pair_agreements(ratings: Ratings, seed: int = 0) -> Iterator[PairAgreement]:
    """Cohen's kappa of pairs of annotators who labelled a picture in common, in the order of their names.

    Of more than MOST_PAIRS these are the ones with most pictures in common.

    Args:
        ratings: the labels.
        seed: seed of the resamples.
    """
    annotators, classes = len(ratings.annotators), len(ratings.classes)
    _, one, other, a, b = ratings.pairs
    key, count = np.unique(((one * annotators + other) * classes + a) * classes + b, return_counts=True)
    pair, cell = np.divmod(key, max(1, classes * classes))
    found, starts = np.unique(pair, return_index=True)
    ends = np.append(starts, len(pair))[1:]
    if len(found) > MOST_PAIRS:
        most = np.sort(np.argsort(-np.add.reduceat(count, starts), kind="stable")[:MOST_PAIRS])
        found, starts, ends = found[most], starts[most], ends[most]
    generator = np.random.default_rng(seed)
    draws_each = min(DRAWS, max(200, PAIR_DRAWS // max(1, len(found))))
    for number, start, end in track(list(zip(found.tolist(), starts.tolist(), ends.tolist(), strict=True)), "pairs"):
        counts = count[start:end]
        first, second = np.divmod(cell[start:end], classes)
        total = int(counts.sum())
        draws = generator.multinomial(total, counts / total, size=draws_each)
        kappa = _estimate(float(cohen_kappa(counts[None], first, second)[0]), cohen_kappa(draws, first, second))
        cells = sorted(
            (-int(n), ratings.classes[x], ratings.classes[y])
            for x, y, n in zip(first, second, counts, strict=True) if x != y
        )  # fmt: skip
        yield PairAgreement(
            (ratings.annotators[number // annotators], ratings.annotators[number % annotators]),
            total,
            float(counts[first == second].sum() / total),
            kappa,
            tuple((x, y, -n) for n, x, y in cells),
        )


def confusion(ratings: Ratings) -> Ints:
    """int64 (C, C): number of pairs of labels of one picture by their two classes; symmetric."""
    classes = len(ratings.classes)
    _, _, _, a, b = ratings.pairs
    one_way = np.bincount(a * classes + b, minlength=classes * classes).reshape(classes, classes)
    both = one_way + one_way.T
    both[np.diag_indices(classes)] //= 2
    return both.astype(np.int64)


def meaning_of_alpha(alpha: Estimate) -> str:
    """What an alpha means, in words, by the thresholds of Krippendorff 2019 (as above).

    Args:
        alpha: the coefficient with its interval, or why it is not defined.
    """
    if alpha.value is None or alpha.interval is None:
        return f"Krippendorff's alpha is not defined: {alpha.reason}."
    source = "Krippendorff, Content Analysis, 2019"
    if alpha.value >= RELIABLE:
        found = f"Alpha is 0.8 or more: the labels are reliable, and the annotators mean the same by them ({source})."
    elif alpha.value >= TENTATIVE:
        found = (
            f"Alpha is between 0.667 and 0.8: the labels allow tentative conclusions only ({source}). Look at the "
            "classes that are mixed up, and sharpen their definitions."
        )
    else:
        found = (
            f"Alpha is below 0.667: the labels are not reliable ({source}). The annotators do not mean the same by the "
            "classes; write down what each class is, with examples, and label again."
        )
    low, high = alpha.interval
    crossed = [f"{bound:.3g}" for bound in (TENTATIVE, RELIABLE) if low < bound <= high]
    uncertain = f" The interval from {low:.2f} to {high:.2f} contains {' and '.join(crossed)}, so this is not certain."
    return found + uncertain if crossed else found


def _estimate(value: float, draws: Floats) -> Estimate:
    """A figure with the interval of its resamples, float (B,), of which those are left out that have no value."""
    if not np.isfinite(value):
        return Estimate(None, reason=ONE_CLASS)
    low, high = percentile_interval(draws[np.isfinite(draws)])
    return Estimate(float(value), (float(low), float(high)))
