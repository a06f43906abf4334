"""Write the annotation files `labels-fiftyone*` and `boxes-fiftyone` with the exporters of FiftyOne 1.22.

    python -m venv ENV && ENV/bin/pip install fiftyone==1.22.1
    FIFTYONE_DISABLE_SERVICES=1 ENV/bin/python make_with_fiftyone.py

No database is needed. Pictures are not committed; the tests draw them where
`pictures.json` says that they were exported to.
"""

import json
import shutil
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import fiftyone as fo
from fiftyone.utils.data.exporters import (
    FiftyOneImageClassificationDatasetExporter,
    FiftyOneImageDetectionDatasetExporter,
)

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from fixtures.annotated_pictures import BOXES, CLASSES, HEIGHT, PICTURES, WIDTH, draw, number_of  # noqa: E402

Labelled = Iterable[tuple[Path, Any]]


def export(name: str, exporter: type[Any], labelled: Labelled, **options: Any) -> None:
    """Export pictures with labels, and leave the annotation file and the places of the pictures."""
    out = HERE / name
    shutil.rmtree(out, ignore_errors=True)
    with exporter(export_dir=str(out), **options) as writer:
        for file, label in labelled:
            writer.export_sample(str(file), label)
    places = {}
    for file in sorted(out.rglob("*")):
        if file.suffix in (".jpg", ".png"):
            places[file.relative_to(out).as_posix()] = number_of(file)
            file.unlink()
    shutil.rmtree(out / "data")
    (out / "pictures.json").write_text(json.dumps(places, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def main() -> None:
    """Draw the pictures and export them: in folders with names of classes, flat with numbers, and with boxes."""
    with tempfile.TemporaryDirectory() as temporary:
        files = [Path(temporary, picture.name) for picture in PICTURES]
        for number, file in enumerate(files):
            draw(number, file)
        labels = [classes_of(picture.labels) for picture in PICTURES]
        boxes = [
            fo.Detections(
                detections=[
                    fo.Detection(label=label, bounding_box=[x / WIDTH, y / HEIGHT, w / WIDTH, h / HEIGHT])
                    for label, (x, y, w, h) in BOXES.get(number, ())
                ]
            )
            for number in range(len(PICTURES))
        ]
        classification, detection = FiftyOneImageClassificationDatasetExporter, FiftyOneImageDetectionDatasetExporter
        export("labels-fiftyone", classification, zip(files, labels, strict=True), rel_dir=temporary)
        numbered = {"classes": list(CLASSES), "include_confidence": True}
        export("labels-fiftyone_flat", classification, zip(files, labels, strict=True), **numbered)
        export("boxes-fiftyone", detection, zip(files, boxes, strict=True), classes=list(CLASSES), rel_dir=temporary)


def classes_of(labels: tuple[str, ...]) -> fo.Classification | fo.Classifications | None:
    """Labels of a picture as FiftyOne has them: none, one or several."""
    found = [fo.Classification(label=label, confidence=0.75) for label in labels]
    return fo.Classifications(classifications=found) if len(found) > 1 else next(iter(found), None)


if __name__ == "__main__":
    main()
