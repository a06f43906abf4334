"""A digest names a content, whatever its file is called; a crop's also its box."""

import hashlib
from pathlib import Path

import pytest

from lensmith.imaging.content_digests import content_digests, distinct_digests


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LENSMITH_CACHE", str(tmp_path / "cache"))


def test_equal_contents_have_equal_digests_and_crops_their_own(tmp_path: Path) -> None:
    for name, content in (("a.jpg", b"one"), ("b.png", b"one"), ("c.png", b"two"), ("empty.png", b"")):
        (tmp_path / name).write_bytes(content)
    names = ("a.jpg", "b.png", "c.png", "gone.png", "empty.png", "a.jpg#xywh=0,0,5,5", "b.png#xywh=0,0,5,5")
    names = (*names, "a.jpg#xywh=1,0,5,5", "gone.png#xywh=1,0,5,5")
    found = dict(zip(names, content_digests([tmp_path / name for name in names]), strict=True))
    assert found["a.jpg"] == found["b.png"] == hashlib.sha256(b"one").digest() != found["c.png"]
    assert found["gone.png"] is found["empty.png"] is found["gone.png#xywh=1,0,5,5"] is None
    assert found["a.jpg#xywh=0,0,5,5"] == found["b.png#xywh=0,0,5,5"]
    assert len({found[name] for name in names}) == 5


def test_copies_become_distinct_whatever_stands_between_them() -> None:
    a, b, c = (bytes([number]) * 32 for number in range(3))
    first, second, third = distinct_digests([a, a, a])
    assert first == a
    assert len({first, second, third}) == 3
    assert distinct_digests([b, a, None, c, a, None, a]) == [b, a, None, c, second, None, third]
