"""Image hashes: short content hashes of the images that a model learnt from or was chosen on, and of its test part.

Figures leave the first two out, whatever became of the folder since: files renamed, moved into other parts, split
again, copied elsewhere. Each image has a hash of its file's bytes and one of its decoded pixels, which stays the same
when a file is rewritten without loss (other metadata, another compression). `image_hashes.npz` in the bundle has the
hashes as sorted arrays of uint64, 16 bytes an image, and no picture can be made from them.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from lensmith.core.file_memo import Values, memoized_by_file
from lensmith.core.version import installed_versions
from lensmith.errors import BundleError, ImageError
from lensmith.imaging.content_digests import KIND, digest_of
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import decode, has_deep_values, read

FILE = "image_hashes.npz"

SCALED_PX = 512
"""A JPEG is decoded at a reduced scale that keeps its shorter side at or above this: 16 ms instead of 120 for 12
megapixels. So a JPEG that was converted to another format has other pixels from 1,024 pixels on."""

_DECODERS = ("lensmith", "pillow", "pillow-heif")
"""Packages that decide what pixels a file has."""

Use = Literal["train", "val"]
"""Use of an image: a model learnt from it (`train`), or its epoch, temperature and engine were chosen on it (`val`)."""

Hashes = npt.NDArray[np.uint64]


class ImageHashesEntry(BaseModel):
    """The manifest's entry on image_hashes.npz."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    train: int = Field(ge=0, description="number of different images that the model learnt from")
    val: int = Field(ge=0, description="number of different images that it was chosen on")
    test: int = Field(0, ge=0, description="number of different images that were held out as its test part")
    complete: bool = Field(True, description="false: files of some of them were gone, so their hashes are missing")


def _none() -> Hashes:
    return np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True)
class ImageHashes:
    """Hashes of a model's images; each array sorted, without repeats.

    It learnt from train and was chosen on val; test was held out, and figures may use it.

    Attributes:
        train_files: uint64 (T,), hashes of the bytes of T different images.
        train_pixels: uint64 (≤ T,), hashes of their pixels.
        val_files: uint64 (V,), as `train_files`.
        val_pixels: uint64 (≤ V,), as `train_pixels`.
        test_files: uint64 (H,), as `train_files`; empty in bundles of earlier versions.
        test_pixels: uint64 (≤ H,), as `train_pixels`.
        complete: False: files of some of the images of train and val were gone, so that their hashes are missing.
    """

    train_files: Hashes
    train_pixels: Hashes
    val_files: Hashes
    val_pixels: Hashes
    test_files: Hashes = field(default_factory=_none)
    test_pixels: Hashes = field(default_factory=_none)
    complete: bool = True

    @classmethod
    def of(cls, train: Sequence[Path], val: Sequence[Path], test: Sequence[Path] = ()) -> Self:
        """Hash image files on all cores allowed; files that are gone make the result incomplete."""
        hashed = {"train": list(hash_files(train)), "val": list(hash_files(val)), "test": list(hash_files(test))}
        arrays = {}
        for use, found in hashed.items():
            arrays[f"{use}_files"] = _sorted(each[0] for each in found if each)
            arrays[f"{use}_pixels"] = _sorted(each[1] for each in found if each and each[1] is not None)
        return cls(**arrays, complete=None not in (*hashed["train"], *hashed["val"]))

    @classmethod
    def joined(cls, parts: Sequence["ImageHashes"]) -> Self:
        """The hashes of several models together, as of a student and its teacher."""
        arrays = {name: _sorted(np.concatenate([getattr(each, name) for each in parts]).tolist()) for name in ARRAYS}
        return cls(**arrays, complete=all(each.complete for each in parts))

    @classmethod
    def read(cls, path: Path, complete: bool = True) -> Self:
        """Read image_hashes.npz.

        Raises:
            BundleError: the file is damaged.
        """
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in ARRAYS if name in arrays or not name.startswith("test_")}
            if any(array.dtype != np.uint64 or array.ndim != 1 for array in found.values()):
                raise ValueError("its arrays are not of uint64")
        except Exception as error:  # NumPy raises nearly anything on damaged archives
            raise BundleError(
                f"Content hashes of images were expected in {path}.",
                f"They cannot be read ({error}).",
                "Export the run again.",
            ) from error
        return cls(**{name: np.unique(array) for name, array in found.items()}, complete=complete)

    def save(self, path: Path) -> None:
        """Write the arrays as an uncompressed NumPy archive, without pickle."""
        np.savez(path, allow_pickle=False, **{name: getattr(self, name) for name in ARRAYS})

    @property
    def entry(self) -> ImageHashesEntry:
        """The counts for the manifest."""
        return ImageHashesEntry(
            train=len(self.train_files), val=len(self.val_files), test=len(self.test_files), complete=self.complete
        )

    def use_of(self, hashes: tuple[int, int | None]) -> Use | None:
        """What the model did with an image: `train` before `val`; None: nothing, the image is held out.

        Args:
            hashes: the image's, from `content_hashes`.
        """
        if _holds_one(self.train_files, self.train_pixels, hashes):
            return "train"
        return "val" if _holds_one(self.val_files, self.val_pixels, hashes) else None

    def was_tested(self, hashes: tuple[int, int | None]) -> bool:
        """Whether an image was in the test part."""
        return _holds_one(self.test_files, self.test_pixels, hashes)

    @property
    def has_copies(self) -> bool:
        """Whether some images are both among those learnt from and among those chosen on."""
        pairs = (self.train_files, self.val_files), (self.train_pixels, self.val_pixels)
        return any(len(np.intersect1d(*pair, assume_unique=True)) > 0 for pair in pairs)

    def holds_file(self, wanted: int) -> bool:
        """Whether an image is one of them by its `file_hash` alone, which takes a hundredth of its decoding."""
        return _holds(self.train_files, wanted) or _holds(self.val_files, wanted)


ARRAYS = tuple(field.name for field in fields(ImageHashes) if field.name != "complete")


def content_hashes(encoded: bytes) -> tuple[int, int | None]:
    """The two hashes of an image: of the bytes of its file, and of its upright RGB pixels.

    Each is the first 8 bytes of a SHA-256, little-endian. The second is None for files that cannot be decoded, and for
    pictures of more than 8 bits a channel.
    """
    return file_hash(encoded), _pixel_hash(encoded)


def file_hash(encoded: bytes) -> int:
    """The hash of the bytes of an image file, 0..2⁶⁴−1."""
    return _short(hashlib.sha256(encoded))


def hash_files(files: Sequence[Path]) -> Iterator[tuple[int, int | None] | None]:
    """`content_hashes` of each file, in order, on all cores allowed; None for a file that cannot be read.

    They are memoized on disk for each file (`core.file_memo`).
    """

    def hash_one(file: Path) -> Values:
        """The digest, and the 8 bytes of the pixels' hash, or none."""
        try:
            encoded = read(file)
        except ImageError:
            return None, None
        pixels = _pixel_hash(encoded)
        return digest_of(encoded), b"" if pixels is None else pixels.to_bytes(8, "little")

    kinds = (KIND, f"pixels {SCALED_PX} {json.dumps(installed_versions(_DECODERS), sort_keys=True)}")
    for digest, pixels in memoized_by_file(kinds, files, hash_one, picture_of):
        if digest is None or pixels is None:
            yield None
        else:
            yield int.from_bytes(digest[:8], "little"), int.from_bytes(pixels, "little") if pixels else None


def _pixel_hash(encoded: bytes) -> int | None:
    try:
        picture = decode(encoded, shortest_px=SCALED_PX)
    except ImageError:
        return None
    if has_deep_values(encoded):  # how they become 8 bits depends on the set, so different pictures can look equal
        return None
    digest = hashlib.sha256(f"{picture.width}x{picture.height}\n".encode())
    digest.update(picture.tobytes())
    return _short(digest)


def _short(digest: "hashlib._Hash") -> int:
    return int.from_bytes(digest.digest()[:8], "little")


def _sorted(hashes: Iterable[int]) -> Hashes:
    return np.unique(np.array(list(hashes), dtype=np.uint64))


def _holds_one(files: Hashes, pixels: Hashes, wanted: tuple[int, int | None]) -> bool:
    """Whether an image is one of these, by its file or by its pixels."""
    return _holds(files, wanted[0]) or (wanted[1] is not None and _holds(pixels, wanted[1]))


def _holds(hashes: Hashes, wanted: int) -> bool:
    row = int(np.searchsorted(hashes, np.uint64(wanted)))
    return row < len(hashes) and int(hashes[row]) == wanted
