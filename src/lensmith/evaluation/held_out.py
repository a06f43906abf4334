"""Held-out images: those of a set that a model neither learnt from nor was chosen on, found by content.

A figure on images that the model knows flatters it. So the images that a bundle's image hashes name are left out,
whatever became of the folder since. Where a bundle of an earlier lensmith has no hashes, results report that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import Use, hash_files
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import DataError

_USES: dict[str | None, Use] = {"train": "train", "val": "val"}


@dataclass(frozen=True)
class HeldOut(Result):
    """Counts of the images of a part that a model knows, and of those that were left out of its figures.

    Attributes:
        of: number of images of the part.
        learnt: number of them that the model learnt from; None: not known, as the bundle has no image hashes.
        chosen: number of them that it was chosen on, without having learnt from them; None as for `learnt`.
        complete: False: the hashes of some images that the model learnt from are not known.
        included: known images that were not left out: `train` those learnt from, `val` those chosen on.
        copies: number of evaluated images whose content another evaluated one has, too; 0 where it is not known.
    """

    computed: ClassVar[tuple[str, ...]] = ("left_out",)

    of: int
    learnt: int | None
    chosen: int | None
    complete: bool
    included: tuple[Use, ...] = ()
    copies: int = 0

    @property
    def known(self) -> bool:
        """Whether it is known which images the model learnt from."""
        return self.learnt is not None

    @property
    def left_out(self) -> int:
        """Number of images of the part that were left out."""
        return sum(count for use, count in self._counts.items() if use not in self.included)

    @property
    def _counts(self) -> dict[Use, int]:
        return {"train": self.learnt or 0, "val": self.chosen or 0}

    def headline(self, images: int, part: str) -> str:
        """The number of evaluated images, and what the model did with them, for the first line of a result.

        Args:
            images: number of images that were evaluated.
            part: train, val, test or all.
        """
        where = "" if part == "all" else f", part {part}"
        if self.learnt is None:
            return f"{images:,} images{where or ', all parts'}; which of them the model learnt from is not known"
        seen = {use: count for use, count in self._counts.items() if use in self.included and count}
        if not seen:
            return f"held out {images:,} of {self.of:,} images{where}"
        did = {"train": "learnt from", "val": "was chosen on"}
        which = " and ".join(f"{did[use]} {count:,}" for use, count in seen.items())
        return f"{images:,} of {self.of:,} images{where}, not held out: the model {which} of them"

    def notes(self) -> Iterator[str]:
        """Remarks for a report, one or two sentences each."""
        if self.learnt is None:
            yield (
                "The bundle has no image hashes, since an earlier lensmith made it. If the model learnt from some of "
                "these images, the numbers flatter it. Export its run again to know: lensmith export RUN"
            )
            return
        if not self.complete:
            yield (
                "The bundle lacks the hashes of some images that the model learnt from: they, or the run of its first "
                "weights, were gone when it was made. If they are among these images, the numbers flatter it."
            )
        if self.left_out:
            yield (
                f"Left out: {self.left_out:,} of {self.of:,} images, which the model knows by their content "
                f"(learnt from: {self.learnt:,}, chosen on: {self.chosen:,})."
            )
        if self.copies:
            yield (
                f"Of the evaluated images, {self.copies:,} are copies of others. Each file counts, so intervals are "
                "narrower than the number of different images allows; `lensmith data check` names them."
            )


def held_out(
    bundle: Bundle,
    images: ImageSet,
    samples: Sequence[Sample],
    included: tuple[Use, ...] = (),
    *,
    name: str = "the model",
    remedy: str = "Give images that it has not seen; `--part val` evaluates it on the part on which it was chosen.",
) -> tuple[tuple[Sample, ...], HeldOut]:
    """The samples that a model does not know, with the counts.

    Args:
        bundle: the model's bundle; where it does not know the images, every sample is taken.
        images: the image set.
        samples: samples of the set.
        included: uses of images that are taken nevertheless, such as `val` for the part that the model was chosen on.
        name: name of the model for an error.
        remedy: last sentence of an error.

    Raises:
        DataError: no sample is left.
    """
    known, hashes = bundle.image_hashes(), []
    if known is not None:
        files = [images.file(sample) for sample in samples]
        hashes = list(track(hash_files(files), "Comparing content", len(files)))
        # A file that cannot be read counts as held out: whatever reads it next says what is wrong with it.
        uses = [None if each is None else known.use_of(each) for each in hashes]
    elif images.fingerprint == bundle.manifest.dataset.get("fingerprint"):  # the unchanged set of the training
        uses = [_USES.get(sample.part) for sample in samples]
    else:
        return tuple(samples), HeldOut(len(samples), None, None, complete=False)
    entry = bundle.manifest.image_hashes
    rows = [row for row, use in enumerate(uses) if use is None or use in included]
    contents = [each[0] if each[1] is None else each[1] for row in rows if hashes and (each := hashes[row])]
    found = HeldOut(
        of=len(samples),
        learnt=uses.count("train"),
        chosen=uses.count("val"),
        complete=entry is None or entry.complete,
        included=included,
        copies=len(contents) - len(set(contents)),
    )
    if samples and not rows:
        raise DataError(
            f"Images that {name} neither learnt from nor was chosen on were expected in {images.root}.",
            f"Of {len(samples):,} images, it learnt from {found.learnt:,} and was chosen on {found.chosen:,}.",
            remedy,
        )
    return tuple(samples[row] for row in rows), found
