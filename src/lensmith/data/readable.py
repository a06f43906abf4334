"""Readable images: files that cannot be decoded leave a set before anything of it is split, counted or weighted.

Names and sizes do not tell: a HEIC photo may be called .jpg, and a download may have been cut short. So every file is
decoded once, at the smallest scale; the result is memoized on disk for each file (`core.file_memo`), with the digest of
its content, for which it would have to be read again.
"""

import json
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lensmith.core.file_memo import Values, memoized_by_file
from lensmith.core.progress import track
from lensmith.core.text import listed
from lensmith.core.version import installed_versions
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import DataError, ImageError
from lensmith.imaging.content_digests import KIND, digest_of
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import decode, may_need_value_range, read
from lensmith.imaging.formats import HEAD_BYTES
from lensmith.imaging.value_range import ValueRange

SHOWN_FILES = 3
"""Files that a warning names at most."""

_DECODERS = ("lensmith", "pillow", "pillow-heif")
"""Packages that decide what can be decoded."""


def without_unreadable(images: ImageSet, value_ranges: Mapping[str, ValueRange] | None = None) -> ImageSet:
    """The set without the images that cannot be decoded, which are added to `set_aside` and counted in a warning.

    Args:
        images: the set.
        value_ranges: black and white by kind of values, of a set of which all images can be decoded by themselves:
            images are left out that contradict them, such as a blank one; None: each is taken for a set of its own.

    Raises:
        DataError: not one image of the set, or of one of its parts, can be decoded.
    """
    reasons = _unreadable(images, value_ranges)
    if not reasons:
        return images
    left = tuple(sample for sample in images.samples if sample.path not in reasons)
    _require_some(images, left, reasons)
    lost = sorted((printable(path), reason) for path, reason in reasons.items())
    named = listed((path for path, _ in lost), SHOWN_FILES)
    warning = f"Images that cannot be decoded, and are left out: {len(reasons):,} of {len(images.samples):,} ({named})."
    set_aside = tuple(sorted([*images.set_aside, *lost]))
    return replace(images, samples=left, set_aside=set_aside, warnings=(*images.warnings, warning))


def _unreadable(images: ImageSet, value_ranges: Mapping[str, ValueRange] | None) -> dict[str, str]:
    """The reason for each sample that cannot be decoded, by its path."""
    depends_on: dict[str, Any] = {"versions": installed_versions(_DECODERS)}
    if value_ranges is not None:
        depends_on["value_ranges"] = {kind: list(ends) for kind, ends in sorted(value_ranges.items())}

    def examine(path: Path) -> Values:
        """The reason, empty where there is none, and the digest."""
        try:
            encoded = read(path)
        except ImageError:
            return None, None
        return _reason(encoded, value_ranges).encode(), digest_of(encoded)

    files = [images.file(sample) for sample in images.samples]
    kinds = (f"readable {json.dumps(depends_on, sort_keys=True)}", KIND)
    reasons = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only decoding matters here
        shown = track(memoized_by_file(kinds, files, examine, picture_of), "checking images", len(files))
        for sample, file, (reason, _) in zip(images.samples, files, shown, strict=True):
            if reason is None or reason:
                reasons[sample.path] = _read_error(file) if reason is None else reason.decode()
    return reasons


def _reason(encoded: bytes, value_ranges: Mapping[str, ValueRange] | None) -> str:
    """Why a file cannot be decoded; empty if it can."""
    try:
        if value_ranges is None or may_need_value_range(encoded[:HEAD_BYTES]):
            decode(encoded, 1, value_ranges=value_ranges)
    except ImageError as error:
        return error.arrived
    return ""


def _read_error(file: Path) -> str:
    try:
        read(file)
    except ImageError as error:
        return error.arrived
    return "It could not be read."


def _require_some(images: ImageSet, left: Sequence[Sample], reasons: dict[str, str]) -> None:
    after = Counter(sample.part for sample in left)
    for part, count in Counter(sample.part for sample in images.samples).items():
        if not after[part]:
            first = next(sample.path for sample in images.samples if sample.part == part)
            raise DataError(
                f"Images that can be read were expected in {f'the part {part} of ' if part else ''}{images.root}.",
                f"None of {count:,} can; the first, {printable(first)}: {reasons[first].rstrip('.')}.",
                f"See what is wrong with each: lensmith data check {images.root}",
            )
