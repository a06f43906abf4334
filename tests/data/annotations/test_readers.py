"""Traps of each format, in files as their tools write them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.reader import PEEKED_FILES, Entry, Reading, Source
from lensmith.data.image_set import ImageSet
from lensmith.data.scan import scan
from lensmith.errors import DataError

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes texts by path, and 40 × 20 pictures where a text is None."""

    def write(files: dict[str, str | None]) -> Path:
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            if text is None:
                Image.new("RGB", (40, 20), (len(name), 7, 7)).save(tmp_path / name)
            else:
                (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path

    return write


def entries(root: Path) -> list[Entry]:
    source = Source(root)
    found = detect(source)
    assert found is not None
    return list(found[0].read(source, found[1].files, Reading([], [])))


def labels(images: ImageSet) -> dict[str, str]:
    return {sample.path: images.labels[sample.label] for sample in images.samples}


def cvat(*images: str, meta: str = "") -> str:
    head = '<?xml version="1.0" encoding="utf-8"?>\n<annotations><version>1.1</version>'
    return f"{head}{meta}{''.join(images)}</annotations>"


def image(name: str, *inside: str, more: str = "") -> str:
    return f'<image id="0" name="{name}" width="40" height="20" {more}>{"".join(inside)}</image>'


def tag(label: str, *attributes: str) -> str:
    return f'<tag label="{label}" source="manual">{"".join(attributes)}</tag>'


def test_cvat_shapes_are_the_boxes_around_them(write: Write) -> None:
    shapes = (
        '<box label="a" xtl="10" ytl="5" xbr="30" ybr="15" rotation="90.0"/>',
        '<polygon label="b" points="1.0,2.0;9.5,3.0;4.0,8.0"/>',
        '<ellipse label="a" cx="20" cy="10" rx="4" ry="2"/>',
        '<mask label="b" left="3" top="4" width="5" height="6" rle="1"/>',
        '<polyline label="c" points="1,2;3,4"/><points label="c" points="1,2"/>',
    )
    root = write({"annotations.xml": cvat(image("x.png", *shapes)), "x.png": None})
    areas = [each.area for each in entries(root)]
    assert [tuple(round(edge, 9) for edge in area[:4]) for area in areas if area] == [
        (15, 0, 25, 20), (1, 2, 9.5, 8), (16, 8, 24, 12), (3, 4, 8, 10),
    ]  # fmt: skip
    images = scan(root)
    assert images.samples[0].path == "x.png#xywh=1,2,9,6"
    assert any("1 points, 1 polyline" in warning for warning in images.warnings)


def test_cvat_tags_go_before_boxes_and_a_picture_with_a_box_alone_is_unlabelled(write: Write) -> None:
    box = '<box label="thing" xtl="1" ytl="1" xbr="5" ybr="5"/>'
    xml = cvat(image("a.png", tag("x"), box), image("b.png", tag("y")), image("c.png", box))
    images = scan(write({"annotations.xml": xml, "a.png": None, "b.png": None, "c.png": None}))
    assert labels(images) == {"a.png": "x", "b.png": "y"}
    assert images.unlabelled == ("c.png",)
    assert any("Boxes, which are left out" in note for note in images.notes)


def test_cvat_attribute_is_the_class_where_there_is_one_label(write: Write) -> None:
    def attributes(species: str, ear: str = "left") -> tuple[str, str]:
        return f'<attribute name="species">{species}</attribute>', f'<attribute name="ear">{ear}</attribute>'

    xml = cvat(image("a.png", tag("animal", *attributes("cat"))), image("b.png", tag("animal", *attributes("dog"))))
    root = write({"annotations.xml": xml, "a.png": None, "b.png": None})
    assert labels(scan(root)) == {"a.png": "cat", "b.png": "dog"}
    write({"annotations.xml": xml.replace("left", "right", 1)})
    with pytest.raises(DataError, match=r"'ear', 'species'.* --attribute NAME"):
        scan(root)


def test_cvat_files_of_several_jobs_are_several_annotators(write: Write) -> None:
    def job(name: str, *given: str) -> str:
        meta = f"<meta><job><id>1</id><assignee><username>{name}</username></assignee></job></meta>" if name else ""
        pictures = [image(f"{number}.png", tag(label)) for number, label in enumerate(given)]
        return cvat(*pictures, meta=meta)

    files: dict[str, str | None] = {f"{number}.png": None for number in range(3)}
    texts = {"1.xml": job("ada", "x", "x", "y"), "2.xml": job("", "x", "y", "y"), "3.xml": job("bob", "x", "x", "x")}
    root = write({**files, **texts})
    assert {each.annotator for each in entries(root)} == {"ada", "2", "bob"}
    images = scan(root)
    assert labels(images) == {"0.png": "x", "1.png": "x", "2.png": "y"}  # by majority
    write({"3.xml": job("bob", "x", "z", "z")})
    assert [each.path for each in scan(root).contested] == ["1.png"]


def test_cvat_subsets_are_parts_and_a_default_beside_them_has_none(write: Write) -> None:
    pictures = [
        image(f"{n}.png", tag("xy"[n % 2]), more=f'subset="{s}"')
        for n, s in enumerate(("Train", "Train", "Validation", "Validation"))
    ]
    files: dict[str, str | None] = {
        f"images/{part}/{n}.png": None for n, part in enumerate(("Train", "Train", "Validation", "Validation"))
    }
    root = write({"annotations.xml": cvat(*pictures), **files})
    assert [sample.part for sample in scan(root).samples] == ["train", "train", "val", "val"]
    more = [image("4.png", tag("x"), more='subset="default"')]
    root = write({"annotations.xml": cvat(*pictures, *more), "images/default/4.png": None})
    images = scan(root)
    assert len(images.samples) == 4
    assert dict(images.set_aside) == {"images/default/4.png": "it has no part, though other pictures have one"}


def voc(name: str, *objects: str, size: str = "<width>40</width><height>20</height>") -> str:
    return (
        f"<annotation><folder>f</folder><filename>{name}</filename><size>{size}</size>{''.join(objects)}</annotation>"
    )


def voc_object(label: str, *edges: object, difficult: int = 0) -> str:
    names = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{name}>{edge}</{name}>" for name, edge in zip(names, edges, strict=True))
    return f"<object><name>{label}</name><difficult>{difficult}</difficult><bndbox>{box}</bndbox></object>"


def test_voc_boxes_of_labelimg_count_from_1_and_have_both_edges(write: Write) -> None:
    files = {
        "a b.xml": voc("a b.png", voc_object("x", 1, 1, 40, 20), voc_object("y", 3, 5, 12, 14, difficult=1)),
        "ü.xml": voc("renamed.png", voc_object("x", 2.5, 3.0, 6.5, 7.0)),
    }
    images = scan(write({**files, "a b.png": None, "ü.png": None, "not yet.png": None}))
    assert labels(images) == {
        "a b.png#xywh=0,0,40,20": "x", "a b.png#xywh=2,4,10,10": "y", "ü.png#xywh=3,3,4,4": "x",
    }  # fmt: skip
    assert images.unlabelled == ("not yet.png",)
    assert any("difficult" in note and "1" in note for note in images.notes)


def test_coco_ids_have_gaps_and_crowds_are_left_out(write: Write) -> None:
    text = """{"images": [{"id": 900, "file_name": "a.png"},
      {"id": 7, "file_name": "b.png", "width": 80, "height": 40}],
      "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [10, 10, 20, 20]},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [-5, 0, 20, 10], "iscrowd": 0},
        {"id": 3, "image_id": 7, "category_id": 3, "bbox": [0, 0, 80, 40], "iscrowd": 1},
        {"id": 4, "image_id": 900, "category_id": 3, "bbox": [50, 50, 5, 5]}],
      "categories": [{"id": 3, "name": "car"}, {"id": 90, "name": "brush"}]}"""
    images = scan(write({"annotations/instances_default.json": text, "images/a.png": None, "images/b.png": None}))
    # b.png has half the size that it had when it was annotated, and a box lies partly outside.
    assert labels(images) == {"images/b.png#xywh=5,5,10,10": "brush", "images/b.png#xywh=0,0,8,5": "car"}
    assert any("crowds" in warning for warning in images.warnings)
    assert any("without an area" in warning and "1" in warning for warning in images.warnings)


@pytest.mark.parametrize(
    "names",
    [
        {"data.yaml": "path: ../x\ntrain: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['cat', 'big dog']\n"},
        {"data.yaml": "train: train/images\nval: valid/images\nnames:\n  0: cat\n  1: big dog\n"},
    ],
)
def test_yolo_of_ultralytics_and_roboflow(write: Write, names: dict[str, str | None]) -> None:
    files: dict[str, str | None] = {
        "train/images/a b.png": None, "train/labels/a b.txt": "1 0.5 0.5 0.5 0.5\n",
        "train/images/none.png": None, "train/labels/none.txt": "",
        "valid/images/v.png": None, "valid/labels/v.txt": "0 0.1 0.1 0.5 0.1 0.5 0.6 0.1 0.6\n",
        "valid/images/unseen.png": None,
    }  # fmt: skip
    images = scan(write({**names, **files}))
    assert labels(images) == {
        "train/images/a b.png#xywh=10,5,20,10": "big dog",
        "valid/images/v.png#xywh=4,2,16,10": "cat",
    }
    assert {sample.part for sample in images.samples} == {"train", "val"}
    assert images.unlabelled == ("train/images/none.png", "valid/images/unseen.png")


def test_yolo_of_labelimg_lies_beside_the_pictures(write: Write) -> None:
    files: dict[str, str | None] = {
        "classes.txt": "cat\ndog\n",
        "notes.txt": "a text of mine\n",
        "1.png": None,
        "2.png": None,
    }
    images = scan(write({**files, "1.txt": "0 0.5 0.5 1 1\n", "2.txt": "1 0.25 0.5 0.5 1.0\n", "3.png": None}))
    assert labels(images) == {"1.png#xywh=0,0,40,20": "cat", "2.png#xywh=0,0,20,20": "dog"}
    assert images.unlabelled == ("3.png",)


def test_imagenet_lists_quote_names_and_translate_ids(write: Write) -> None:
    lines = r'"say \"cheese\" now".png 0' + "\nplain 1.png 1\nunlabelled.png \n"
    synsets = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    files: dict[str, str | None] = {'say "cheese" now.png': None, "plain 1.png": None, "unlabelled.png": None}
    images = scan(write({"default.txt": lines, "synsets.txt": synsets, **files}))
    assert labels(images) == {'say "cheese" now.png': "tench", "plain 1.png": "goldfish"}
    assert images.unlabelled == ("unlabelled.png",)


def test_imagenet_folders_by_id_have_the_names_of_the_synsets(write: Write) -> None:
    files: dict[str, str | None] = {"n01440764/1.png": None, "n01443537/2.png": None, "README.txt": "README\n"}
    synsets = "n01440764 tench, Tinca tinca\nn01443537 goldfish, Carassius auratus\n"
    assert labels(scan(write({"synsets.txt": synsets, **files}))) == {
        "n01440764/1.png": "tench", "n01443537/2.png": "goldfish",
    }  # fmt: skip


def test_boxes_that_were_drawn_on_the_stored_picture_are_turned_with_it(write: Write) -> None:
    root = write({"plain.png": None})
    for orientation in (5, 6, 7, 8):
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = Image.new("RGB", (40, 20))
        stored.putpixel((3, 5), (255, 255, 255))
        stored.save(root / f"{orientation}.png", exif=exif)
    box = '<box label="{}" xtl="3" ytl="5" xbr="4" ybr="6"/>'
    xml = cvat(*(image(f"{each}.png", box.format("xy"[each % 2])) for each in (5, 6, 7, 8)))
    images = scan(write({"annotations.xml": xml}))
    from lensmith.imaging.decoding import decode, read

    assert len(images.samples) == 4
    assert {decode(read(images.file(sample))).getpixel((0, 0)) for sample in images.samples} == {(255, 255, 255)}


def test_a_picture_of_another_shape_than_the_annotated_one_is_set_aside(write: Write) -> None:
    box = '<box label="{}" xtl="3" ytl="5" xbr="9" ybr="9"/>'
    xml = cvat(*(image(f"{each}.png", box.format(each)) for each in "abc"))
    root = write({"annotations.xml": xml, "a.png": None, "b.png": None})
    Image.new("RGB", (40, 40)).save(root / "c.png")
    images = scan(root)
    assert sorted(labels(images).values()) == ["a", "b"]
    assert "40 × 40" in dict(images.set_aside)["c.png"]


def test_parts_in_folders_with_annotations_of_their_own_as_roboflow_exports_them(write: Write) -> None:
    def coco(name: str, label: str) -> str:
        return (
            f'{{"images": [{{"id": 0, "file_name": "{name}", "width": 40, "height": 20}}], "categories": '
            f'[{{"id": 1, "name": "{label}"}}], "annotations": [{{"id": 1, "image_id": 0, "category_id": 1, '
            '"bbox": [0, 0, 40, 20]}]}'
        )

    files: dict[str, str | None] = {"train/a.png": None, "valid/a.png": None, "README.roboflow.txt": "about\n"}
    jsons = {f"{part}/_annotations.coco.json": coco("a.png", label) for part, label in (("train", "x"), ("valid", "y"))}
    root = write({**files, **jsons})
    wanted = {"train/a.png#xywh=0,0,40,20": "x", "valid/a.png#xywh=0,0,40,20": "y"}
    assert labels(scan(root)) == wanted
    assert {sample.part for sample in scan(root).samples} == {"train", "val"}
    for part, label in (("train", "x"), ("valid", "y")):
        (root / part / "_annotations.coco.json").unlink()
        write({f"{part}/a.xml": voc("a.png", voc_object(label, 1, 1, 40, 20))})
    assert labels(scan(root)) == wanted
    assert {sample.part for sample in scan(root).samples} == {"train", "val"}


def _task(number: int) -> dict[str, object]:
    result = [{"type": "choices", "from_name": "c", "value": {"choices": ["cat"]}}]
    return {"data": {"image": f"{number}.jpg"}, "annotations": [{"completed_by": 1, "result": result}]}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("{}.json", _task),
        ("{}.json", lambda number: [_task(number)]),
        ("{}.json", lambda number: [{"image": f"{number}.jpg", "annotations": [{"label": "cat"}]}]),
        (
            "{}.json",
            lambda number: {
                "images": [{"id": 1, "file_name": f"{number}.jpg"}],
                "categories": [{"id": 1, "name": "cat"}],
                "annotations": [{"image_id": 1, "category_id": 1}],
            },
        ),
        (
            "{}.json",
            lambda number: [
                {"image": f"{number}.jpg", "c": "cat", "annotator": 1, "annotation_id": number, "lead_time": 1}
            ],
        ),
        ("{}.xml", lambda number: f"<annotations><image name='{number}.jpg'><tag label='cat'/></image></annotations>"),
        ("{}.xml", lambda number: f"<annotation><filename>{number}.jpg</filename><object><name>cat</name></object>"
                                  "</annotation>"),
    ],
)  # fmt: skip
def test_files_by_the_dozen_are_all_read(name: str, content: Callable[[int], object], tmp_path: Path) -> None:
    count = PEEKED_FILES + 5
    for number in range(count):
        written = content(number)
        text = written if isinstance(written, str) else json.dumps(written)
        (tmp_path / name.format(number)).write_text(text, encoding="utf-8")
    source = Source(tmp_path)
    found = detect(source)
    assert found is not None
    assert len({entry.picture for entry in found[0].read(source, found[1].files, Reading([], []))}) == count


def test_yolo_is_recognised_behind_pictures_without_objects(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\n")
    for number in range(PEEKED_FILES + 5):
        (tmp_path / f"{number:03}.txt").write_text("" if number <= PEEKED_FILES else "0 0.5 0.5 0.1 0.1\n")
    found = detect(Source(tmp_path))
    assert found is not None
    assert found[0].name == "yolo"
