"""What is sent."""

import io
from pathlib import Path

import pytest
from PIL import Image

from lensmith.errors import DataError
from lensmith.ops.loadtest import images


def test_drawn_pictures_are_photos_in_size_and_bytes_and_differ() -> None:
    drawn = images.synthetic_images(2)
    for encoded in drawn:
        assert Image.open(io.BytesIO(encoded)).size == (500, 375)
        assert 40_000 < len(encoded) < 120_000
    assert drawn[0] != drawn[1]
    assert images.synthetic_images(2) == drawn


def test_a_folder_is_sent_in_an_order_drawn_by_the_seed(colours: Path) -> None:
    (colours / "notes.txt").write_text("no picture")
    (colours / "red/._000.jpg").write_text("metadata of macOS")
    (colours / "red/@eaDir").mkdir()
    (colours / "red/@eaDir/thumb.jpg").write_text("thumbnail")
    one, same, other = (images.read_images(colours, seed) for seed in (0, 0, 1))
    assert len(one) == 24
    assert one == same != other
    assert set(one) == set(other)


def test_a_folder_larger_than_memory_should_be_is_sent_in_part(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_BYTES", 20_000)
    found = images.read_images(colours, 0)
    assert 0 < len(found) < 24
    assert sum(map(len, found)) <= 20_000


@pytest.mark.parametrize("name", ["empty", "missing"])
def test_a_path_without_images_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError):
        images.read_images(tmp_path / name, 0)
