"""Pascal VOC: an XML file for each picture with objects and their boxes (LabelImg writes this), or lists for classes.

Annotations/**.xml, or beside the pictures    <object><name>, <bndbox> from 1, both edges included
ImageSets/Main/SUBSET.txt                     which pictures a part has
ImageSets/Main/CLASS_SUBSET.txt               1 or -1 for each picture; read where no XML has an object
"""

import math
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from lensmith.data.annotations.class_names import read_names
from lensmith.data.annotations.reader import PEEKED_FILES, Area, Entry, Look, Reader, Reading, Source, damaged
from lensmith.data.annotations.xml_stream import xml_elements, xml_root

SETS = "ImageSets/Main"
_FROM_ZERO = {"source": "Unknown", "owner": "NULL Label Studio"}
"""Element of a file → its text as LabelImg and Label Studio write it, who count pixels from 0."""


def looks_like(source: Source) -> Look:
    """XML files with the root element `<annotation>` at the top, in `Annotations` or in parts; or lists of classes."""
    found = []
    for folder in ("", *source.part_folders):
        files = source.files(".xml", folder=folder)[:PEEKED_FILES]
        if any(xml_root(source.beginning(file)) == "annotation" for file in files):
            found.append(folder or ".")
    for folder in source.folders:
        first = next(source.walk(folder, ".xml"), None) if folder.lower() == "annotations" else None
        if first is not None and xml_root(source.beginning(first)) == "annotation":
            found.append(folder)
    lists = source.files(".txt", folder=SETS)
    if not found and lists and not _class_lists(lists):
        return Look(lacks=f"{SETS} lists pictures, but there are no Annotations and no lists of classes.")
    return Look((*found, *([SETS] if lists else [])))


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all pictures: one for each object, and one for each picture without any."""
    lists = source.files(".txt", folder=SETS)
    of_classes = _class_lists(lists)
    subsets = _subsets(source, [file for file in lists if file not in of_classes])
    seen, has_objects, difficult = set(), False, 0
    for folder in files:
        below = "" if folder in (".", SETS) else folder
        xml = source.files(".xml") if folder == "." else source.walk(folder, ".xml")
        for file in xml if folder != SETS else ():
            inside = file if below in source.part_folders else file.removeprefix(f"{below}/" if below else "")
            stem = str(PurePosixPath(inside).with_suffix("")) if inside.endswith(".xml") else inside[:-4]
            seen.add(stem)
            part = below if below in source.part_folders else ""
            for entry, hard in _entries(source, file, stem):
                has_objects |= entry.label is not None
                difficult += hard
                yield from (entry._replace(subset=subset) for subset in subsets.get(stem, (part,)))
    if difficult:
        reading.notes.append(f"Objects marked as difficult, which are used like the others: {difficult:,}.")
    if of_classes and not has_objects:
        for file, (label, subset) in of_classes.items():
            for line in read_names(source.root / file):
                stem, _, value = line.rpartition(" ")
                if value == "1":
                    seen.add(stem.strip())
                    yield Entry(stem.strip(), label, subset=subset)
    for stem, names in subsets.items():
        if stem not in seen:
            yield from (Entry(stem, None, subset=subset) for subset in names)


def _class_lists(lists: Sequence[str]) -> dict[str, tuple[str, str]]:
    """List of a class → the class and the subset: `cat_train.txt` where `train.txt` is there as well."""
    stems = {PurePosixPath(file).stem for file in lists}
    split = {file: PurePosixPath(file).stem.rpartition("_") for file in lists}
    found = {file: (label, subset) for file, (label, _, subset) in split.items() if label and subset in stems}
    if {"train", "val"} <= {subset for _, subset in found.values()}:
        found = {file: each for file, each in found.items() if each[1] != "trainval"}
    return found


def _subsets(source: Source, lists: Sequence[str]) -> dict[str, list[str]]:
    """Name of a picture without its ending → the subsets that list it; `trainval` only where nothing is finer."""
    names = {file: PurePosixPath(file).stem for file in lists}
    if {"train", "val"} <= set(names.values()):
        names = {file: name for file, name in names.items() if name != "trainval"}
    found: dict[str, list[str]] = defaultdict(list)
    for file, name in names.items():
        for line in read_names(source.root / file):
            if line.strip():
                found[line.strip()].append(name)
    return found


def _entries(source: Source, file: str, stem: str) -> Iterator[tuple[Entry, bool]]:
    """The entries of one XML file, and whether each is marked as difficult."""
    children = list(xml_elements(source.root / file))
    named = next((each.text or "" for each in children if each.tag == "filename"), "").strip()
    size = next((each for each in children if each.tag == "size"), None)
    width, height = (_number(size, name, file) if size is not None else 0 for name in ("width", "height"))
    pure = PurePosixPath(named)
    name = (
        stem + pure.suffix if pure.suffix and pure.name.removesuffix(pure.suffix) == PurePosixPath(stem).name else stem
    )
    about = Entry(
        name, None, size=(round(width), round(height)) if width and height else None,
        others=(named,) if named and named != name else (),
    )  # fmt: skip
    objects = [each for each in children if each.tag == "object"]
    first = 0 if any(" ".join("".join(each.itertext()).split()) == _FROM_ZERO.get(each.tag) for each in children) else 1
    for each in objects:
        label, box = (each.findtext("name") or "").strip(), each.find("bndbox")
        hard = (each.findtext("difficult") or "").strip() == "1"
        yield about._replace(label=label, area=None if box is None else _area(box, file, first)), hard
    if not objects:
        yield about, False


def _area(box: ET.Element, file: str, first: int) -> Area:
    """A box; whole numbers are pixels from `first` on with both edges included, numbers with a point are coordinates.

    Pixels from 0 on have their right and bottom edge behind them, as coordinates have.
    """
    left, top, right, bottom = (_number(box, name, file) for name in ("xmin", "ymin", "xmax", "ymax"))
    if "." in "".join(box.itertext()) or min(left, top) < 1:
        first = 0
    return Area(left - first, top - first, right, bottom)


def _number(element: ET.Element, name: str, file: str) -> float:
    text = element.findtext(name) or ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise damaged(
            f"A number was expected as <{name}> in {file}.",
            f"{text.strip()[:80]!r} is there." if text.strip() else "There is none.",
        )
    return value


VOC = Reader("voc", "Pascal VOC", looks_like, read)
