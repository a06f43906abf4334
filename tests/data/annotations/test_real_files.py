"""Files that labelling tools have written: the set that is read back equals the one that was exported.

They are of CVAT, Datumaro, FiftyOne, LabelImg and Roboflow's `supervision`; see `files/make_with_*.py`.
"""

from pathlib import Path

import pytest

from fixtures.annotated_pictures import BOXES, GONE, HEIGHT, PICTURES, TWO_LABELS, WIDTH, number_of, restore
from lensmith.data.annotations.load import load
from lensmith.data.image_set import ImageSet
from lensmith.data.scan import scan
from lensmith.imaging.crops import box_of, picture_of

FILES = Path(__file__).parent / "files"
LABELLED = sorted(folder.name for folder in FILES.glob("labels-*"))
BOXED = sorted(folder.name for folder in FILES.glob("boxes-*"))
WITHOUT_PARTS = ("labels-imagenet", "labels-fiftyone", "labels-fiftyone_flat")
"""Formats that do not have parts."""


def numbers(images: ImageSet) -> dict[int, set[tuple[str, str | None]]]:
    """Number of each picture → label and part of its samples."""
    found: dict[int, set[tuple[str, str | None]]] = {}
    for sample in images.samples:
        found.setdefault(number_of(images.file(sample)), set()).add((images.labels[sample.label], sample.part))
    return found


def earliest(found: dict[int, set[tuple[str, str | None]]]) -> dict[int, tuple[str, str | None]]:
    """As `numbers`, with the earlier part of a picture that is in two."""
    return {number: max(each, key=lambda pair: pair[1] or "") for number, each in found.items()}


def edges(name: str, x: int, y: int, width: int, height: int) -> tuple[int, ...]:
    """A box as a format has it: LabelImg writes no 0 into Pascal VOC and YOLO."""
    least = 1 if name in ("boxes-labelimg_voc", "boxes-labelimg_yolo") else 0
    left, top = max(least, x), max(least, y)
    return left, top, x + width - left, y + height - top


@pytest.mark.parametrize("name", LABELLED)
def test_labels_and_parts_of_pictures_are_those_that_were_exported(name: str, tmp_path: Path) -> None:
    images = scan(restore(FILES / name, tmp_path / "set"))
    wanted: dict[int, tuple[str, str | None]] = {
        number: (each.labels[0], None if name in WITHOUT_PARTS else each.subsets[0])
        for number, each in enumerate(PICTURES) if len(each.labels) == 1
    }  # fmt: skip
    found = numbers(images)
    if name.startswith("labels-imagenet") and "txt" not in name:  # two labels are two files, in two class folders
        assert {label for label, _ in found.pop(TWO_LABELS)} == {"cat", "dog"}
    else:
        assert [number_of(images.root / each.path) for each in images.contested] == [TWO_LABELS]
    assert earliest(found) == wanted
    assert sorted(number_of(images.root / path) for path in images.unlabelled) == [5, 12]


@pytest.mark.parametrize("name", BOXED)
def test_boxes_are_crops_of_the_upright_picture_whose_group_is_the_picture(name: str, tmp_path: Path) -> None:
    images = scan(restore(FILES / name, tmp_path / "set"))
    found: dict[int, set[tuple[str, tuple[int, ...]]]] = {}
    for sample in images.samples:
        file = images.file(sample)
        box = box_of(file)
        assert box is not None
        assert sample.group == picture_of(file).relative_to(images.root).as_posix()
        found.setdefault(number_of(picture_of(file)), set()).add((images.labels[sample.label], tuple(box)))
    assert found == {number: {(label, edges(name, *box)) for label, box in each} for number, each in BOXES.items()}
    unboxed = [number for number in range(len(PICTURES)) if number not in BOXES]
    assert sorted(number_of(images.root / path) for path in images.unlabelled) == unboxed
    assert all(
        box is None or (box.width <= WIDTH and box.height <= HEIGHT)
        for box in map(box_of, map(images.file, images.samples))
    )


@pytest.mark.parametrize(
    ("name", "file", "parts"),
    [
        ("labels-cvat", "train.xml", ("train",)),
        ("boxes-coco_instances", "annotations/instances_test.json", ("test",)),
        ("labels-datumaro", "annotations/train.json", ("train",)),
        ("boxes-yolo_ultralytics", "data.yaml", ("train", "val")),
    ],
)
def test_one_annotation_file_is_a_source_too_from_any_folder(
    name: str, file: str, parts: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = restore(FILES / name, tmp_path / "set")
    whole = scan(folder / file)
    assert whole.parts == parts
    monkeypatch.chdir((folder / file).parent)
    assert scan(Path(file).name).counts() == whole.counts()
    monkeypatch.chdir(folder)
    assert scan(file).counts() == whole.counts()
    if len(parts) > 1:
        assert scan(".").counts() == whole.counts()


@pytest.mark.parametrize("name", [name for name in (*LABELLED, *BOXED) if "imagenet" not in name or "txt" in name])
def test_a_deleted_picture_is_named_and_another_of_its_name_is_not_taken(name: str, tmp_path: Path) -> None:
    folder = restore(FILES / name, tmp_path / "set")
    places = sorted(file for file in folder.rglob("*.jpg") if number_of(file) in (GONE, 0))
    assert len(places) == 2
    for file in places:
        file.unlink()
    images = scan(folder)
    assert {0, GONE} & {number_of(picture_of(images.file(sample))) for sample in images.samples} == set()
    twin = [each for each in images.samples if number_of(picture_of(images.file(each))) == 1]
    assert {images.labels[each.label] for each in twin} == ({"cat", "dog"} if name in BOXED else {"dog"})
    missing = [path for path, reason in images.set_aside if reason == "there is no such file"]
    if "yolo" not in name:  # whose label files are all that names pictures
        assert len(missing) == 2
    assert any("2 of" in warning for warning in images.warnings)


def test_a_task_of_cvat_names_its_subset_once_for_all_pictures(tmp_path: Path) -> None:
    folder = restore(FILES / "cvat-task", tmp_path / "set")
    assert numbers(scan(folder)) == {
        8: {("dog", "test")}, 9: {("Käfer 虫", "test")}, 10: {("cat", "test")}, 11: {("dog", "test")}
    }  # fmt: skip
    (folder / "annotations.xml").rename(folder / "train.xml")  # the task knows better than the name of the file
    assert scan(folder).parts == ("test",)


def test_jobs_of_cvat_are_annotators_called_as_their_assignees(tmp_path: Path) -> None:
    folder = restore(FILES / "cvat-replicas", tmp_path / "set")
    loaded = load(folder)
    assert loaded is not None
    given: dict[int, set[tuple[str, str]]] = {}
    for row in loaded[1].rows:
        given.setdefault(number_of(folder / row.path), set()).add((row.annotator, row.label))
    assert given[0] == {("anna", "cat"), ("ben", "cat")}
    assert given[3] == {("anna", "cat"), ("ben", "dog")}
    assert given[TWO_LABELS] == {(who, label) for who in ("anna", "ben") for label in ("cat", "dog")}
    assert sorted(number_of(folder / each.path) for each in scan(folder).contested) == [3, TWO_LABELS, GONE]


def test_pixels_of_pascal_voc_count_from_1_but_in_files_of_label_studio(tmp_path: Path) -> None:
    folder = restore(FILES / "boxes-roboflow_voc", tmp_path / "set")
    file = folder / "train" / "shared.xml"
    assert "<xmin>4</xmin>" in file.read_text(encoding="utf-8")

    def left() -> list[int]:
        found = [sample for sample in scan(folder).samples if number_of(picture_of(folder / sample.path)) == 8]
        return [box.x for sample in found if (box := box_of(folder / sample.path)) is not None]

    assert left() == [3]
    owner = "<owner>\n<flickrid>NULL</flickrid>\n<name>Label Studio</name>\n</owner><size>"
    file.write_text(file.read_text(encoding="utf-8").replace("<size>", owner), encoding="utf-8")
    assert left() == [4]
