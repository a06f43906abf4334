"""Near copies: found whatever turned, cropped, resized or encoded them, told from look-alikes, and named everywhere."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lensmith import api
from lensmith.config import CheckSettings, SplitSettings
from lensmith.data.groups import with_groups
from lensmith.data.near_copies import candidates
from lensmith.data.near_copies.candidates import find_candidates
from lensmith.data.near_copies.decision import find_matches
from lensmith.data.near_copies.description import LowFrequencies
from lensmith.data.near_copies.search import NearCopy, find_near_copies, thumbnail
from lensmith.data.near_copies.transforms import SIDE, TURNS, turned
from lensmith.data.scan import scan
from lensmith.data.split import split
from lensmith.data.verify import check
from lensmith.errors import OutputError, SettingsError

FLIP, TURN = Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.ROTATE_90


def picture(seed: int, side: int = 96) -> Image.Image:
    """A picture of soft blobs, of its own for each seed."""
    rng = np.random.default_rng(seed)
    pixels = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return pixels.resize((side, side), Image.Resampling.BICUBIC)


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return Image.open(encoded)


COPIES = {
    "smaller": lambda image: image.resize((29, 29)),
    "larger": lambda image: image.resize((288, 288)),
    "encoded": lambda image: as_jpeg(image, 40),
    "mirrored": lambda image: image.transpose(FLIP),
    "turned": lambda image: image.transpose(TURN),
    "upside down": lambda image: image.transpose(Image.Transpose.ROTATE_180),
    "cropped": lambda image: image.crop((0, 5, 91, 96)),
    "all": lambda image: as_jpeg(image.crop((5, 0, 96, 91)).transpose(TURN).transpose(FLIP).resize((60, 60)), 60),
}


def matches(pictures: list[Image.Image]) -> set[tuple[int, int]]:
    thumbnails = np.stack([thumbnail(each) for each in pictures])
    found = find_matches(thumbnails, np.array([min(each.size) for each in pictures]), lambda done, total: None)
    assert all(0 < similarity <= 1 for similarity in found.similarity)
    return {(min(int(a), int(b)), max(int(a), int(b))) for a, b in zip(found.first, found.second, strict=True)}


def test_copies_of_every_kind_are_found_and_other_pictures_are_none() -> None:
    pictures = [picture(seed) for seed in range(40)]
    pictures += [change(pictures[number]) for number, change in enumerate(COPIES.values())]
    assert matches(pictures) == {(number, 40 + number) for number in range(len(COPIES))}


def test_look_alikes_of_a_set_are_no_copies_though_a_copy_is_as_different_elsewhere() -> None:
    base, rng = np.asarray(picture(0)).astype(float), np.random.default_rng(0)
    alike = []
    for _ in range(30):
        other = np.asarray(picture(int(rng.integers(1_000_000)))).astype(float)
        alike.append(Image.fromarray(np.clip(base + 0.3 * (other - 128), 0, 255).astype(np.uint8)))
    assert matches(alike) == set()
    assert matches([*alike, as_jpeg(alike[3].transpose(FLIP), 90)]) == {(3, 30)}


def test_all_of_many_copies_of_one_picture_are_in_pairs() -> None:
    pictures = [as_jpeg(picture(0, 40 + number), 60 + number) for number in range(30)]
    found = matches([*pictures, *(picture(seed) for seed in range(1, 20))])
    assert {row for pair in found for row in pair} == set(range(30))


def test_pictures_that_show_nothing_are_copies_of_none() -> None:
    plain = [Image.new("RGB", (40, 40), (shade, shade, shade)) for shade in range(100, 130, 3)]
    assert matches([*plain, *(picture(seed) for seed in range(5))]) == set()


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_a_set_of_few_pictures_has_its_copies_too(count: int) -> None:
    pictures = [picture(seed) for seed in range(count)]
    expected = set()
    if count > 1:
        pictures.append(pictures[0].transpose(FLIP))
        expected = {(0, count)}
    thumbnails = np.array([thumbnail(each) for each in pictures])
    found = find_matches(thumbnails, np.full(len(pictures), 96), lambda done, total: None)
    assert {
        (min(pair), max(pair)) for pair in zip(found.first.tolist(), found.second.tolist(), strict=True)
    } == expected


def test_the_turn_of_a_candidate_lays_it_over_the_other() -> None:
    pictures = [picture(seed) for seed in range(20)]
    pictures.append(pictures[7].crop((0, 0, 91, 91)).transpose(TURN))
    thumbnails = np.stack([thumbnail(each) for each in pictures])
    found = find_candidates(thumbnails, 5, lambda done, total: None)
    assert int(found.other[7, 0]) == 20
    assert np.all(np.diff(found.distance, axis=1) >= 0)
    turns = [turned(thumbnails[None, 7], turn)[0, ..., 0].ravel() for turn in range(TURNS)]
    alike = [np.corrcoef(each, thumbnails[20, ..., 0].ravel())[0, 1] for each in turns]
    assert int(found.turn[7, 0]) == int(np.argmax(alike))


def test_the_shortlist_has_the_most_similar_of_all_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(candidates, "COLUMNS", 16)
    monkeypatch.setattr(candidates, "ROWS", 7)
    thumbnails = np.random.default_rng(0).integers(0, 256, (50, SIDE, SIDE, 3), dtype=np.uint8)
    coarse = LowFrequencies(thumbnails, candidates.COARSE)
    described = coarse.whole(thumbnails)
    similar = np.max(coarse.turned(described) @ described.T, axis=0)
    np.fill_diagonal(similar, -np.inf)
    tiles = [described[start::4].T for start in range(4)]
    found = candidates._shortlist(coarse.turned(described), tiles, np.arange(50), 6)
    assert np.array_equal(np.sort(found), np.sort(np.argsort(-similar, axis=1)[:, :6]))
    assert find_candidates(thumbnails, 3, lambda done, total: None).other.shape == (50, 3)


def test_descriptions_are_turned_as_pictures_are() -> None:
    thumbnails = np.random.default_rng(0).integers(0, 256, (3, SIDE, SIDE, 3), dtype=np.uint8)
    fine = LowFrequencies(thumbnails, candidates.FINE)
    for turn, described in enumerate(fine.turned(fine.whole(thumbnails))):
        assert np.allclose(described, fine.whole(turned(thumbnails, turn)), atol=1e-5)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in two parts, with an equal file, equal pixels, and near copies across parts and across classes."""
    root = tmp_path / "photos"
    for number in range(24):
        folder = root / ("test" if number % 4 == 0 else "train") / ("cat" if number < 12 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        picture(number).save(folder / f"{number:02d}.png")
    shutil.copy(root / "train/cat/01.png", root / "train/cat/again.png")
    picture(2).save(root / "train/cat/packed.png", compress_level=1)
    picture(5).transpose(FLIP).resize((50, 50)).save(root / "test/cat/mirrored.jpg")
    picture(13).transpose(TURN).save(root / "train/cat/wrong.png")
    return root


def test_pairs_name_their_kind_and_what_they_are_across(photos: Path) -> None:
    found = find_near_copies(scan(photos))
    assert [(each.paths, each.kind, each.across_parts, each.across_classes) for each in found] == [
        (("train/cat/05.png", "test/cat/mirrored.jpg"), "near", True, False),
        (("train/dog/13.png", "train/cat/wrong.png"), "near", False, True),
        (("train/cat/01.png", "train/cat/again.png"), "content", False, False),
        (("train/cat/02.png", "train/cat/packed.png"), "pixels", False, False),
    ]
    assert all(each.similarity > 0.95 for each in found)
    assert find_near_copies(scan(photos)) == found  # memoized


def test_the_check_has_them_only_when_asked_and_writes_the_page(photos: Path, tmp_path: Path) -> None:
    assert check(photos).near_copies is None
    found = check(photos, near_page=tmp_path / "pages/near.html")
    near = json.loads(json.dumps(found.as_dict()))["near_copies"]
    assert near[0]["paths"] == ["train/cat/05.png", "test/cat/mirrored.jpg"]
    assert {"paths", "similarity", "across_parts", "across_classes"} <= near[0].keys()
    reasons = {each.path: each.reason for each in found.findings if each.kind == "near copy"}
    assert reasons.keys() == {"test/cat/mirrored.jpg", "train/cat/wrong.png"}
    assert "like train/dog/13.png, 'dog' in train" in reasons["train/cat/wrong.png"]
    assert any("in two parts" in warning for warning in found.warnings)
    assert any("under two classes" in warning for warning in found.warnings)
    page = (tmp_path / "pages/near.html").read_text()
    assert page.count("<img") == 8
    assert "4 pairs of copies" in page
    assert "http" not in page.replace("http-equiv", "")


def test_the_page_of_a_set_without_copies_says_so(colours: Path, tmp_path: Path) -> None:
    assert check(colours, near_page=tmp_path / "near.html").near_copies == ()
    assert "No copies were found" in (tmp_path / "near.html").read_text()


def test_a_page_of_another_format_or_without_the_search_is_refused(colours: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "near.csv"):
        with pytest.raises(OutputError, match=r"\.html"):
            api.check(colours, near=True, out=path)
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="no folder"):
        api.check(colours, near=True, out=tmp_path / "file/near.html")
    with pytest.raises(SettingsError, match="needs near"):
        CheckSettings.resolve({"folder": colours, "out": Path("x.html")})


def test_auto_groups_keep_near_copies_in_one_part(photos: Path) -> None:
    root = photos.parent / "whole"
    for file in photos.rglob("*.*"):
        (root / file.parent.name).mkdir(parents=True, exist_ok=True)
        shutil.copy(file, root / file.parent.name / file.name)
    groups = {sample.path: sample.group for sample in with_groups(scan(root), "auto").samples if sample.group}
    assert groups == {
        "cat/01.png": "cat/01.png", "cat/again.png": "cat/01.png", "cat/02.png": "cat/02.png",
        "cat/packed.png": "cat/02.png", "cat/05.png": "cat/05.png", "cat/mirrored.jpg": "cat/05.png",
        "dog/13.png": "dog/13.png", "cat/wrong.png": "dog/13.png",
    }  # fmt: skip
    split(SplitSettings(folder=root, group="auto"))
    parts = {sample.path: sample.part for sample in scan(root).samples}
    assert all(parts[path] == parts[group] for path, group in groups.items())


def test_near_copies_can_be_compared() -> None:
    pair = NearCopy(("a", "b"), 1.0, "near", False, True)
    assert pair.as_dict() == {
        "paths": ["a", "b"], "similarity": 1.0, "kind": "near", "across_parts": False, "across_classes": True,
    }  # fmt: skip
