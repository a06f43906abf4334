from pathlib import Path

import pytest

from lensmith.data.annotations.json_stream import MAX_DEPTH, json_head, json_items, json_pairs
from lensmith.errors import DataError

pytest.importorskip("ijson")


def test_elements_of_lists_and_pairs_of_objects(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(b'\xef\xbb\xbf{"images": [{"id": 1, "w": 2.5}, {"id": 2}], "labels": {"a": 0, "b": 1}}')
    assert list(json_items(file, "images.item")) == [{"id": 1, "w": 2.5}, {"id": 2}]
    assert list(json_pairs(file, "labels")) == [("a", 0), ("b", 1)]
    assert isinstance(next(json_items(file, "images.item"))["w"], float)


@pytest.mark.parametrize(
    "content", [b"", b"text", b'[{"a": 1}, {"b"', b'["\xff"]', b"\xff\xfe[\x00]\x00", b"[1] 2", b"[" * 50_000]
)
def test_broken_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "broken.json"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(json_items(file))
    assert str(file) in caught.value.expected
    assert "\n" not in str(caught.value)


def test_brackets_in_texts_are_no_depth(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('["' + "[" * 50_000 + '"]')
    assert list(json_items(file)) == ["[" * 50_000]


def test_the_head_tells_the_shape_of_a_large_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    file.write_text('[{"id": 1, "data": {"image": "a.jpg"}}' + ', {"id": 2}' * 1000 + "]")
    head = json_head(file, max_bytes=200)
    assert head[0] == {"id": 1, "data": {"image": "a.jpg"}}
    assert len(head) < 1001
    file.write_text("[" * (MAX_DEPTH + 1))
    assert json_head(file) is None
    assert json_head(tmp_path / "missing.json") is None
