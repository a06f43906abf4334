"""Quality of pictures: too dark, without contrast, blurred or tiny, against fixed floors and against their own set.

Each picture is decoded once at a reduced scale; the measurements are memoized on disk for each file (`core.file_memo`).
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.core.file_memo import Values, memoized_by_file
from lensmith.core.progress import track
from lensmith.core.stats import robust_distance
from lensmith.core.version import installed_versions
from lensmith.data.image_set import ImageSet, Sample
from lensmith.errors import ImageError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import decode, decoded_size, read
from lensmith.imaging.value_range import ValueRange

Floats = npt.NDArray[np.float64]
QualityKind = Literal["dark", "flat", "blurred", "tiny"]

SCALE_PX = 256
"""Shorter side to which larger pictures are scaled down before their blur is measured."""

BLACK, DARK = 16.0, 56.0
"""95th percentile of luma, 0..255, below which a picture is too dark: always; if it is also far below its set's."""

FLAT = 3.0
"""Standard deviation of luma below which a picture shows nothing."""

BLURRED, VERY_BLURRED = 0.6, 0.72
"""Blur, 0..1, above which a picture is blurred: if it is also far above its set's; always."""

TINY_PX, TINY_SHARE = 16, 0.2
"""Shorter side below which a picture is tiny: in pixels; as a share of the set's median."""

FAR = 4.0
"""Distance from the set's median, in robust standard deviations, from which on a picture is unlike its set."""

_WINDOW = 9
"""Width of the mean filter that blurs a picture again, in pixels."""


class Measured(NamedTuple):
    """Measurements of one picture.

    Attributes:
        short_px: shorter side in pixels.
        bright: 95th percentile of luma, 0..255.
        spread: standard deviation of luma, 0..127.5.
        blur: 0 (sharp) to 1 (blurred); see `blur_of`.
    """

    short_px: int
    bright: float
    spread: float
    blur: float


@dataclass(frozen=True)
class QualityFinding:
    """A picture of poor quality.

    Attributes:
        path: path relative to the set's root.
        kind: dark, flat, blurred or tiny.
        reason: the measurement in words.
    """

    path: str
    kind: QualityKind
    reason: str


def blur_of(luma: Floats) -> float:
    """Blur of a picture, 0 (sharp) to 1 (blurred), whatever its contrast.

    A sharp picture loses most differences between neighbours when it is blurred again, a blurred one hardly any.

    Source: Crété-Roffet et al., The Blur Effect: Perception and Estimation with a New No-Reference Perceptual Blur
    Metric, 2007; the filter is the paper's, of nine pixels.

    Args:
        luma: float64 (H, W), of any scale; a side of fewer than ten pixels is not measured.
    """
    found = []
    for values in (luma, luma.T):
        if len(values) <= _WINDOW:
            continue
        sums = np.cumsum(np.vstack([np.zeros((1, values.shape[1])), values]), axis=0)
        again = (sums[_WINDOW:] - sums[:-_WINDOW]) / _WINDOW
        middle = values[_WINDOW // 2 : len(values) - _WINDOW // 2]
        before, after = np.abs(np.diff(middle, axis=0)), np.abs(np.diff(again, axis=0))
        total = before.sum()
        lost = np.maximum(0.0, before - after).sum()
        found.append(1.0 if total <= 1e-9 else float((total - lost) / total))
    return max(found, default=0.0)


def measure_picture(picture: Image.Image, short_px: int) -> Measured:
    """Measure an RGB picture; `short_px` is the shorter side of the file's own picture in pixels."""
    short = min(picture.size)
    if short > SCALE_PX:
        size = [max(1, round(side * SCALE_PX / short)) for side in picture.size]
        picture = picture.resize((size[0], size[1]), Image.Resampling.BOX)
    luma = np.asarray(picture.convert("L"), dtype=np.float64)
    return Measured(short_px, float(np.percentile(luma, 95)), float(luma.std()), blur_of(luma))


def measure_quality(
    images: ImageSet, samples: Sequence[Sample], value_ranges: Mapping[str, ValueRange] | None = None
) -> list[Measured | None]:
    """Measurements of each sample; None where it cannot be decoded.

    Args:
        images: the set.
        samples: samples of the set.
        value_ranges: black and white by kind of values; see `imaging.decoding.decode`.
    """
    ranges = {kind: list(ends) for kind, ends in sorted((value_ranges or {}).items())}
    versions = installed_versions(("lensmith", "pillow", "pillow-heif"))
    kind = f"quality {json.dumps([ranges, versions], sort_keys=True)}"

    def measure(file: Path) -> Values:
        """The measurements as bytes; None where it cannot be decoded."""
        try:
            short_px = min(decoded_size(file))
            found = measure_picture(decode(read(file), SCALE_PX, value_ranges=value_ranges), short_px)
        except ImageError:
            return (None,)
        return (np.array(found, dtype=np.float64).tobytes(),)

    files = [images.file(sample) for sample in samples]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; only decoding matters here
        rows = [
            None if row is None else np.frombuffer(row).tolist()
            for (row,) in track(memoized_by_file([kind], files, measure, picture_of), "measuring pictures", len(files))
        ]
    return [None if row is None else Measured(int(row[0]), *row[1:]) for row in rows]


def quality_findings(samples: Sequence[Sample], measured: Sequence[Measured | None]) -> list[QualityFinding]:
    """Pictures below the floors, by kind and then the worst first; of one picture the first kind that fits."""
    known = [(sample, found) for sample, found in zip(samples, measured, strict=True) if found is not None]
    if not known:
        return []
    table = np.array([found for _, found in known], dtype=np.float64)  # (N, 4)
    bright_far, blur_far = robust_distance(table[:, 1]), robust_distance(table[:, 3])
    median_px = float(np.median(table[:, 0]))
    findings: list[tuple[int, float, QualityFinding]] = []
    for (sample, found), below, above in zip(known, -bright_far, blur_far, strict=True):
        if found.short_px < max(TINY_PX, TINY_SHARE * median_px):
            reason = f"{found.short_px} px on the shorter side; half of the pictures have {median_px:g} or more"
            findings.append((0, found.short_px, QualityFinding(sample.path, "tiny", reason)))
        elif found.bright < BLACK or (found.bright < DARK and below > FAR):
            reason = f"95 % of it is darker than {found.bright:.0f} of 255"
            findings.append((1, found.bright, QualityFinding(sample.path, "dark", reason)))
        elif found.spread < FLAT:
            reason = f"nothing to be seen: brightness varies by {found.spread:.1f} of 255"
            findings.append((2, found.spread, QualityFinding(sample.path, "flat", reason)))
        elif found.blur > VERY_BLURRED or (found.blur > BLURRED and above > FAR):
            reason = f"blur {found.blur:.2f} of 1; half of the pictures have {np.median(table[:, 3]):.2f} or less"
            findings.append((3, -found.blur, QualityFinding(sample.path, "blurred", reason)))
    return [finding for _, _, finding in sorted(findings, key=lambda each: (*each[:2], each[2].path))]
