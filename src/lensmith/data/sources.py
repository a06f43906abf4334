"""Known data sets: a function for each that downloads and verifies its files and lists its images.

The images themselves are read later, and only those that are wanted. No pickle is read, and no file is unpacked from an
archive under the name it has there.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from lensmith.data import debian, known
from lensmith.data.download import download
from lensmith.data.part_names import Part
from lensmith.errors import DataError


@dataclass(frozen=True)
class KnownImage:
    """One image of a known data set.

    Attributes:
        part: train, val or test.
        label: class name, usable as a folder's name.
        name: file name, unique in its part.
        row: row of its pixels in the part's array; None if the archive holds the image as a file.
    """

    part: Part
    label: str
    name: str
    row: int | None = None

    @property
    def path(self) -> str:
        """PART/CLASS/NAME."""
        return f"{self.part}/{self.label}/{self.name}"


@dataclass(frozen=True)
class OpenedSet:
    """A known data set whose files are on this machine and verified.

    Attributes:
        source: description of the source of the files.
        images: all images of the set.
        read: function that yields the encoded bytes of some images, in any order.
        tried: sources that failed before, each with its reason.
    """

    source: str
    images: tuple[KnownImage, ...]
    read: _Reader
    tried: tuple[str, ...] = ()


_Reader = Callable[[Sequence[KnownImage]], Iterator[tuple[KnownImage, bytes]]]
_Arrays = Mapping[Part, npt.NDArray[np.uint8]]
"""Part → pixels, uint8 (N, H, W) or (N, H, W, 3)."""


def fashion_mnist(cache: Path) -> OpenedSet:
    """70,000 grey images of clothes, 28 × 28, ten classes (MIT licence), from https://arxiv.org/abs/1708.07747."""
    sources: tuple[tuple[str, Path, Callable[[Path], object]], ...] = (
        ("files of this machine", known.FASHION_MNIST_FOLDER, lambda _: None),
        ("an earlier download", cache, lambda _: None),
        (known.FASHION_MNIST_URL, cache, lambda into: [download(file, into) for file in known.FASHION_MNIST_FILES]),
        (f"Debian package {known.FASHION_MNIST_PACKAGE}", cache, _fashion_mnist_from_debian),
    )
    tried: list[str] = []
    for source, folder, download_to in sources:
        try:
            download_to(folder)
            content = [_verified_gzip(folder / name, digest) for name, digest in known.FASHION_MNIST_SHA256.items()]
        except DataError as error:
            tried.append(f"{source}: {error.arrived.rstrip('.')}")
            continue
        train, train_labels, test, test_labels = (np.frombuffer(part, np.uint8) for part in content)
        arrays: _Arrays = {"train": train[16:].reshape(-1, 28, 28), "test": test[16:].reshape(-1, 28, 28)}
        rows: Mapping[Part, Sequence[int]] = {"train": train_labels[8:].tolist(), "test": test_labels[8:].tolist()}
        return _from_arrays(f"{source} ({folder})", known.FASHION_MNIST, arrays, rows, tuple(tried))
    raise DataError(
        "Fashion-MNIST was expected from one of its sources.",
        f"All failed: {'; '.join(tried)}.",
        f"Connect to the internet, or copy its four .gz files into {cache}.",
    )


def cifar10(cache: Path) -> OpenedSet:
    """60,000 colour photos, 32 × 32, ten classes (https://www.cs.toronto.edu/~kriz/cifar.html)."""
    archive = download(known.CIFAR10_FILE, cache)
    arrays: dict[Part, npt.NDArray[np.uint8]] = {}
    rows: dict[Part, Sequence[int]] = {}
    for part, members in known.CIFAR10_MEMBERS.items():
        found = dict(_stream(archive, members))
        # A record is one byte of label, then the red, green and blue planes.
        records = np.frombuffer(b"".join(found[name] for name in members), np.uint8).reshape(-1, 1 + 3 * 32 * 32)
        arrays[part] = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        rows[part] = records[:, 0].tolist()
    return _from_arrays(known.CIFAR10_FILE.url, known.CIFAR10, arrays, rows)


def flowers102(cache: Path) -> OpenedSet:
    """8,189 photos of flowers, 102 classes of 40 to 258 (https://www.robots.ox.ac.uk/~vgg/data/flowers/102/)."""
    from scipy.io import loadmat

    archive, label_file, part_file = (download(remote, cache) for remote in known.FLOWERS102_FILES)
    labels = loadmat(label_file)["labels"].ravel().tolist()
    columns: tuple[tuple[Part, str], ...] = (("train", "trnid"), ("val", "valid"), ("test", "tstid"))
    numbers = loadmat(part_file)
    images = tuple(
        KnownImage(part, known.FLOWERS102[labels[number - 1] - 1], f"image_{number:05d}.jpg")
        for part, column in columns
        for number in numbers[column].ravel().tolist()
    )
    return OpenedSet(known.FLOWERS102_FILES[0].url, images, _archive_reader(archive, "jpg"))


def pets(cache: Path) -> OpenedSet:
    """7,349 photos of cats and dogs, 37 breeds (CC BY-SA 4.0), from https://www.robots.ox.ac.uk/~vgg/data/pets/."""
    archive, annotations = (download(remote, cache) for remote in known.PETS_FILES)
    lists: dict[Part, str] = {"train": "annotations/trainval.txt", "test": "annotations/test.txt"}
    found = dict(_stream(annotations, tuple(lists.values())))
    images = tuple(
        KnownImage(part, name.rpartition("_")[0].replace("_", " ").title(), f"{name}.jpg")
        for part, member in lists.items()
        for name in (line.split()[0] for line in found[member].decode().splitlines() if line.strip())
    )
    return OpenedSet(known.PETS_FILES[0].url, images, _archive_reader(archive, "images"))


def digits(cache: Path) -> OpenedSet:
    """1,797 handwritten digits, 8 × 8, from scikit-learn; the last fifth of each class is for testing."""
    import sklearn
    from sklearn.datasets import load_digits

    loaded: Any = load_digits()
    pixels = np.rint(loaded.images * (255 / 16)).astype(np.uint8)
    testing = np.zeros(len(pixels), dtype=bool)
    for digit in range(10):
        members = np.flatnonzero(loaded.target == digit)
        testing[members[len(members) * 4 // 5 :]] = True
    parts: tuple[tuple[Part, Any], ...] = (("train", ~testing), ("test", testing))
    arrays = {part: pixels[mask] for part, mask in parts}
    rows = {part: loaded.target[mask].tolist() for part, mask in parts}
    return _from_arrays(f"scikit-learn {sklearn.__version__}", tuple("0123456789"), arrays, rows)


KNOWN: dict[str, Callable[[Path], OpenedSet]] = {
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "flowers102": flowers102,
    "pets": pets,
    "digits": digits,
}
"""Name → function that opens the set, given the folder of its downloads."""


def _fashion_mnist_from_debian(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as unpacked:
        debian.unpack(known.FASHION_MNIST_PACKAGE, Path(unpacked))
        for file in Path(unpacked).rglob("*.gz"):
            if file.name in known.FASHION_MNIST_SHA256:
                file.replace(folder / file.name)


def _verified_gzip(file: Path, sha256: str) -> bytes:
    """The unpacked content of a gzip file, verified by its hash."""
    try:
        content = gzip.decompress(file.read_bytes())
        problem = None if hashlib.sha256(content).hexdigest() == sha256 else f"{file.name} holds something else"
    except FileNotFoundError:
        problem = f"{file.name} is not there"
    except (OSError, EOFError, zlib.error) as error:
        problem = f"{file.name} cannot be unpacked ({error})"
    if problem:
        raise DataError(f"{file} was expected with content of SHA-256 {sha256}.", f"{problem}.", "Fetch it again.")
    return content


def _from_arrays(
    source: str, labels: Sequence[str], arrays: _Arrays, rows: Mapping[Part, Sequence[int]], tried: tuple[str, ...] = ()
) -> OpenedSet:
    images = tuple(
        KnownImage(part, labels[label], f"{row:05d}.png", row) for part in rows for row, label in enumerate(rows[part])
    )

    def read(wanted: Sequence[KnownImage]) -> Iterator[tuple[KnownImage, bytes]]:
        for image in wanted:
            encoded = io.BytesIO()
            Image.fromarray(arrays[image.part][image.row]).save(encoded, "PNG")
            yield image, encoded.getvalue()

    return OpenedSet(source, images, read, tried)


def _archive_reader(archive: Path, folder: str) -> _Reader:
    """A function that reads images FOLDER/NAME from a tar archive, in the archive's order."""

    def read(wanted: Sequence[KnownImage]) -> Iterator[tuple[KnownImage, bytes]]:
        by_member = {f"{folder}/{image.name}": image for image in wanted}
        for name, content in _stream(archive, by_member):
            yield by_member[name], content

    return read


def _stream(archive: Path, names: Sequence[str] | Mapping[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Names and contents of some files of a tar archive, read in one pass.

    Raises:
        DataError: a file that is not in the archive.
    """
    missing = set(names)
    with tarfile.open(archive, "r|*") as tar:
        for member in tar:
            name = member.name.removeprefix("./")
            content = tar.extractfile(member) if name in missing else None
            if content is not None:
                missing.remove(name)
                yield name, content.read()
    if missing:
        raise DataError(
            f"{len(set(names))} files were expected in {archive}.",
            f"{len(missing)} are not there, such as {min(missing)}.",
            "Remove the archive, so that it is downloaded again.",
        )
