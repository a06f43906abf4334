"""Write the annotation files `boxes-roboflow_*` beside this script with `supervision` 0.31, Roboflow's own library.

    python -m venv ENV && ENV/bin/pip install supervision==0.31.2 && ENV/bin/python make_with_supervision.py

Each part has a folder of its own, as Roboflow's exports have. Pictures are not committed; the tests draw them where
`pictures.json` says.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import supervision as sv

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from fixtures.annotated_pictures import BOXES, CLASSES, PICTURES, draw  # noqa: E402


def main() -> None:
    """Draw the pictures and export them in three formats."""
    outs = {kind: HERE / f"boxes-roboflow_{kind}" for kind in ("coco", "voc", "yolo")}
    for out in outs.values():
        shutil.rmtree(out, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        places: dict[str, dict[str, int]] = {kind: {} for kind in outs}
        for subset, folder in (("train", "train"), ("test", "valid")):
            annotations, names = {}, {}
            for number, picture in enumerate(PICTURES):
                if subset in picture.subsets[:1]:
                    file = Path(temporary, picture.name.replace("/", " "))  # which names pictures without folders
                    draw(number, file)
                    names[file.name], annotations[str(file)] = number, detections(number)
            dataset = sv.DetectionDataset(list(CLASSES), list(annotations), annotations)
            (outs["yolo"] / folder).mkdir(parents=True)
            dataset.as_coco(annotations_path=str(outs["coco"] / folder / "_annotations.coco.json"))
            dataset.as_pascal_voc(annotations_directory_path=str(outs["voc"] / folder))
            dataset.as_yolo(
                annotations_directory_path=str(outs["yolo"] / folder / "labels"),
                data_yaml_path=str(outs["yolo"] / "data.yaml"),
            )
            for kind in outs:
                inside = f"{folder}/images" if kind == "yolo" else folder
                places[kind] |= {f"{inside}/{name}": number for name, number in names.items()}
    for kind, out in outs.items():
        text = json.dumps(places[kind], indent=1, ensure_ascii=False)
        (out / "pictures.json").write_text(text + "\n", encoding="utf-8")


def detections(number: int) -> sv.Detections:
    """The boxes of a picture."""
    boxes = BOXES.get(number, ())
    if not boxes:
        return sv.Detections.empty()
    edges = np.array([(x, y, x + width, y + height) for _, (x, y, width, height) in boxes], np.float64)
    return sv.Detections(xyxy=edges, class_id=np.array([CLASSES.index(label) for label, _ in boxes]))


if __name__ == "__main__":
    main()
