"""Entries of a reader → annotations of pictures and crops that are there, for all formats in the same way."""

import os
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from lensmith.core.progress import track
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.annotations.crop_boxes import PictureSizes
from lensmith.data.annotations.pictures import Name, Pictures
from lensmith.data.annotations.reader import Entry, Reading, Source
from lensmith.data.files import SetAside
from lensmith.data.part_names import Part, parts_of_names
from lensmith.errors import DataError, ImageError
from lensmith.imaging.crops import crop_path

_NO_NAME = "(no name)"
_ORDER: tuple[Part | None, ...] = ("train", "val", "test", None)


@dataclass
class Annotations:
    """What annotations say of the pictures of a source.

    Attributes:
        rows: one annotation for each label of a picture, or of a crop.
        unlabelled: path of each picture without a label, sorted.
        missing: name of each picture that annotations name and that is not there, sorted.
        aside: path and reason of what cannot be used.
        junk: number of files of systems and programs, by name.
        has_crops: whether labels are those of boxes.
        notes: sentences about how the annotations were read.
        warnings: sentences about what is left out or doubtful.
    """

    rows: list[Annotation] = field(default_factory=list)
    unlabelled: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    aside: SetAside = field(default_factory=list)
    junk: Counter[str] = field(default_factory=Counter)
    has_crops: bool = False
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def assemble(
    source: Source, given: Iterable[Entry], reading: Reading, margin: float, attribute: str | None
) -> Annotations:
    """Annotations of the pictures that are there.

    Labels of whole pictures go before boxes: where a source has both, boxes are left out. Otherwise each box is a crop,
    whose group is that of its picture, or the picture itself.

    Args:
        source: the source, with the root of the pictures.
        given: what the reader yields.
        reading: the reader's remarks.
        margin: share of a box's width and height that a crop has more on each side.
        attribute: name of the attribute whose values are the classes; None: the labels are, unless there is one only.

    Raises:
        DataError: none of the pictures is there, a name leads out of the root, or the attribute does not exist.
    """
    entries = list(track(given, "reading annotations"))
    done = Annotations(notes=reading.notes, warnings=reading.warnings)
    entries = _with_attribute(entries, attribute, source, done)
    done.has_crops = not any(each.label is not None and each.area is None for each in entries)
    if not done.has_crops and (boxes := sum(each.area is not None for each in entries)):
        done.notes.append(f"Boxes, which are left out since whole pictures have labels: {boxes:,}.")
        entries = [each._replace(label=None, area=None) if each.area else each for each in entries]
    pictures = Pictures(source.root)
    names = dict.fromkeys(map(_name, entries))
    found = pictures.find(names)
    found |= pictures.find_addresses(name for name in names if name not in found)
    _note_missing(source, entries, found, done)
    parts = _parts(entries, found, done)
    sizes = PictureSizes(source.root)
    rows: dict[Annotation, None] = {}
    labelled, outside = set(), 0
    for entry in track(entries, "finding pictures", len(entries)):
        path = found.get(_name(entry))
        if path is None or entry.label is None:
            continue
        labelled.add(path)
        if entry.area is None:
            rows[Annotation(path, entry.label, parts[path], entry.group, entry.annotator)] = None
            continue
        try:
            box = sizes.crop(path, entry.area, entry.size, margin)
        except ImageError as error:
            done.aside.append((path, error.arrived.rstrip(".")))
            continue
        if box is None:
            outside += 1
        else:
            rows[Annotation(crop_path(path, box), entry.label, parts[path], entry.group or path, entry.annotator)] = (
                None
            )
    done.rows = [row for row in rows if row.part is not None or not any(parts.values())]
    if len(done.rows) < len(rows):
        lost = {row.path for row in rows if row.part is None} if any(parts.values()) else set()
        done.aside += [(path, "it has no part, though other pictures have one") for path in sorted(lost)]
        done.warnings.append(f"Images that are left out, since others have a part and they have none: {len(lost):,}.")
    if outside:
        done.warnings.append(f"Boxes without an area in their picture, which are left out: {outside:,}.")
    done.aside = sorted({*done.aside, *_unusable(pictures)})
    done.unlabelled = tuple(sorted(_unlabelled(pictures.paths, set(found.values()), labelled)))
    done.junk = pictures.unused.junk
    return done


def _name(entry: Entry) -> Name:
    return Name((entry.picture, *entry.others), entry.subset)


def _with_attribute(entries: list[Entry], wanted: str | None, source: Source, done: Annotations) -> list[Entry]:
    """The entries with the values of an attribute as labels, if the user says so or labels are all the same.

    Raises:
        DataError: no label has the attribute, or several could be meant.
    """
    values: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        for name, value in entry.attributes:
            values[name].add(value)
    labels = {each.label for each in entries} - {None}
    if wanted is None:
        able = sorted(name for name, each in values.items() if len(each - {""}) > 1)
        if len(labels) != 1 or not able:
            return entries
        if len(able) > 1:
            raise DataError(
                f"Two labels or more were expected in {source.path}.",
                f"There is one, {labels.pop()!r}, with attributes of several values: {listed(map(repr, able))}.",
                "Name the one that is the class: `lensmith data import SOURCE OUT --attribute NAME`.",
            )
        wanted = able[0]
        done.notes.append(f"Values of the attribute {wanted!r} are the classes, since all labels are {labels.pop()!r}.")
    elif wanted not in values:
        raise DataError(
            f"An attribute {wanted!r} was expected in {source.path}.",
            f"Labels have {listed(map(repr, sorted(values))) or 'no attributes'}.",
            "Name one of those, or leave --attribute out.",
        )
    return [each._replace(label=dict(each.attributes).get(wanted) or None) for each in entries]


def _note_missing(source: Source, entries: Sequence[Entry], found: Collection[Name], done: Annotations) -> None:
    named = {each.picture for each in entries}
    done.missing = tuple(sorted({each.picture or _NO_NAME for each in entries if _name(each) not in found}))
    if not entries:
        raise DataError(
            f"Annotations of pictures were expected in {source.path}.",
            "They name no picture.",
            "Export them again, with the pictures that have labels.",
        )
    if not found:
        raise DataError(
            f"The pictures that the annotations name were expected below {source.root}.",
            f"None of {len(named):,} is there: {listed(done.missing, 3)}.",
            "Put the annotation file into the folder of the pictures, or above it.",
        )
    if done.missing:
        done.aside += [(name, "there is no such file") for name in done.missing]
        done.warnings.append(
            f"Pictures that annotations name, and that are not there: {len(done.missing):,} of {len(named):,} "
            f"({listed(done.missing, 3)})."
        )


def _parts(entries: Sequence[Entry], found: dict[Name, str], done: Annotations) -> dict[str, Part | None]:
    """Path → part; of several parts the earliest has the picture."""
    known = parts_of_names({each.subset for each in entries if each.subset})
    several: dict[str, set[Part | None]] = defaultdict(set)
    for entry in entries:
        if (path := found.get(_name(entry))) is not None:
            several[path].add(known.get(entry.subset))
    parts = {path: min(each, key=_ORDER.index) for path, each in several.items()}
    if shared := sorted(path for path, each in several.items() if len(each - {None}) > 1):
        done.warnings.append(
            f"Pictures in several parts, of which the earliest of train, val and test has them: {len(shared):,} "
            f"({listed(shared, 3)})."
        )
    return parts


def _unusable(pictures: Pictures) -> SetAside:
    """Files that look like pictures, and cannot be used; annotation files are none."""
    return [(path, reason) for path, reason in pictures.unused.aside if not reason.startswith("not an image")]


def _unlabelled(paths: Iterable[str], named: set[str], labelled: set[str]) -> set[str]:
    """Pictures without a label below the folder that all named pictures share."""
    shared = os.path.commonpath([path.rpartition("/")[0] for path in named])
    return {path for path in paths if path not in labelled and (not shared or path.startswith(f"{shared}/"))}
