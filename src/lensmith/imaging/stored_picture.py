"""Pictures of stored values → their statistics, or 8-bit RGB by a value range; strip by strip, to use little memory."""

import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.errors import ImageError
from lensmith.imaging.formats import open_image
from lensmith.imaging.stored_values import Stored, set_raw_modes, stored_values
from lensmith.imaging.value_range import FULL_UINT16, ValueRange, ValueStatistics, contradiction, decide, number

STRIP_PIXELS = 1_000_000
"""Pixels converted to RGB at a time, so that a conversion's intermediate memory is small for any picture."""

SENTINELS = (-9999.0, -99999.0, -32767.0, -32768.0)
"""Values by which surveys and scanners mark pixels without one, where no tag names it."""

LEAST_LEVELS = 16
"""Fewest values beside which another one can be taken for padding."""

HUGE = 1e30
"""Magnitude from which on a float marks a missing value."""

Values = npt.NDArray[Any]


class StoredPicture:
    """A loaded picture with the meaning of its stored values.

    Args:
        picture: the picture, with its pixels read.
        stored: what it stores.
        encoded: the bytes of its file, for the low bytes of colour.
    """

    def __init__(self, picture: Image.Image, stored: Stored, encoded: bytes) -> None:
        self.picture, self.stored, self._encoded = picture, stored, encoded
        self._low: Image.Image | None = None

    def statistics(self) -> ValueStatistics | None:
        """Statistics of the values; None where the file tells their range.

        Raises:
            ImageError: all values are missing, or the values cannot be read in full.
        """
        if self.stored.stated_range is not None:
            return None
        found = self._counted() if self.stored.kind == "uint16" else self._sampled()
        if found is None:
            raise ImageError(
                "A picture with finite values was expected.", "All of its values are missing.", "Replace or remove it."
            )
        return found

    def to_rgb(self, ranges: Mapping[str, ValueRange] | None) -> Image.Image:
        """The picture as 8-bit RGB.

        Args:
            ranges: range by kind of values, of the set that the picture belongs to; None: a set of this picture alone.

        Raises:
            ImageError: no range is known for such values, or the picture's values contradict it.
        """
        black, white = self._range(ranges)
        whole = Image.new("RGB", self.picture.size)
        table = _table(black, white, self.stored) if self.stored.kind == "uint16" else None
        # The high byte of colour is what Pillow has read already.
        by_high_byte = self.stored.channels > 2 and self.stored.transparent is None and (black, white) == FULL_UINT16
        if self.stored.separate and not by_high_byte:
            raise ImageError(
                "16-bit colour in a PNG, or in one plane of a TIFF with plain alpha, was expected.",
                "Its colours cannot be read in full here, and do not fill 16 bits.",
                "Save the picture as an 8-bit JPEG or PNG.",
            )
        if white < FULL_UINT16[1] and self._is_alpha_of(white):
            raise ImageError(
                "Alpha of full 16 bits was expected, as PNG and TIFF define it.",
                f"This alpha ends where the colours do, at {number(white)} or below: the picture would be invisible.",
                "Save the picture without alpha, or as an 8-bit PNG.",
            )
        for top, part in self._strips(high=by_high_byte):
            if by_high_byte:
                grey = part
            elif table is not None:
                grey = table[part[..., 0] if self.stored.channels == 2 else part]
            else:
                grey = _scaled(part, black, white, self.stored, self._missing_in(part))
            whole.paste(self._flattened(grey, part, top), (0, top))
        return whole

    def _range(self, ranges: Mapping[str, ValueRange] | None) -> ValueRange:
        kind = self.stored.kind
        if self.stored.stated_range is not None:
            return self.stored.stated_range
        known = None if ranges is None else ranges.get(kind)
        if known == FULL_UINT16 and kind == "uint16":
            return known
        found = self.statistics()
        assert found is not None
        if ranges is None:
            return decide([found])[kind]
        if known is not None:
            if reason := contradiction(found, known):
                raise ImageError(
                    f"{kind} values of {number(known[0])} to {number(known[1])} were expected.",
                    reason,
                    "Save the picture in that range, or as an 8-bit JPEG or PNG.",
                )
            return known
        # 16 bits are full by the definitions of PNG and TIFF; a picture that uses them shows that it obeys.
        if kind == "uint16" and (found.high >= FULL_UINT16[1] / 4 or found.high == 0):
            return FULL_UINT16
        held = f"up to {number(found.high)}" if found.low >= 0 else f"{number(found.low)} to {number(found.high)}"
        raise ImageError(
            "A picture with 8 bits a channel was expected, as the training images had.",
            f"Its values are {kind}, {held}: which of them is white is not stated, and no training image had such.",
            "Save the picture as an 8-bit JPEG or PNG.",
        )

    def _is_alpha_of(self, white: float) -> bool:
        """Whether the picture has alpha, none of which is above `white`, of whose value the high byte is compared."""
        if self.stored.channels == 4:
            highest = self.picture.getchannel("A").getextrema()[1]
        elif self.stored.channels == 2:
            highest = max(int(part[..., 1].max()) for _, part in self._strips()) >> 8
        else:
            return False
        return highest <= int(white) >> 8  # type: ignore[operator]

    def _strips(self, high: bool = False) -> Iterator[tuple[int, Values]]:
        """The first row and the values of each strip, of shape (H, W) or (H, W, channels)."""
        width, height = self.picture.size
        rows = max(1, STRIP_PIXELS // max(1, width))
        for top in range(0, height, rows):
            box = (0, top, width, min(top + rows, height))
            part = np.asarray(self.picture.crop(box))
            if self.stored.channels == 2:
                pair = part.view(np.uint32)
                part = np.stack([pair >> 16, pair & 65535], axis=-1).astype(np.uint16)
            elif self.stored.channels > 2:
                part = part[..., :3]
                if not high:
                    if self.stored.separate:  # for statistics alone: the least values that are read or rounded so
                        part = (part.astype(np.int32) * 257 - 128).clip(0).astype(np.uint16)
                    else:
                        part = part.astype(np.uint16) << 8 | np.asarray(self._low_bytes().crop(box))[..., :3]
            elif self.stored.kind in ("uint32", "int8"):
                part = part.view(np.dtype(self.stored.kind))
            yield top, part

    def _low_bytes(self) -> Image.Image:
        """The picture with the low byte of each value: read as if the byte order were the other one."""
        if self._low is None:
            native = "B" if sys.byteorder == "little" else "L"
            other = {"L": "B", "B": "L", "N": native}
            low = open_image(self._encoded)
            stored_values(low)
            set_raw_modes(low, lambda mode: mode[:-1] + other[mode[-1]])
            low.load()
            self._low = low
        return self._low

    def _counted(self) -> ValueStatistics | None:
        """Statistics of uint16 values, from all of them."""
        counts = np.zeros(65536, dtype=np.int64)
        for _, part in self._strips():
            counts += np.bincount((part[..., 0] if self.stored.channels == 2 else part).reshape(-1), minlength=65536)
        if self.stored.missing is not None and self.stored.missing in range(65536):
            counts[int(self.stored.missing)] = 0
        levels = np.flatnonzero(counts)
        if not levels.size:
            return None
        return ValueStatistics("uint16", *_bounds(levels, counts[levels]), whole=True)

    def _sampled(self) -> ValueStatistics | None:
        """Statistics of other values, from about a million of them."""
        width, height = self.picture.size
        step = max(1, round((width * height / STRIP_PIXELS) ** 0.5))
        parts = []
        for top, part in self._strips():
            seen = part[-top % step :: step, ::step]
            parts.append(seen[~self._missing_in(seen)])
        values = np.concatenate(parts)
        if not values.size:
            return None
        whole = values.dtype.kind != "f" or bool((values == np.rint(values)).all())
        return ValueStatistics(self.stored.kind, *_bounds(*np.unique(values, return_counts=True)), whole)

    def _missing_in(self, part: Values) -> npt.NDArray[np.bool_]:
        """Whether each value is missing, bool of the shape of `part`."""
        if part.dtype.kind == "f":
            missing = ~np.isfinite(part) | (np.abs(part) >= HUGE)
        else:
            missing = np.zeros(part.shape, dtype=bool)
        for value in (self.stored.missing, *(SENTINELS if self.stored.kind != "int8" else ())):
            if value is not None:
                missing |= part == value
        return missing

    def _flattened(self, grey: Values, part: Values, top: int) -> Image.Image:
        """A strip as RGB on white, from uint8 (H, W) or (H, W, 3)."""
        height, width = grey.shape[:2]
        colour = Image.fromarray(grey).convert("RGB")
        alpha = None
        if self.stored.channels == 2:
            alpha = Image.fromarray((part[..., 1] >> 8).astype(np.uint8))
        elif self.stored.channels == 4:
            alpha = self.picture.getchannel("A").crop((0, top, width, top + height))
        elif self.stored.transparent is not None:
            same = part == np.asarray(self.stored.transparent)
            alpha = Image.fromarray(np.where(same.all(axis=-1) if part.ndim == 3 else same, 0, 255).astype(np.uint8))
        if alpha is None:
            return colour
        white = Image.new("RGBA", colour.size, (255, 255, 255, 255))
        colour.putalpha(alpha)
        return Image.alpha_composite(white, colour).convert("RGB")


def _bounds(levels: Values, counts: npt.NDArray[np.int64]) -> tuple[float, float]:
    """The lowest and the highest value, without outliers and padding.

    Padding is one value of many pixels, as far from all others as these span or farther; where the others are fewer
    than LEAST_LEVELS, as in masks, nothing is taken for padding.

    Args:
        levels: the values that occur, rising.
        counts: number of pixels of each.
    """
    inside, (low, high) = slice(0, levels.size), _without_outliers(levels, counts)
    for _ in range(4):  # two at either end
        for end, others in ((high, slice(inside.start, high)), (low, slice(low + 1, inside.stop))):
            if others.stop - others.start < LEAST_LEVELS:
                continue
            least, most = (others.start + at for at in _without_outliers(levels[others], counts[others]))
            span = float(levels[most]) - float(levels[least])
            gap = min(abs(float(levels[end]) - float(levels[at])) for at in (least, most))
            if gap >= span > 0 and counts[end] > _outliers(int(counts[inside].sum())):
                inside, low, high = others, least, most
                break
    return float(levels[low]), float(levels[high])


def _without_outliers(levels: Values, counts: npt.NDArray[np.int64]) -> tuple[int, int]:
    """Indices of the lowest and of the highest value that count."""
    rising = counts.cumsum()
    total = int(rising[-1])
    dropped = _outliers(total)
    low, high = np.searchsorted(rising, [dropped + 1, total - dropped])
    return int(low), int(high)


def _outliers(count: int) -> int:
    """Number of values at either end that do not count: hot and dead pixels."""
    return min(count // 500, 3 + count // 5000)


def _table(black: float, white: float, stored: Stored) -> npt.NDArray[np.uint8]:
    """uint8 (65536,): the grey level of each value."""
    values = np.arange(65536)
    return _scaled(values, black, white, stored, values == stored.missing)


def _scaled(
    values: Values, black: float, white: float, stored: Stored, missing: npt.NDArray[np.bool_] | None
) -> npt.NDArray[np.uint8]:
    """Grey levels, uint8 of the shape of `values`; missing ones are black."""
    scaled: npt.NDArray[np.float64] = values.astype(np.float64)
    scaled -= black
    if values.dtype.kind == "f":
        scaled *= 255
        scaled /= white - black
        np.rint(scaled, out=scaled)
    else:  # each level has as many values: 16 bits lose their low byte
        scaled *= 256
        scaled /= white - black + 1
        np.floor(scaled, out=scaled)
    if missing is not None:
        scaled[missing] = 255 if stored.inverted else 0
    levels = scaled.clip(0, 255).astype(np.uint8)
    return np.subtract(255, levels) if stored.inverted else levels
