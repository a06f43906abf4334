"""Parts of old and new pictures: old ones keep the part that they had for the champion, and only new ones are divided.

Else pictures that the champion learnt from would test its successor, or the other way round, and figures before and
after would be of different pictures.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lensmith.bundle.format import Bundle
from lensmith.bundle.image_hashes import hash_files
from lensmith.config import SplitSettings
from lensmith.core.files import atomic_write
from lensmith.core.progress import track
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.manifest import manifest_text
from lensmith.data.part_names import Part
from lensmith.data.scan import MANIFEST, scan
from lensmith.data.split import SplitResult, split


@dataclass(frozen=True)
class DividedPictures:
    """The manifest of an update.

    Attributes:
        manifest: path of the manifest.
        split: result of the split.
        new: paths in the set of the pictures that were not there when the champion was trained.
        images: the set as the manifest has it.
    """

    manifest: Path
    split: SplitResult
    new: tuple[str, ...]
    images: ImageSet


def divide_pictures(
    data: Path, manifest: Path, champion: Bundle, recipe: Mapping[str, Any], exclude: Path | None, relabel: Path | None
) -> DividedPictures:
    """Write or extend the update's manifest.

    Parts are, in this order, those of the update before, of the folder's own splits.csv, of the champion's run folder,
    those that the champion knows by content, and for the rest those of `lensmith data split`. A split that the data
    brings is used unchanged.

    Args:
        data: image folder or manifest.
        manifest: path of the update's manifest.
        champion: bundle of the champion.
        recipe: settings of the champion's training.
        exclude: list of pictures to leave out.
        relabel: list of labels to change.

    Raises:
        DataError: a set that cannot be used.
    """
    layout, group = recipe.get("layout", "auto"), recipe.get("group", "none")
    found = scan(data, manifest=False, layout=layout)
    files = [found.file(sample) for sample in found.samples]
    own, theirs = _rows(manifest), _rows(data / MANIFEST)
    of_run = _rows(Path(recipe["out"]) / MANIFEST) if recipe.get("out") else {}
    hashes = track(hash_files(files), "comparing content", len(files))
    known = champion.image_hashes()
    samples, labels, new = [], [], set()
    for sample, file, both in zip(found.samples, files, hashes, strict=True):
        path, label = os.path.realpath(file), found.labels[sample.label]
        mended = theirs.get(path)
        before = own.get(path) or mended or of_run.get(path)
        part: Part | None = None
        if known is not None and both is not None:
            part = known.use_of(both) or ("test" if known.was_tested(both) else None)
        if part is None and path not in of_run:
            new.add(path)
        part = part if before is None else before.part
        if part is not None:
            samples.append(replace(sample, part=part, group=(before.group if before else "") or sample.group))
            labels.append(label if mended is None else mended.label)  # people mend labels in that file
    if samples and not found.parts:
        manifest.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(manifest, manifest_text(_with_labels(found, samples, labels), manifest))
    divided = split(
        SplitSettings(
            folder=data, out=manifest, ratio=recipe.get("split", (5, 3, 2)), seed=recipe.get("seed", 0), layout=layout,
            group=group, exclude=exclude, relabel=relabel, overwrite=bool(found.parts),
        )
    )  # fmt: skip
    images = scan(manifest)
    fresh = tuple(sample.path for sample in images.samples if os.path.realpath(images.file(sample)) in new)
    return DividedPictures(manifest, divided, fresh, images)


@dataclass(frozen=True)
class _RowBefore:
    """What an older manifest says of a picture."""

    label: str
    part: Part
    group: str


def _rows(manifest: Path) -> dict[str, _RowBefore]:
    """What a manifest says, by real path; nothing where there is none, or it has no parts."""
    if not manifest.is_file():
        return {}
    images = scan(manifest)
    return {
        os.path.realpath(images.file(sample)): _RowBefore(images.labels[sample.label], sample.part, sample.group)
        for sample in images.samples if sample.part is not None
    }  # fmt: skip


def _with_labels(images: ImageSet, samples: Sequence[Sample], names: Sequence[str]) -> ImageSet:
    """The set of these samples with these labels."""
    labels = tuple(sorted(set(names)))
    renamed = (replace(sample, label=labels.index(name)) for sample, name in zip(samples, names, strict=True))
    return replace(images, labels=labels, samples=tuple(renamed))
