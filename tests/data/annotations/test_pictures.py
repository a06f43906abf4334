"""Pictures found by the names that annotations have for them."""

from pathlib import Path

import pytest

from lensmith.data.annotations.pictures import MANY, Name, Pictures


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """More folders of equal names than are compared one by one."""
    for number in range(2 * MANY):
        for file in ("000.jpg", "001.png"):
            (tmp_path / f"photos/v{number}").mkdir(parents=True, exist_ok=True)
            (tmp_path / f"photos/v{number}" / file).write_bytes(b"x")
    return tmp_path


def found(root: Path, *names: str, subset: str = "") -> list[str | None]:
    wanted = [Name((name,), subset) for name in names]
    by_name = Pictures(root).find(wanted)
    return [by_name.get(each) for each in wanted]


def test_many_pictures_of_one_base_name_are_told_apart_by_their_folders(videos: Path) -> None:
    assert found(videos, "v3/000.jpg", "data/photos/v4/001", "photos/v5/001.png", "v3/000.png", "000.jpg") == [
        "photos/v3/000.jpg", "photos/v4/001.png", "photos/v5/001.png", None, None,
    ]  # fmt: skip


def test_a_picture_that_no_name_fits_is_found_by_its_base_name_and_not_twice(videos: Path) -> None:
    (videos / "photos/v0/only.jpg").write_bytes(b"x")
    assert found(videos, "elsewhere/only.jpg") == ["photos/v0/only.jpg"]
    assert found(videos, "elsewhere/only.jpg", "v0/only.jpg") == [None, "photos/v0/only.jpg"]
    assert found(videos, "here/only.jpg", "there/only.jpg") == [None, None]
    assert found(videos, "v99/000.jpg") == [None]


def test_the_subset_decides_between_equal_endings(tmp_path: Path) -> None:
    for part in ("train", "test"):
        (tmp_path / "images" / part).mkdir(parents=True)
        (tmp_path / "images" / part / "grün.jpg").write_bytes(b"x")
    assert found(tmp_path, "gru\u0308n.jpg", subset="test") == ["images/test/grün.jpg"]
    assert found(tmp_path, "grün.jpg") == [None]


def test_a_blank_before_a_name_may_be_part_of_it(tmp_path: Path) -> None:
    (tmp_path / " a.jpg").write_bytes(b"x")
    (tmp_path / "b.jpg").write_bytes(b"x")
    assert found(tmp_path, " a.jpg", " b.jpg") == [" a.jpg", "b.jpg"]
