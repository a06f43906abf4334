"""What to label next (active learning): the unlabelled pictures whose labels would teach a model most.

The margin between the two likeliest classes tells how unsure the model is. Of the least sure, those are taken that
differ from each other: the centres of weighted k-means on features of a frozen backbone. Pictures that the model knows
by their content, and copies of one another, are not asked for.

Source: Zhdanov, Diverse mini-batch Active Learning, 2019, for the filter by margin and the clusters of the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import hash_files
from lensmith.config import TrainSettings
from lensmith.core.csv_text import csv_text, paths_from, require_csv_name, require_free
from lensmith.core.files import atomic_write
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.data.unlabelled import UnlabelledPictures, unlabelled_pictures
from lensmith.errors import DataError, SettingsError
from lensmith.inference.classifier import Prediction, load
from lensmith.training.feature_cache.image_features import image_features

CANDIDATES = 10
"""Pictures that are compared by their features, for each one that is asked for."""

COMPONENTS = 64
"""Principal components of the features that clusters are found in: distances hardly change, and time does."""

Floats = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class NextLabel:
    """A picture to label.

    Attributes:
        path: path relative to the folder of the pictures.
        suggested: the likeliest class.
        confidence: probability of the likeliest class, 0..1.
        score: 1 − margin between the two likeliest classes, 0..1; 1: the model cannot tell them apart.
        runner_up: the second likeliest class.
    """

    path: str
    suggested: str
    confidence: float
    score: float
    runner_up: str


@dataclass(frozen=True)
class NextLabels(Result):
    """Result of `lensmith data next`: the pictures to label, the least sure first.

    Attributes:
        pictures: pictures to label.
        root: folder that their paths are relative to.
        out: work list that was written.
        found: number of pictures that were looked at.
        known: number of them that the model knows by their content, and that are left out.
        copies: number of them that are copies of others, and that are left out.
        unreadable: path and reason of each picture that cannot be read.
        bundle: name and version of the bundle that answered.
        notes: sentences about what was left out.
    """

    pictures: tuple[NextLabel, ...]
    root: Path
    out: Path
    found: int
    known: int
    copies: int
    unreadable: tuple[tuple[str, str], ...]
    bundle: str
    notes: tuple[str, ...]


def next_labels(source: Path, bundle: Path, count: int, out: Path) -> NextLabels:
    """Choose the pictures to label next, and write them as a work list that `lensmith review` opens.

    Args:
        source: folder of pictures, or a table or text that names them.
        bundle: bundle of the model that is to learn.
        count: number of pictures to choose.
        out: CSV to write, in the place of an older one.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: no pictures, or none that can be read and is not known.
        ModelError: features of the backbone are not available.
        OutputError: a folder is where the work list is to be.
        SettingsError: no picture is asked for, or the work list is not named like a CSV.
    """
    if count < 1:
        raise SettingsError("At least one picture to label was expected.", f"{count} arrived.", "Give 1 or more.")
    require_csv_name(out, "--out")
    require_free(out, None, overwrite=True)
    found = unlabelled_pictures(source)
    classifier = load(bundle)
    paths, known, copies = _unknown(found, classifier.bundle)
    answers = classifier.stream([found.root / path for path in paths], top_k=2)
    answered: list[tuple[str, Prediction]] = []
    unreadable: list[tuple[str, str]] = []
    for path, answer in zip(paths, track(answers, "Classifying", len(paths)), strict=True):
        if answer.error is None:
            answered.append((path, answer))
        else:
            unreadable.append((path, answer.error))
    if not answered:
        raise DataError(
            f"Pictures that the model does not know were expected in {source}.",
            f"Of {len(found.paths):,} it knows {known:,}, and {len(unreadable):,} cannot be read.",
            "Give pictures that have not been learnt from.",
        )
    margins = np.array([answer.top[0].confidence - answer.top[-1].confidence for _, answer in answered])
    candidates = np.argsort(margins, kind="stable")[: CANDIDATES * count]
    if len(candidates) > count:
        settings = _backbone(classifier.bundle)
        images = found.images(classifier.bundle.labels, [answered[row][0] for row in candidates])
        features = image_features(images, images.samples, settings).values
        candidates = candidates[diverse(features, 1 - margins[candidates], count)]
    chosen = tuple(
        NextLabel(path, answer.top[0].label, answer.top[0].confidence, float(1 - margin), answer.top[-1].label)
        for (path, answer), margin in ((answered[row], margins[row]) for row in candidates)
    )
    _write(out, found.root, chosen)
    manifest = classifier.bundle.manifest
    return NextLabels(
        pictures=chosen,
        root=found.root,
        out=out,
        found=len(found.paths),
        known=known,
        copies=copies,
        unreadable=(*found.set_aside, *unreadable),
        bundle=f"{manifest.name} {manifest.version}",
        notes=found.notes,
    )


def diverse(features: Floats, weights: Floats, count: int) -> npt.NDArray[np.int64]:
    """Rows that differ from each other: of each cluster of weighted k-means the one that is nearest to its centre.

    Args:
        features: float (N, F), N ≥ `count`; a row with NaN is taken last.
        weights: float (N,), 0..1: how much each row's label is wanted.
        count: number of rows to choose.

    Returns:
        int64 (count,), rows by falling weight.
    """
    usable = np.flatnonzero(np.isfinite(features).all(axis=1))
    rows = features[usable].astype(np.float32)
    rows /= np.maximum(1e-9, np.linalg.norm(rows, axis=1, keepdims=True))
    components = min(COMPONENTS, *rows.shape)
    if components and rows.shape[1] > components:
        rows = PCA(components, svd_solver="randomized", random_state=0).fit_transform(rows)
    weights_of = np.maximum(weights[usable], 1e-3)
    clusters = min(count, len(np.unique(rows, axis=0)))
    taken: list[int] = []
    if clusters:
        means = KMeans(clusters, n_init=1, random_state=0).fit(rows, sample_weight=weights_of)
        distances = np.linalg.norm(rows - means.cluster_centers_[means.labels_], axis=1)
        for cluster in range(clusters):
            members = np.flatnonzero(means.labels_ == cluster)
            if len(members):
                taken.append(int(usable[members[np.argmin(distances[members])]]))
    rest = [row for row in np.argsort(-weights, kind="stable") if row not in set(taken)]
    chosen = np.array([*taken, *rest[: count - len(taken)]], dtype=np.int64)
    return chosen[np.argsort(-weights[chosen], kind="stable")]


def _unknown(found: UnlabelledPictures, bundle: Bundle) -> tuple[list[str], int, int]:
    """Paths of the pictures that the model does not know, once each; numbers of known ones and of copies."""
    hashes, seen = bundle.image_hashes(), set()
    paths, known, copies = [], 0, 0
    each = hash_files([found.root / path for path in found.paths])
    for path, content in zip(found.paths, track(each, "Looking for copies", len(found.paths)), strict=True):
        if content is not None and hashes is not None and hashes.use_of(content) is not None:
            known += 1
        elif content is not None and content in seen:
            copies += 1
        else:
            seen.add(content)
            paths.append(path)
    return paths, known, copies


def _backbone(bundle: Bundle) -> TrainSettings:
    """Settings of the backbone that features are taken from: the bundle's own where it is one of ours."""
    recipe, how = bundle.manifest.recipe, bundle.manifest.preprocessing
    named = {"model": recipe["model"]} if recipe.get("pretrained", False) and "model" in recipe else {}
    return TrainSettings(data=Path(), resize=how.resize, image_size=how.image_size if named else None, **named)


def _write(out: Path, root: Path, chosen: Sequence[NextLabel]) -> None:
    path = paths_from(root, out.parent)
    rows = [
        (path(each.path), each.suggested, f"{each.confidence:.4f}", f"{each.score:.4f}",
         f"{each.suggested} or {each.runner_up}")
        for each in chosen
    ]  # fmt: skip
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(out, csv_text(("path", "suggested", "confidence", "score", "reason"), rows))
