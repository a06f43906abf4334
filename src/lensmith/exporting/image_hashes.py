"""Image hashes for a bundle: images of the run, of its teachers and of the runs that its first weights are from.

A student learns its teacher's answers, and a network that starts from the weights of an earlier run has learnt from
that run's images. So these count, too, with the teachers and first weights of those runs.
"""

import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from lensmith.bundle.image_hashes import FILE, ImageHashes, Use, hash_files
from lensmith.core.files import atomic_path
from lensmith.data.image_set import PARTS
from lensmith.data.part_names import Part
from lensmith.errors import BundleError, RunError
from lensmith.evaluation.held_out import HeldOut
from lensmith.evaluation.metrics import Ints
from lensmith.training.models.weights import HUB_PREFIX
from lensmith.training.run_dir import checkpoint
from lensmith.training.run_dir.description import DESCRIPTION
from lensmith.training.run_dir.run import Run
from lensmith.training.unlabelled import pseudo_labelled_files

_LEVELS = 3
"""Folders above a weights file in which a run is looked for: RUN/checkpoints/best.pt, RUN/bundle-formats/…"""


def hashes_of(run: Run) -> ImageHashes:
    """Hashes of all images that a run's network learnt from or was chosen on.

    They are computed once and stored in the run folder, so that images which are removed later are still known.
    """
    stored = run.path / FILE
    with suppress(BundleError):
        return ImageHashes.read(stored)
    own = _own_hashes(run)
    found = ImageHashes.joined([own, *_hashes_of_origins(run)])
    found = replace(found, test_files=own.test_files, test_pixels=own.test_pixels)  # others may learn from theirs
    if found.complete:
        with suppress(OSError), atomic_path(stored) as partial:  # a run that may only be read can be exported elsewhere
            found.save(partial)
    return found


def not_learnt(hashes: ImageHashes, files: Sequence[Path], part: Part) -> tuple[Ints, HeldOut]:
    """Rows of the evaluated images that the network did not learn from, to which confidence and drift are fitted.

    In a validation part these are all but copies of training images, under whatever name; where all are copies, or
    without a validation part, they are all images.

    Args:
        hashes: the network's.
        files: the evaluated images.
        part: the part that they are.

    Returns:
        Rows, int64 (K,), and the counts for the report.
    """
    count = len(files)
    uses: list[Use | None] = ["train" if part == "train" else "val"] * count
    if part == "val" and hashes.has_copies:
        uses = ["val" if each is None else hashes.use_of(each) for each in hash_files(files)]
    found = HeldOut(count, uses.count("train"), uses.count("val"), hashes.complete, ("train", "val"))
    rows = np.flatnonzero([use != "train" for use in uses])
    return (rows if len(rows) else np.arange(count)), found


def copies_note(found: HeldOut, part: Part) -> tuple[str, ...]:
    """A sentence about validation images that are training images, too; none without such images."""
    if part != "val" or not found.learnt:
        return ()
    return (
        f"Of the validation images, {found.learnt:,} are among the training images, too: the metrics flatter it. "
        "Temperature, threshold and drift statistics leave them out.",
    )


def _own_hashes(run: Run) -> ImageHashes:
    """Hashes of a run's images, and of those with pseudo-labels, as they are now."""
    train, val, test = ([run.images.file(sample) for sample in run.images.part(part)] for part in PARTS)
    return ImageHashes.of([*train, *pseudo_labelled_files(run)], val, test)


def _hashes_of_origins(run: Run) -> Iterator[ImageHashes]:
    """Hashes of the runs that a run's teacher and first weights are from."""
    teacher, weights = run.settings.teacher, run.settings.weights
    folder = None if weights is None else _run_of(weights)
    for origin in (teacher, folder):
        if origin is None or origin.resolve() == run.path.resolve():
            continue
        try:
            yield hashes_of(Run.open(origin))
        except RunError as error:
            yield _unknown(f"images of {origin}: {error.arrived}")
    if weights is not None and folder is None and _is_of_unknown_run(weights):
        yield _unknown(f"images that the first weights learnt from: {weights} is in no run folder.")


def _unknown(what: str) -> ImageHashes:
    print(f"not known, and not left out of figures: {what}", file=sys.stderr)
    return replace(ImageHashes.of((), ()), complete=False)


def _is_of_unknown_run(weights: Path) -> bool:
    """Whether weights outside of any run folder are a run's: a checkpoint that was copied; or gone, so maybe."""
    is_on_hub = str(weights).startswith(HUB_PREFIX)
    return not is_on_hub and (checkpoint.is_checkpoint(weights) or not weights.exists())


def _run_of(weights: Path) -> Path | None:
    """The run folder that a weights file or folder lies in; None if it lies in none."""
    above = (weights, *weights.absolute().parents[:_LEVELS])
    return next((folder for folder in above if (folder / DESCRIPTION).is_file()), None)
