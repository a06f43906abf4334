"""What to label next: the least sure pictures that differ, none that is known or a copy, as a work list."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fixtures.pictures import COLOURS, coloured_picture
from lensmith.bundle.format import GOLDEN, GRAPH, Bundle, seal
from lensmith.bundle.image_hashes import FILE, ImageHashes
from lensmith.curation.next_labels import diverse, next_labels
from lensmith.errors import DataError, SettingsError


@pytest.fixture
def pictures(tmp_path):
    """Three sure pictures, two between two colours, one of them twice, and a file that is no picture."""
    folder = tmp_path / "unlabelled" / "deeper"
    folder.mkdir(parents=True)
    for name in COLOURS:
        coloured_picture(COLOURS[name], seed=9).save(folder / f"{name}.png")
    Image.new("RGB", (32, 32), (120, 119, 0)).save(folder / "red or green.png")
    Image.new("RGB", (32, 32), (0, 120, 110)).save(folder / "green or blue.png")
    shutil.copy(folder / "green or blue.png", folder / "copy.png")
    (folder / "broken.png").write_bytes(b"no picture")
    return folder.parent


def rows_of(out: Path) -> list[dict[str, str]]:
    with out.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_least_sure_come_first_and_copies_once(colour_bundle: Bundle, pictures, tmp_path):
    found = next_labels(pictures, colour_bundle.path, 10, tmp_path / "lists" / "next.csv")
    assert [each.path for each in found.pictures][:2] == ["deeper/red or green.png", "deeper/copy.png"]
    assert (len(found.pictures), found.copies, found.found) == (5, 1, 7)
    assert [path for path, _ in found.unreadable] == ["deeper/broken.png"]
    assert 0.9 < found.pictures[0].score <= 1
    rows = rows_of(found.out)
    assert rows[0]["suggested"] in ("red", "green")
    assert (tmp_path / "lists" / rows[0]["path"]).resolve() == (pictures / "deeper/red or green.png").resolve()


def test_pictures_that_the_model_learnt_from_are_not_asked_for(colour_bundle: Bundle, pictures, tmp_path):
    folder = tmp_path / "bundle"
    folder.mkdir()
    for name in (GRAPH, GOLDEN):
        shutil.copy(colour_bundle.path / name, folder)
    hashes = ImageHashes.of([pictures / "deeper/red or green.png"], [pictures / "deeper/red.png"])
    hashes.save(folder / FILE)
    seal(folder, colour_bundle.manifest.model_copy(update={"image_hashes": hashes.entry}))
    found = next_labels(pictures, folder, 10, tmp_path / "next.csv")
    assert found.known == 2
    assert {"deeper/red or green.png", "deeper/red.png"}.isdisjoint(each.path for each in found.pictures)


def test_a_work_list_is_a_source_again(colour_bundle: Bundle, pictures, tmp_path):
    first = next_labels(pictures, colour_bundle.path, 10, tmp_path / "next.csv")
    again = next_labels(first.out, colour_bundle.path, 10, tmp_path / "again.csv")
    assert sorted(each.score for each in again.pictures) == sorted(each.score for each in first.pictures)


def test_rows_are_taken_from_each_cluster_the_wanted_one_first():
    random = np.random.default_rng(0)
    centres = np.eye(4, 200) * 10
    features = np.concatenate([centre + random.normal(0, 0.1, (25, 200)) for centre in centres]).astype(np.float16)
    weights = np.linspace(0.1, 1, 100)
    chosen = diverse(features, weights, 4)
    assert sorted(chosen // 25) == [0, 1, 2, 3]
    assert (np.diff(weights[chosen]) <= 0).all()


def test_equal_rows_and_unreadable_ones_are_filled_up():
    features = np.ones((6, 5), dtype=np.float32)
    features[0] = np.nan
    assert sorted(diverse(features, np.ones(6), 6)) == [0, 1, 2, 3, 4, 5]
    assert len(diverse(features, np.ones(6), 3)) == 3


@pytest.mark.parametrize(
    ("source", "count", "out", "error"),
    [
        ("nowhere", 5, "next.csv", DataError),
        ("empty", 5, "next.csv", DataError),
        ("unlabelled", 0, "next.csv", SettingsError),
        ("unlabelled", 5, "next", SettingsError),
    ],
)
def test_bad_input_writes_nothing(colour_bundle: Bundle, pictures, tmp_path, source, count, out, error):
    (tmp_path / "empty").mkdir()
    with pytest.raises(error):
        next_labels(tmp_path / source, colour_bundle.path, count, tmp_path / out)
    assert not (tmp_path / out).exists()
