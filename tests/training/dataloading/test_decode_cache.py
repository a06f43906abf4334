"""Pictures that are decoded once are the same to the bit."""

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.data.split import prepare
from lensmith.errors import ImageError
from lensmith.imaging.decoding import decode, decoded_size
from lensmith.imaging.preprocessing import Preprocessing
from lensmith.training.dataloading import augment, decode_cache
from lensmith.training.dataloading.dataset import ImageDataset
from lensmith.training.dataloading.loader import build_loader, close_loader
from lensmith.training.dataloading.sampler import EpochSampler

HOW = Preprocessing(image_size=24)


@pytest.fixture
def photos(colours: Path) -> Path:
    """Large ones, one that lies on its side, one with transparency, one that is no image, one that is cut short."""
    random = np.random.default_rng(0)
    for number, size in enumerate([(640, 480), (300, 900), (500, 500)]):
        pixels = random.integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112] = 6 if number == 1 else 1
        Image.fromarray(pixels).save(colours / "red" / f"photo{number}.jpg", exif=exif)
    Image.new("RGBA", (40, 30), (10, 200, 30, 90)).save(colours / "green" / "clear.png")
    (colours / "blue" / "none.jpg").write_bytes(b"broken")
    whole = (colours / "red" / "photo0.jpg").read_bytes()
    (colours / "blue" / "short.jpg").write_bytes(whole[: len(whole) // 2])
    return colours


def dataset(photos: Path, level: str = "standard") -> ImageDataset:
    images = prepare(photos, (1, 0, 0), 0)
    return ImageDataset(images, images.part("train"), HOW, augment.LEVELS[level], seed=0)


def kept(made: ImageDataset, store: ArrayCache) -> decode_cache.DecodedPictures:
    shortest = made.shortest_px(HOW, made.augment)
    ranges = HOW.value_ranges
    return decode_cache.load_or_decode(made.images, made.samples, shortest, ranges, store, lambda done, total: None)


def test_pictures_of_another_value_range_are_others(tmp_path: Path) -> None:
    values = np.arange(0, 4096, 64, dtype=np.uint16).reshape(8, 8)
    for number in range(6):
        file = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(values, number)).save(file)
    made, store = dataset(tmp_path / "set", "none"), ArrayCache(10**6, tmp_path / "cache")
    brightest = []
    for white in (4095, 65535, 4095):
        made.how = replace(HOW, value_ranges={"uint16": (0, white)})
        ranges = made.how.value_ranges
        found = decode_cache.load_or_decode(made.images, made.samples, 24, ranges, store, lambda done, total: None)
        brightest.append(np.asarray(found[0]).max())
    assert brightest == [252, 15, 252]
    assert len(store.entries()) == 2


def batches(made: ImageDataset, workers: int) -> list[Any]:
    loaded = build_loader(made, EpochSampler(len(made), 5, seed=0), workers, torch.device("cpu"))
    try:
        return list(loaded)
    finally:
        close_loader(loaded)


def test_a_header_tells_the_size_that_decoding_comes_to(photos: Path) -> None:
    for file in photos.rglob("*.*"):
        for shortest in (None, 24, 100):
            try:
                picture = decode(file.read_bytes(), shortest)
            except ImageError:
                continue
            assert decoded_size(file, shortest) == picture.size


@pytest.mark.parametrize(("level", "workers"), [("none", 0), ("standard", 1), ("trivial", 0)])
def test_batches_are_the_same_to_the_bit(photos: Path, tmp_path: Path, level: str, workers: int) -> None:
    plain = batches(dataset(photos, level), workers)
    made = dataset(photos, level)
    for _ in range(2):  # computed, then found
        made.decoded = kept(made, ArrayCache(10**8, tmp_path / "kept"))
        for ours, theirs in zip(batches(made, workers), plain, strict=True):
            assert torch.equal(ours.images, theirs.images)
            assert ours.indices == theirs.indices
            assert [path for path, _ in ours.unreadable] == [path for path, _ in theirs.unreadable]


def test_it_goes_to_another_process_as_the_name_of_a_file(photos: Path, tmp_path: Path) -> None:
    made = dataset(photos)
    found = kept(made, ArrayCache(10**8, tmp_path / "kept"))
    sent = pickle.dumps(found)
    assert len(sent) < 10_000 < found.pixels.nbytes
    again = pickle.loads(sent)
    for sample in range(len(made)):
        one, other = found[sample], again[sample]
        assert (one is None) == (other is None)
        assert one is None or other is None or one.tobytes() == other.tobytes()


def test_it_is_not_kept_where_there_is_no_room(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(NotCachedError):
        kept(dataset(photos), ArrayCache(1000, tmp_path / "kept"))


@pytest.mark.parametrize(
    ("each_s", "epochs", "expected"), [(0.1, 20, True), (0.1, 1, False), (0.1, 2, False), (1e-4, 20, False)]
)
def test_it_pays_where_decoding_would_take_long(
    colours: Path, each_s: float, epochs: int, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Clock:
        now = 0.0

        def perf_counter(self) -> float:
            return self.now

    clock = Clock()
    plain = decode_cache._decode

    def slow(*given: Any) -> Any:
        clock.now += each_s
        return plain(*given)

    monkeypatch.setattr(decode_cache, "time", clock)
    monkeypatch.setattr(decode_cache, "_decode", slow)
    made = dataset(colours)
    assert decode_cache.is_worthwhile(made.images, made.samples, 24, {}, epochs) is expected
