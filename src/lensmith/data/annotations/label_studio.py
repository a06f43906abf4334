"""Label Studio JSON: tasks with annotations of one or several people, as `Export → JSON` writes them.

Each annotation that was not skipped gives labels: `<Choices>` to the whole picture, rectangles, ellipses and polygons
to a box. Predictions and drafts are no labels.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lensmith.core.text import listed
from lensmith.data.annotations.json_stream import json_items
from lensmith.data.annotations.picture_references import PictureReferences, picture_column
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source

_ANNOTATION_KEYS = {"result", "completed_by", "was_cancelled"}
SHAPES = ("rectanglelabels", "labels", "ellipselabels", "polygonlabels")
"""Names of the lists of labels in the value of a shape; `labels` is shared by all kinds of shapes."""


class Label(NamedTuple):
    """A label of an annotation's result.

    Attributes:
        control: name of the control (`from_name`) that gave it.
        name: the label.
        area: box in the picture as shares; None for the whole picture.
    """

    control: str
    name: str
    area: Area | None


def looks_like(source: Source) -> Look:
    """JSON files that are a list of tasks, or a single task."""
    files = source.json_files(lambda head: any(map(_is_labelled_task, _tasks_in(head))))
    plain = [
        file for file, head in source.json_heads.items()
        if isinstance(head, list) and any(isinstance(task.get("data"), dict) for task in _tasks_in(head)[:1])
    ]  # fmt: skip
    if not files and plain:
        return Look(lacks=f"{plain[-1]} has tasks without annotations, as for an import: export the labelled project.")
    return Look(files)


def _tasks_in(head: Any) -> list[dict[str, Any]]:
    return [each for each in (head if isinstance(head, list) else [head]) if isinstance(each, dict)]


def _is_labelled_task(task: Mapping[str, Any]) -> bool:
    """Whether an object is a task with a list of annotations, which may be empty; its data may be cut off."""
    done = task.get("annotations", task.get("completions"))
    if not isinstance(done, list):
        return False
    return _is_annotation(done[0]) if done else isinstance(task.get("data"), dict)


def _is_annotation(value: object) -> bool:
    return isinstance(value, dict) and bool(_ANNOTATION_KEYS & value.keys())


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all files: one for each label of each annotation, and one for each task without any."""
    tasks = _Tasks()
    entries = [entry for file in files for entry in tasks.entries(_tasks_of(source, file))]
    pictures = PictureReferences(source.root, (entry.picture for entry in entries))
    tasks.describe(reading)
    describe_ambiguous(pictures, reading)
    for entry in one_control(entries, reading):
        yield entry._replace(picture=pictures.path(entry.picture))


def _tasks_of(source: Source, file: str) -> Iterable[Any]:
    is_list = isinstance(source.json_head(file), list)
    return json_items(source.root / file, "item" if is_list else "")


def one_control(entries: Iterable[Entry], reading: Reading) -> Iterator[Entry]:
    """The entries with the choices of one control as labels.

    Where several controls label whole pictures, their choices become attributes of one label, so that the user decides
    which is the class; where there are boxes besides, those are the classes.

    Args:
        entries: entries whose one attribute, if any, is control and choice of a label of the whole picture.
        reading: receives a note on choices that are left out.
    """
    entries = list(entries)
    controls = {name for entry in entries for name, _ in entry.attributes}
    if len(controls) > 1 and any(entry.area for entry in entries):
        reading.notes.append(
            f"Choices for whole pictures by several controls ({listed(sorted(controls))}) are left out, since boxes "
            "have labels."
        )
        for entry in entries:
            yield entry._replace(label=None, attributes=()) if entry.attributes else entry
        return
    for entry in entries:
        if len(controls) > 1:
            yield entry._replace(label=None if entry.label is None else "picture")
        else:
            yield entry._replace(attributes=())


def describe_ambiguous(pictures: PictureReferences, reading: Reading) -> None:
    """Add a warning on addresses that several files can be."""
    if pictures.ambiguous:
        first, files = next(iter(pictures.ambiguous.items()))
        reading.warnings.append(
            f"Uploads that several pictures can be, since an upload loses its folder: {len(pictures.ambiguous):,} "
            f"({first} can be {listed(files, 3, ' or ')})."
        )


class _Tasks:
    """Reads tasks, and counts what is left out of them."""

    def __init__(self) -> None:
        self._skipped = self._foreign = self._predicted = 0
        self._left_out: Counter[str] = Counter()

    def entries(self, tasks: Iterable[Any]) -> Iterator[Entry]:
        for task in tasks:
            data = task.get("data") if isinstance(task, Mapping) else None
            column = picture_column(data) if isinstance(data, Mapping) else None
            if data is None or column is None:
                self._foreign += 1
                continue
            subset, group = (value if isinstance(value := data.get(key), str) else "" for key in ("split", "group"))
            about = Entry(data[column], None, subset=subset, group=group)
            labelled = False
            for annotation in _list(task.get("annotations", task.get("completions"))):
                if not isinstance(annotation, Mapping):
                    continue
                if annotation.get("was_cancelled") or annotation.get("skipped"):
                    self._skipped += 1
                    continue
                annotator = annotator_name(annotation.get("completed_by"))
                for label in self._labels(_list(annotation.get("result"))):
                    labelled = True
                    attributes = () if label.area else ((label.control, label.name),)
                    yield about._replace(label=label.name, area=label.area, annotator=annotator, attributes=attributes)
            if not labelled:
                self._predicted += bool(task.get("predictions"))
                yield about

    def _labels(self, results: list[Any]) -> Iterator[Label]:
        """Labels of one annotation; a region's own labels come before choices that are given for it."""
        regions: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
        for number, result in enumerate(results):
            if isinstance(result, Mapping) and isinstance(result.get("value"), Mapping):
                regions[str(result.get("id") or f"#{number}")].append(result)
        for members in regions.values():
            shape = next((each for each in members if is_shape(each["value"])), None)
            area = None if shape is None else self._area(shape)
            if shape is not None and area is None:
                continue
            keys = ("choices",) if shape is None else (*SHAPES, "choices")
            named = [
                Label(str(each.get("from_name") or ""), name, area)
                for key in keys for each in members for name in names_in(each["value"].get(key))
            ]  # fmt: skip
            if shape is None:
                self._left_out.update(_kind(each) for each in members if not names_in(each["value"].get("choices")))
            elif named:
                named = [label for label in named if label.control == named[0].control]
            yield from dict.fromkeys(named)

    def _area(self, result: Mapping[str, Any]) -> Area | None:
        """The box around a shape; None where it cannot be read, which is counted."""
        if result.get("image_rotation"):
            self._left_out["shapes in pictures that were turned while they were labelled"] += 1
            return None
        area = area_of(result["value"], result)
        if area is None:
            self._left_out[_kind(result)] += 1
        return area

    def describe(self, reading: Reading) -> None:
        """Add sentences on what was left out."""
        if self._skipped:
            reading.notes.append(f"Annotations that were skipped by their annotators: {self._skipped:,}.")
        if self._predicted:
            reading.notes.append(
                f"Tasks with predictions alone, which are no labels: {self._predicted:,} count as unlabelled."
            )
        if self._foreign:
            reading.warnings.append(f"Tasks without the address of a picture, which are left out: {self._foreign:,}.")
        if self._left_out:
            kinds = listed(f"{count:,} {kind}" for kind, count in sorted(self._left_out.items()))
            reading.warnings.append(f"Results that give no class, or no box, and are left out: {kinds}.")


def annotator_name(completed_by: object) -> str:
    """The e-mail of an annotator, else the name or number; empty where there is none."""
    if isinstance(completed_by, Mapping):
        completed_by = completed_by.get("email") or completed_by.get("username") or completed_by.get("id")
    return "" if completed_by is None or isinstance(completed_by, bool | list) else str(completed_by).strip()


def is_shape(value: Mapping[str, Any]) -> bool:
    """Whether the value of a result is a part of the picture, and not the whole."""
    return any(key in value for key in ("x", "points", "rle", "vertices"))


def area_of(value: Mapping[str, Any], about: Mapping[str, Any]) -> Area | None:
    """The upright box around a rectangle, ellipse or polygon, as shares; None for other shapes and broken ones.

    Args:
        value: numbers in percent of the picture's width and height; `rotation` in degrees, clockwise.
        about: has `original_width` and `original_height` in pixels, which a rotation needs.
    """
    try:
        if "points" in value:
            corners = [(float(x), float(y)) for x, y in value["points"]]
        elif "radiusX" in value:
            x, y, rx, ry = (float(value[key]) for key in ("x", "y", "radiusX", "radiusY"))
            corners = _turned([(sx * rx, sy * ry) for sx in (-1, 1) for sy in (-1, 1)], (x, y), value, about)
        elif "width" in value:
            x, y, width, height = (float(value[key]) for key in ("x", "y", "width", "height"))
            corners = _turned([(0, 0), (width, 0), (0, height), (width, height)], (x, y), value, about)
        else:
            return None
        xs, ys = ([corner[axis] / 100 for corner in corners] for axis in (0, 1))
        edges = (min(xs), min(ys), max(xs), max(ys))
    except (TypeError, ValueError, KeyError, ZeroDivisionError):
        return None
    return Area(*edges, is_share=True) if all(map(math.isfinite, edges)) else None


def _turned(
    offsets: Sequence[tuple[float, float]],
    origin: tuple[float, float],
    value: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[tuple[float, float]]:
    """Corners in percent, after a turn about the origin, which keeps angles in pixels."""
    degrees = float(value.get("rotation") or 0)
    if not degrees:
        return [(origin[0] + dx, origin[1] + dy) for dx, dy in offsets]
    width, height = float(about["original_width"]), float(about["original_height"])
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return [
        (origin[0] + dx * cos - dy * sin * height / width, origin[1] + dx * sin * width / height + dy * cos)
        for dx, dy in offsets
    ]


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def names_in(value: object) -> list[str]:
    """Labels in a value, which is a list, or a single text in older exports."""
    names = [value] if isinstance(value, str) else _list(value)
    return [name for name in names if isinstance(name, str) and name.strip()]


def _kind(result: Mapping[str, Any]) -> str:
    return str(result.get("type") or "unknown")[:40]


LABEL_STUDIO = Reader("label-studio", "Label Studio JSON", looks_like, read)
