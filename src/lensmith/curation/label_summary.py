"""The label doctor in brief, for a set that a model is about to be trained on, such as by `lensmith update`.

It looks at new pictures and at a sample of the others, without the learning curve, so its time is bounded. Where
labels cannot be evaluated, the summary has the reason, and nothing is raised.
"""

import time
from collections.abc import Collection
from dataclasses import dataclass

from lensmith.config import TrainSettings
from lensmith.core.result import Result
from lensmith.core.stats import evenly_spaced
from lensmith.core.text import listed
from lensmith.curation.findings import Outlier, Suspect
from lensmith.curation.label_doctor import examine
from lensmith.curation.picture_quality import QualityFinding
from lensmith.data.image_set import ImageSet
from lensmith.errors import LensmithError

MOST = 10_000
"""Images that are looked at beside the new ones."""


@dataclass(frozen=True)
class LabelSummary(Result):
    """What the label doctor has to say about a set and its new pictures.

    Attributes:
        images: number of images that were evaluated; 0 where none could be.
        wrong_labels: expected number of wrong labels among them.
        suspects: labels that are flagged, the likeliest to be wrong first.
        new_suspects: labels of new pictures that another class fits better, flagged or not.
        new_outliers: new pictures that look like no class.
        new_quality: new pictures of poor quality.
        lines: sentences for people.
        seconds: duration in seconds.
        computed_features: number of images whose features were computed; those of the others were cached.
    """

    images: int
    wrong_labels: float
    suspects: tuple[Suspect, ...]
    new_suspects: tuple[Suspect, ...]
    new_outliers: tuple[Outlier, ...]
    new_quality: tuple[QualityFinding, ...]
    lines: tuple[str, ...]
    seconds: float
    computed_features: int = 0


def summarize(images: ImageSet, settings: TrainSettings, new: Collection[str] = ()) -> LabelSummary:
    """Examine a set in brief; nothing is written, and nothing is raised for a set that cannot be evaluated.

    Args:
        images: the set.
        settings: backbone, weights and size of the images; seed of the folds.
        new: paths of the samples that are new.
    """
    started, recent = time.perf_counter(), frozenset(new)
    others = evenly_spaced([sample for sample in images.samples if sample.path not in recent], MOST)
    samples = [*others, *(sample for sample in images.samples if sample.path in recent)]
    try:
        found = examine(images, settings, samples, curve=False)
    except LensmithError as error:
        why = f"Labels were not evaluated. {error.expected} {error.arrived}"
        return LabelSummary(0, 0.0, (), (), (), (), (why,), time.perf_counter() - started)
    suspects = tuple(each for each in found.suspects if each.path in recent)
    outliers = tuple(each for each in found.outliers if each.path in recent)
    quality = tuple(each for each in found.quality if each.path in recent)
    lines = [found.summary()[0]]
    if suspects:
        named = (f"{each.path} (labelled {each.label}, looks like {each.suggested})" for each in suspects)
        lines.append(f"New pictures that look like another class: {len(suspects):,}: {listed(named, 3)}.")
    if quality:
        named = (f"{each.path} ({each.kind})" for each in quality)
        lines.append(f"New pictures of poor quality: {len(quality):,}: {listed(named, 3)}.")
    if outliers:
        lines.append(f"New pictures that look like no class: {listed((each.path for each in outliers), 3)}.")
    seconds = time.perf_counter() - started
    return LabelSummary(
        found.images,
        found.wrong_labels,
        found.flagged,
        suspects,
        outliers,
        quality,
        tuple(lines),
        seconds,
        found.computed_features,
    )
