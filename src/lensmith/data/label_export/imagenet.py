"""ImageNet folders: OUT/CLASS/picture, or OUT/PART/CLASS/picture; pictures without a label are in `no_label`.

The format is the folder of the pictures itself, so that they are put there: as hard links, which take no room, or as
copies on another file system. Boxes become pictures of their own.
"""

import os
import shutil
from collections import Counter
from pathlib import Path

from lensmith.core.junk import junk_name
from lensmith.core.progress import track
from lensmith.data.label_export.marked_picture import MarkedPicture, MarkedPictures
from lensmith.errors import ImageError, OutputError
from lensmith.imaging.crops import Box, crop_path
from lensmith.imaging.decoding import read
from lensmith.imaging.formats import require_format

NO_LABEL = "no_label"
_LONGEST_NAME = 255


def write(given: MarkedPictures, out: Path) -> None:
    """Put the pictures into folders of classes.

    Raises:
        OutputError: the name of a class cannot be the name of a folder.
    """
    for name in given.classes:
        _require_folder_name(name)
    has_parts = any(picture.part for picture in given.pictures)
    several = unparted = 0
    for picture in track(given.pictures, "writing pictures", len(given.pictures)):
        folder = out / picture.part if picture.part else out
        whole = [label for label, box in picture.labels if box is None]
        boxes = Counter(box for _, box in picture.labels if box is not None)
        if has_parts and not picture.part:
            unparted += 1
            continue
        several += len(whole) > 1 or any(count > 1 for count in boxes.values())
        if not picture.marks or len(whole) == 1:
            _place(given, picture, folder / (whole[0] if whole else NO_LABEL))
        for label, box in picture.labels:
            if box is not None and boxes[box] == 1:
                _place(given, picture, folder / label, box)
    given.note_left_out(
        [
            (len(given.annotators()), "names of annotators"),
            (len(given.groups()), "groups"),
            (several, "pictures with several classes"),
            (unparted, "pictures without a part, since others have one"),
        ],
        "An ImageNet folder",
    )
    given.notes.append("The pictures are hard links to the originals, or copies where links are not possible.")


def _require_folder_name(name: str) -> None:
    unusable = (
        set(name) & set("/\\\0") or junk_name(Path(name), is_folder=True) or len(os.fsencode(name)) > _LONGEST_NAME
    )
    if unusable or name in (NO_LABEL, ".", ".."):
        raise OutputError(
            "Names of classes that can be names of folders were expected.",
            f"{name[:100]!r} cannot be one.",
            "Export as cvat, label-studio or coco, or rename the class.",
        )


def _place(given: MarkedPictures, picture: MarkedPicture, folder: Path, box: Box | None = None) -> None:
    """Put a picture, or a rectangle of it, into a folder, under a name that no other has there."""
    folder.mkdir(parents=True, exist_ok=True)
    source = given.root / picture.path
    if box is None:
        target = _free(folder, picture.path, source.suffix)
        try:
            os.link(source.resolve(), target)  # through links, so that it is the picture itself
        except OSError:
            shutil.copyfile(source, target)
        return
    try:
        content = read(Path(crop_path(str(source), box)))
        suffix = require_format(content).suffixes[0]
    except ImageError as error:
        given.aside.append((crop_path(picture.path, box), error.arrived.rstrip(".")))
        return
    _free(folder, f"{picture.path}-{box.x}-{box.y}-{box.width}-{box.height}", suffix).write_bytes(content)


def _free(folder: Path, path: str, suffix: str) -> Path:
    """A file name that is free in a folder: the picture's own, else with the names of its folders, else numbered."""
    stem = path.removesuffix(suffix)
    base = stem.rpartition("/")[2]
    names = [base, stem.replace("/", "_")]
    number = 1
    # Names are compared without endings, since tools take the name without ending for the picture's identifier.
    taken = {each.rpartition(".")[0] for each in os.listdir(folder)}  # noqa: PTH208
    while True:
        name = names.pop(0) if names else f"{stem.replace('/', '_')}-{(number := number + 1)}"
        name = os.fsencode(name)[-(_LONGEST_NAME - len(suffix)) :].decode(errors="ignore")
        if name not in taken:
            return folder / f"{name}{suffix}"
