"""Near copies of training images among those that are evaluated: figures on them promise too much.

Images that the model learnt from are known by the hashes of their content, which find equal files and equal pixels
only. So near copies are searched where the training images themselves lie in the same data; of others nothing is known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import hash_files
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.near_copies.search import find_near_copies

MOST = 10_000
"""Most images, evaluated and training ones together, that are compared: about a minute with photos on two cores."""


@dataclass(frozen=True)
class NearPair(Result):
    """An evaluated image and the training image that it is a near copy of.

    Attributes:
        path: file of the evaluated image.
        label: its class.
        training: file of the training image.
        training_label: the class of that one; where it is another, one of the labels is wrong.
        similarity: one less the difference of the aligned pictures, 0..1.
    """

    path: Path
    label: str
    training: Path
    training_label: str
    similarity: float


@dataclass(frozen=True)
class NearTraining(Result):
    """Evaluated images that are near copies of training images.

    Attributes:
        pairs: the most similar first; empty where nothing was searched.
        compared: number of training images that they were compared with; 0: none lie in the data, or too many.
        learnt: number of images that the model learnt from; None: not known.
        too_many: number of images, where more than `MOST` would have to be compared; else None.
    """

    pairs: tuple[NearPair, ...]
    compared: int
    learnt: int | None
    too_many: int | None = None

    @property
    def note(self) -> str:
        """A sentence or two for a report: what was found, and what cannot be seen."""
        if self.too_many is not None:
            return (
                f"Near copies of training images were not searched among {self.too_many:,} images, which is more than "
                f"{MOST:,}: `lensmith data check DIR --near` finds them."
            )
        if not self.compared:
            return (
                "Whether evaluated images are near copies of training images is not known, as none of those lie in "
                "these data; equal ones are left out."
            )
        among = f"{self.compared:,} training images"
        if self.learnt is not None and self.learnt > self.compared:
            among = f"{self.compared:,} of {self.learnt:,} training images, those that lie in these data"
        if not self.pairs:
            return f"No evaluated image is a near copy of {among}."
        named = listed((f"{printable(each.path.name)} of {printable(each.training.name)}" for each in self.pairs), 3)
        return (
            f"Near copies of {among}: {len({each.path for each in self.pairs}):,} evaluated images ({named}). Figures "
            "on them promise too much; a split with `--group auto` keeps near copies in one part."
        )


def near_training(bundle: Bundle, images: ImageSet, evaluated: Sequence[Sample]) -> NearTraining | None:
    """The evaluated images that are near copies of images of the set that the model learnt from; None: not known.

    Args:
        bundle: the model's bundle, which knows what it learnt from.
        images: the image set.
        evaluated: samples of the set, none of which the model learnt from.
    """
    entry, known = bundle.manifest.image_hashes, bundle.image_hashes()
    learnt = None if entry is None or not entry.complete else entry.train
    if len(images.samples) > MOST:
        return NearTraining((), 0, learnt, too_many=len(images.samples))
    names = {sample.path for sample in evaluated}
    others = [sample for sample in images.samples if sample.path not in names]
    if known is None:
        if images.fingerprint != bundle.manifest.dataset.get("fingerprint"):
            return None
        training = [sample for sample in others if sample.part == "train"]
    else:
        hashes = hash_files([images.file(sample) for sample in others])
        training = [
            sample for sample, each in zip(others, hashes, strict=True) if each and known.use_of(each) == "train"
        ]
    if not training:
        return NearTraining((), 0, learnt)
    found = find_near_copies(replace(images, samples=(*evaluated, *training)))
    label = {sample.path: images.labels[sample.label] for sample in images.samples}
    pairs = [
        NearPair(images.root / first, label[first], images.root / other, label[other], pair.similarity)
        for pair in found
        for first, other in (pair.paths, pair.paths[::-1]) if first in names and other not in names
    ]  # fmt: skip
    return NearTraining(tuple(sorted(pairs, key=lambda pair: (-pair.similarity, pair.path))), len(training), learnt)
