"""Annotators compared: how far they agree, which classes they mix up, and how good each of them is."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lensmith.config import AgreementSettings
from lensmith.config.values import ConsensusMethod
from lensmith.core.result import Result
from lensmith.core.stats import wilson
from lensmith.core.text import listed
from lensmith.data.agreement import (
    MOST_PAIRS,
    Estimate,
    PairAgreement,
    confusion,
    meaning_of_alpha,
    overall_agreement,
    pair_agreements,
    pair_count,
)
from lensmith.data.annotator_sources import Labelled
from lensmith.data.consensus import ADVICE, Consensus, Contested, majority_of_others, votes_of
from lensmith.data.dawid_skene import dawid_skene, is_affordable
from lensmith.data.ratings import Ints, Ratings

MOST_MATRIX_CLASSES = 200
"""Number of classes up to which the result has the whole confusion matrix."""
FEW_IMAGES = 30
"""Number of pictures in common below which intervals are wide, and a warning says so."""


@dataclass(frozen=True)
class AnnotatorQuality(Result):
    """One annotator beside the others.

    Attributes:
        annotator: name of the annotator.
        images: number of images with a label of this annotator.
        compared: number of these for which the majority of the others is one class.
        agreement: share of these on which the annotator agrees with that majority, 0..1, with Wilson's interval.
        accuracy: expected share of true labels by the method of Dawid and Skene, 0..1; None where it is not affordable
            or there are fewer than three annotators, of whom nobody knows which is right.
        mixed_up: class of the others' majority, class of the annotator, and number of images, the commonest first.
        alone: classes that this annotator alone uses.
    """

    annotator: str
    images: int
    compared: int
    agreement: Estimate
    accuracy: float | None
    mixed_up: tuple[tuple[str, str, int], ...]
    alone: tuple[str, ...]


@dataclass(frozen=True)
class AgreementFiles(Result):
    """Files that `lensmith data agreement` wrote.

    Attributes:
        manifest: CSV of path,label with the consensus.
        contested: work list of the images without one, for `lensmith review`.
        report: HTML page.
    """

    manifest: Path
    contested: Path
    report: Path


@dataclass(frozen=True)
class AgreementResult(Result):
    """Result of `lensmith data agreement`. C classes.

    Attributes:
        sources: tables and annotation sources that were read.
        images: number of images with a label.
        compared: number of images with labels of two annotators or more.
        labels: number of labels; the same label of one annotator for one image counts once.
        classes: names of the C classes, sorted.
        percentage_agreement: share of the pairs of labels of one image that are equal, 0..1.
        fleiss_kappa: Fleiss' kappa, over `fleiss_images` images with `fleiss_labels` labels each.
        fleiss_images: number of the images that Fleiss' kappa is of.
        fleiss_labels: number of labels that most images have.
        krippendorff_alpha: Krippendorff's alpha for nominal data, over all images with two labels or more.
        meaning: what the alpha means, in words.
        pairs: agreement of each pair of annotators, with Cohen's kappa; the 1,000 with most images in common at most.
        annotators: each annotator beside the others, the one that agrees least first.
        confusion: C × C numbers of pairs of labels of one image by their classes, symmetric; None above 200 classes.
        mixed_up: two classes that one image has, and number of pairs of labels, the commonest first.
        consensus: method of the consensus.
        decided: number of images with a consensus.
        contested: images without a consensus.
        files: paths of the files that were written; None without --out.
        notes: sentences about how labels were read and put together.
        warnings: sentences about what is doubtful or left out.
    """

    sources: tuple[Path, ...]
    images: int
    compared: int
    labels: int
    classes: tuple[str, ...]
    percentage_agreement: Estimate
    fleiss_kappa: Estimate
    fleiss_images: int
    fleiss_labels: int
    krippendorff_alpha: Estimate
    meaning: str
    pairs: tuple[PairAgreement, ...]
    annotators: tuple[AnnotatorQuality, ...]
    confusion: tuple[tuple[int, ...], ...] | None
    mixed_up: tuple[tuple[str, str, int], ...]
    consensus: ConsensusMethod
    decided: int
    contested: tuple[Contested, ...]
    files: AgreementFiles | None
    notes: tuple[str, ...]
    warnings: tuple[str, ...]


def compare(labelled: Labelled, agreed: Consensus, settings: AgreementSettings) -> AgreementResult:
    """Compare annotators; nothing is written.

    Args:
        labelled: labels of two annotators or more.
        agreed: consensus of these labels.
        settings: settings of the verb.
    """
    ratings = votes_of(labelled.rows).ratings
    overall = overall_agreement(ratings, settings.seed)
    counts = confusion(ratings)
    return AgreementResult(
        sources=tuple(settings.sources),
        images=len({row.path for row in labelled.rows}),
        compared=int(ratings.compared.sum()),
        labels=len(ratings.label),
        classes=ratings.classes,
        percentage_agreement=overall.percentage,
        fleiss_kappa=overall.fleiss_kappa,
        fleiss_images=overall.fleiss_pictures,
        fleiss_labels=overall.fleiss_labels,
        krippendorff_alpha=overall.krippendorff_alpha,
        meaning=meaning_of_alpha(overall.krippendorff_alpha),
        pairs=tuple(pair_agreements(ratings, settings.seed)),
        annotators=_qualities(ratings),
        confusion=tuple(map(tuple, counts.tolist())) if len(counts) <= MOST_MATRIX_CLASSES else None,
        mixed_up=_mixed_up(ratings, counts),
        consensus=settings.consensus,
        decided=len(agreed.annotations),
        contested=agreed.contested,
        files=None,
        notes=(*labelled.notes, *agreed.notes),
        warnings=(
            *labelled.warnings,
            *(each.removesuffix(ADVICE) for each in agreed.warnings),
            *_warnings(ratings, settings.consensus),
        ),
    )


def _qualities(ratings: Ratings) -> tuple[AnnotatorQuality, ...]:
    """Each annotator beside the others, the one that agrees least first, then those who share no image."""
    is_estimated = len(ratings.annotators) > 2 and bool(ratings.compared.any()) and is_affordable(ratings)
    accuracy = dawid_skene(ratings).accuracy if is_estimated else None
    others = majority_of_others(ratings)
    users: dict[int, set[int]] = defaultdict(set)
    for label, annotator in zip(ratings.label.tolist(), ratings.annotator.tolist(), strict=True):
        users[label].add(annotator)
    found = []
    for number, name in enumerate(ratings.annotators):
        rows = ratings.annotator == number
        own, wanted = ratings.label[rows & (others >= 0)], others[rows & (others >= 0)]
        agreeing, compared = int((own == wanted).sum()), len(own)
        agreement = Estimate(None, reason="no image has a clear majority of others")
        if compared:
            agreement = Estimate(agreeing / compared, wilson(agreeing, compared))
        mixed = Counter(zip(wanted[own != wanted].tolist(), own[own != wanted].tolist(), strict=True))
        found.append(
            AnnotatorQuality(
                name,
                int(rows.sum()),
                compared,
                agreement,
                None if accuracy is None else float(accuracy[number]),
                tuple((ratings.classes[a], ratings.classes[b], count) for (a, b), count in mixed.most_common()),
                tuple(ratings.classes[label] for label in sorted(users) if users[label] == {number}),
            )
        )
    return tuple(sorted(found, key=lambda each: (each.agreement.value is None, each.agreement.value or 0.0)))


def _mixed_up(ratings: Ratings, counts: Ints) -> tuple[tuple[str, str, int], ...]:
    """Two classes and their number of pairs, from the confusion matrix, int64 (C, C)."""
    first, second = np.nonzero(np.triu(counts, 1))
    found = sorted(
        (-int(counts[a, b]), ratings.classes[a], ratings.classes[b]) for a, b in zip(first, second, strict=True)
    )
    return tuple((a, b, -count) for count, a, b in found)


def _warnings(ratings: Ratings, method: ConsensusMethod) -> Iterator[str]:
    """Sentences on what makes the figures doubtful."""
    compared = ratings.compared[ratings.picture]
    alone = [
        name for number, name in enumerate(ratings.annotators)
        if not (compared & (ratings.annotator == number)).any()
    ]  # fmt: skip
    if alone:
        yield f"Annotators who share no image with another, and are not compared: {listed(alone)}."
    shared = int(ratings.compared.sum())
    if 0 < shared < FEW_IMAGES:
        yield f"Only {shared:,} images have labels of two annotators; so all figures are rough."
    if (pairs := pair_count(ratings)) > MOST_PAIRS:
        yield f"Of {pairs:,} pairs of annotators the {MOST_PAIRS:,} with most images in common are compared."
    if method == "dawid-skene" and len(ratings.annotators) < 3:
        yield "Of two annotators nothing tells who is right where they differ; Dawid and Skene's method needs three."
