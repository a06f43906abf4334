"""Write the annotation files `boxes-labelimg_*` beside this script with LabelImg 1.8.6, in its three formats.

    python -m venv ENV && ENV/bin/pip install labelImg==1.8.6 && ENV/bin/python make_with_labelimg.py

LabelImg's own `LabelFile` saves what the window would: the picture as Qt reads it (upright), and the class list that
grows from picture to picture. Pictures are not committed; the tests draw them where `pictures.json` says.
"""

import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from libs.labelFile import LabelFile
from PyQt5.QtGui import QImageReader

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[2]))

from fixtures.annotated_pictures import BOXES, PICTURES, draw  # noqa: E402

PREDEFINED = ("person", "chair")
"""Classes of LabelImg's own list, which stand before those of the pictures; nothing is labelled so."""


def main() -> None:
    """Draw the pictures, save the labels of each, and leave the annotation files."""
    for kind in ("voc", "yolo", "createml"):
        out = HERE / f"boxes-labelimg_{kind}"
        shutil.rmtree(out, ignore_errors=True)
        with tempfile.TemporaryDirectory() as temporary:
            os.chdir(temporary)  # so that <path> names no folder of this machine
            folder, places, classes = Path("photos"), {}, list(PREDEFINED)
            for number, picture in enumerate(PICTURES):
                file = folder / picture.name.replace("/", " ")  # LabelImg saves into one folder
                draw(number, file)
                places[file.name] = number
                label(kind, file, number, classes)
            for file in folder.iterdir():
                if file.suffix in (".jpg", ".png"):
                    file.unlink()
            shutil.copytree(folder, out)
        (out / "pictures.json").write_text(json.dumps(places, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def label(kind: str, file: Path, number: int, classes: list[str]) -> None:
    """Save the labels of a picture, as the window does with its shapes."""
    reader = QImageReader(str(file))
    reader.setAutoTransform(True)
    shapes = []
    for name, (x, y, width, height) in BOXES.get(number, ()):
        corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
        shapes.append({"label": name, "points": [(float(a), float(b)) for a, b in corners], "difficult": False})
        if name not in classes:
            classes.append(name)
    stem, image = str(file.with_suffix("")), reader.read()
    if kind == "voc":
        LabelFile().save_pascal_voc_format(f"{stem}.xml", shapes, str(file), image)
    elif kind == "yolo":
        LabelFile().save_yolo_format(f"{stem}.txt", shapes, str(file), image, classes)
    else:
        LabelFile().save_create_ml_format(f"{stem}.json", shapes, str(file), image, classes)


if __name__ == "__main__":
    main()
