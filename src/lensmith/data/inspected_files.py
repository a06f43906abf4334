"""Inspected files of an image set: each decoded completely and hashed, by its bytes and by its pixels."""

import hashlib
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lensmith.core.machine import allowed_cores
from lensmith.core.threads import map_in_order
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, may_need_value_range, read, stored_mode, value_statistics
from lensmith.imaging.formats import HEAD_BYTES, require_format
from lensmith.imaging.value_range import ValueStatistics


@dataclass(frozen=True)
class InspectedFile:
    """Properties of one image file; width and height, in pixels, are those after EXIF orientation."""

    sample: Sample
    sha256: str = ""
    pixels: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    levels: ValueStatistics | None = None
    error: str | None = None


def inspect_files(images: ImageSet) -> Iterator[InspectedFile]:
    """Inspect the file of each sample, in order, on all cores allowed; a file that cannot be decoded has its error."""
    cores = allowed_cores()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only decoding matters here
        yield from map_in_order(
            lambda sample: _inspect(sample, images.file(sample)), images.samples, cores, 8 * cores, "check"
        )


def _inspect(sample: Sample, file: Path) -> InspectedFile:
    try:
        encoded = read(file)
        picture = decode(encoded)
        levels = value_statistics(encoded) if may_need_value_range(encoded[:HEAD_BYTES]) else None
    except ImageError as error:
        return InspectedFile(sample, error=error.arrived.rstrip("."))
    form, mode = require_format(encoded).name, stored_mode(encoded)
    digest = hashlib.sha256(encoded).hexdigest()
    pixels = hashlib.sha256(f"{picture.mode} {picture.size}".encode() + picture.tobytes()).hexdigest()
    # Deeper pictures that differ can be equal once their values are brought to 8 bits.
    same = pixels if levels is None else digest
    return InspectedFile(sample, digest, same, picture.width, picture.height, form, mode, levels)
