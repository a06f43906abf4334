"""Write the annotation files beside this script with Datumaro 1.13: a small drawn set in every format that it writes.

    python -m venv ENV && ENV/bin/pip install datumaro==1.13.12 && ENV/bin/python make_with_datumaro.py

Datumaro's pins conflict with those of lensmith, so it has an environment of its own. Pictures are not committed; the
tests draw them where `pictures.json` of each folder says that they were exported to.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

from datumaro.components.annotation import Bbox, Label
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from fixtures.annotated_pictures import BOXES, CLASSES, PICTURES, draw, number_of  # noqa: E402

LABELS = (
    "cvat",
    "imagenet",
    "imagenet_with_subset_dirs",
    "imagenet_txt",
    "datumaro",
    "voc_classification",
    "coco_labels",
)
"""Formats of labels of whole pictures."""
BOXED = ("cvat", "datumaro", "voc", "voc_detection", "coco", "coco_instances", "yolo", "yolo_ultralytics")
"""Formats of boxes."""


def export(what: str, items: list[DatasetItem], formats: tuple[str, ...]) -> None:
    """Export the items in each format, and leave the annotation files and the places of the pictures."""
    for name in formats:
        folder = HERE / f"{what}-{name}"
        shutil.rmtree(folder, ignore_errors=True)
        if name == "yolo_ultralytics":  # which must have the subset val
            items = [item.wrap(subset=item.subset.replace("test", "val")) for item in items]
        Dataset.from_iterable(items, categories=list(CLASSES), media_type=Image).export(
            str(folder), name, save_media=True
        )
        places = {}
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in (".jpg", ".png"):
                places[file.relative_to(folder).as_posix()] = number_of(file)
                file.unlink()
        (folder / "pictures.json").write_text(json.dumps(places, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Draw the pictures and export both sets."""
    with tempfile.TemporaryDirectory() as temporary:
        labelled, boxed = [], []
        for number, picture in enumerate(PICTURES):
            file = Path(temporary, str(number), picture.name)
            draw(number, file)
            stem = str(Path(picture.name).with_suffix(""))
            for subset in picture.subsets:
                labels = [Label(CLASSES.index(label)) for label in picture.labels]
                labelled.append(
                    DatasetItem(stem, subset=subset, media=Image.from_file(path=str(file)), annotations=labels)
                )
                boxes = [
                    Bbox(x, y, width, height, label=CLASSES.index(label), id=place, group=place)
                    for place, (label, (x, y, width, height)) in enumerate(BOXES.get(number, ()), 1)
                ]
                boxed.append(DatasetItem(stem, subset=subset, media=Image.from_file(path=str(file)), annotations=boxes))
        export("labels", labelled, LABELS)
        export("boxes", boxed, BOXED)


if __name__ == "__main__":
    main()
