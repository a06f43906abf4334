"""Sources that are refused: one plain paragraph, and nothing read that lies outside the folder."""

import json
import os
import random
import shutil
import tracemalloc
from pathlib import Path

import pytest

from fixtures.annotated_pictures import restore
from lensmith.config import ImportSettings
from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.json_stream import json_fault
from lensmith.data.annotations.reader import Reading, Source
from lensmith.data.import_annotations import import_annotations
from lensmith.data.scan import scan
from lensmith.errors import DataError, LensmithError, OutOfMemoryError

FILES = Path(__file__).parent / "files"
FORMATS = sorted(folder.name for folder in FILES.iterdir() if (folder / "pictures.json").exists())


def refused(source: Path, **settings: str) -> str:
    out = source.parent / "refused.csv"
    with pytest.raises(DataError) as raised:
        import_annotations(ImportSettings(source=source, out=out, **settings))
    assert not out.exists()
    return str(raised.value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return restore(FILES / "labels-cvat", tmp_path / "photos")


@pytest.mark.parametrize(
    "head",
    [
        '<!DOCTYPE annotations [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>',
        '<!DOCTYPE annotations SYSTEM "file:///etc/passwd">',
        "<!DOCTYPE annotations>",
    ],
)
def test_a_document_type_and_with_it_every_entity_is_refused(photos: Path, head: str) -> None:
    file = photos / "train.xml"
    text = file.read_text(encoding="utf-8").replace("<annotations>", f"{head}<annotations>").replace("cat", "&b;")
    file.write_text(text, encoding="utf-8")
    assert "DOCTYPE" in refused(photos)
    file.write_bytes(text.replace('encoding="utf-8"', 'encoding="utf-16"').encode("utf-16"))
    assert "DOCTYPE" in refused(photos / "train.xml", format="cvat")


def test_deeply_nested_and_truncated_xml_is_refused(photos: Path) -> None:
    whole = (photos / "train.xml").read_bytes()
    (photos / "train.xml").write_bytes(whole[:-200])
    assert "broken" in refused(photos)
    (photos / "train.xml").write_bytes(b"<annotations>" + b"<image>" * 200_000)
    assert "nested" in refused(photos)


@pytest.mark.parametrize("name", ["../outside.jpg", "images/../../outside.jpg", "..\\outside.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(photos: Path, name: str) -> None:
    shutil.copy(photos / "images/t1.jpg", photos.parent / "outside.jpg")
    file = photos / "train.xml"
    file.write_text(file.read_text(encoding="utf-8").replace("blank.jpg", name), encoding="utf-8")
    assert "leads out" in refused(photos)


def test_an_absolute_name_is_never_followed_and_found_below_the_folder(photos: Path) -> None:
    shutil.copy(photos / "images/t1.jpg", photos.parent / "outside.jpg")
    file = photos / "train.xml"
    text = file.read_text(encoding="utf-8").replace("gone.jpg", str(photos.parent / "outside.jpg"))
    file.write_text(text.replace("one/grün.jpg", r"C:\work\images\one\grün.jpg"), encoding="utf-8")
    images = scan(photos)
    assert str(photos.parent / "outside.jpg") in dict(images.set_aside)
    assert "images/one/grün.jpg" in {sample.path for sample in images.samples}


def test_all_pictures_missing_is_an_error_that_names_some(photos: Path) -> None:
    shutil.rmtree(photos / "images")
    assert "None of 13 is there: blank.jpg, both.jpg, deep/er/three.v2.jpg and 10 more" in refused(photos)


def test_two_formats_in_one_folder_are_named_with_the_setting_that_decides(photos: Path) -> None:
    shutil.copytree(FILES / "labels-coco_labels/annotations", photos / "annotations")
    said = refused(photos)
    assert "CVAT for images 1.1 (test.xml" in said
    assert "COCO JSON (annotations/labels_test.json" in said
    assert f"lensmith data import {photos} OUT --format cvat` (or coco)" in said
    done = [
        import_annotations(ImportSettings(source=photos, out=photos / f"{name}.csv", format=name))
        for name in ("cvat", "coco")
    ]
    assert done[0].counts == done[1].counts
    with pytest.raises(DataError, match="--format cvat"):
        scan(photos)


@pytest.mark.parametrize(
    ("files", "close"),
    [
        ({"labels/1.txt": "0 0.5 0.5 1 1"}, "YOLO came close: labels holds label files"),
        ({"data.yaml": "names: [a, b]"}, "YOLO came close: data.yaml names classes"),
        ({"annotations/captions_val.json": '{"images": [{"id": 1, "file_name": "a.jpg"}]}'}, "COCO JSON came close"),
        ({"a.xml": "<annotations><track id='0' label='x'></track></annotations>"}, "CVAT for video"),
        ({"ImageSets/Main/train.txt": "1"}, "Pascal VOC came close"),
        ({"report.docx": "x", "cat/1.txt": ""}, "1 .docx, the folders 'cat'"),
    ],
)
def test_an_unknown_source_says_what_is_there_and_which_format_it_comes_close_to(
    tmp_path: Path, files: dict[str, str], close: str
) -> None:
    for name, text in files.items():
        (tmp_path / "set" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / name).write_text(text)
    assert close in refused(tmp_path / "set")


def test_a_damaged_annotation_file_as_data_is_no_table_and_a_folder_says_what_comes_close(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"images": []}')
    with pytest.raises(DataError, match="Annotations of a known format were expected"):
        scan(tmp_path / "a.json")
    folder = restore(FILES / "boxes-yolo_ultralytics", tmp_path / "set")
    (folder / "data.yaml").unlink()
    with pytest.raises(DataError, match="YOLO came close: labels holds label files"):
        scan(folder)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'[{"image": NaN}]', "invalid char in json text"),
        ('[{"image": "ü.jpg"}]'.encode("utf-16"), "it is in UTF-16"),
        (b"[" * 5_000, "nested deeper"),
        (b'{"images": [', "premature EOF"),
    ],
)
def test_json_that_is_none_is_called_so(tmp_path: Path, content: bytes, fault: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set/a.json").write_bytes(content)
    said = refused(tmp_path / "set")
    assert "a.json is no JSON in UTF-8" in said
    assert fault in said
    assert fault in refused(tmp_path / "set/a.json")


def test_a_pipe_beside_the_annotations_is_not_opened(photos: Path) -> None:
    before = scan(photos).counts()
    for name in ("a.json", "b.xml", "c.csv", "d.jpg", "e.txt"):
        os.mkfifo(photos / name)
    assert scan(photos).counts() == before


def test_long_json_that_begins_well_has_no_fault(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(["x" * 50] * 100))
    assert json_fault(tmp_path / "a.json", 1_000) == ""


def test_a_value_of_cvat_that_is_no_number_is_named_with_its_file(photos: Path) -> None:
    file = photos / "train.xml"
    file.write_text(file.read_text(encoding="utf-8").replace('width="48"', 'width="wide"', 1), encoding="utf-8")
    said = refused(photos)
    assert str(file) in said
    assert "'wide' is there as 'width' of <image>" in said


@pytest.mark.parametrize("name", ["coco", "datumaro"])
def test_memory_does_not_grow_with_what_a_file_says_beside_labels(name: str, tmp_path: Path) -> None:
    outline = [0.125] * 4_000
    if name == "coco":
        shape = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 2, 2], "segmentation": [outline]}
        whole = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [shape] * 40}
        content: dict[str, object] = {**whole, "categories": [{"id": 1, "name": "x"}]}
    else:
        item = {"id": "a", "image": {"path": "a.jpg"}, "annotations": [{"type": "polygon", "points": outline}]}
        content = {"categories": {"label": {"labels": [{"name": "x"}]}}, "infos": {}, "items": [item] * 40}
    (tmp_path / "all.json").write_text(json.dumps(content))
    source = Source(tmp_path)
    found = detect(source)
    assert found is not None
    count = sum(1 for _ in found[0].read(source, found[1].files, Reading([], [])))
    tracemalloc.start()  # now that all modules are imported
    list(found[0].read(source, found[1].files, Reading([], [])))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found[0].name, count) == (name, 40)
    assert (tmp_path / "all.json").stat().st_size > 1_000_000
    assert peak < 1_000_000  # all outlines at once take five times as much


def test_where_memory_runs_out_the_paragraph_names_the_source(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("lensmith.data.annotations.load.assemble", fail)
    with pytest.raises(OutOfMemoryError, match="photos was expected"):
        scan(photos)


def test_numbers_of_classes_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    folder = restore(FILES / "boxes-yolo", tmp_path / "set")
    (folder / "obj.names").write_text("cat\ndog\n")
    assert "the 2 classes" in refused(folder)


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_files_of_every_format_end_in_an_error_of_ours(name: str, tmp_path: Path) -> None:
    folder, drawn = restore(FILES / name, tmp_path / "set"), random.Random(name)
    places = {Path(place) for place in json.loads((FILES / name / "pictures.json").read_text(encoding="utf-8"))}
    files = [each for each in folder.rglob("*") if each.is_file() and each.relative_to(folder) not in places]
    for _ in range(3 if files else 0):
        file = drawn.choice(files)
        whole = file.read_bytes()
        if not whole:
            continue
        damaged = bytearray(whole)
        for _ in range(drawn.randint(1, 6)):
            damaged[drawn.randrange(len(damaged))] = drawn.choice(b'\x00"<>{}[],:-.09ae \n\xff')
        file.write_bytes(damaged[: drawn.randint(1, len(damaged))] if drawn.random() < 0.3 else damaged)
        try:
            scan(folder)
        except LensmithError as error:
            assert str(error).count("\n") == 0  # noqa: PT017 - either outcome is fine
        file.write_bytes(whole)
