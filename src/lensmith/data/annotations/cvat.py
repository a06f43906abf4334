"""CVAT for images 1.1: XML with one `<image>` for each picture, and in it tags (labels of the picture) and shapes.

Several files are several jobs, subsets, or several people's labels of the same pictures. A picture without a tag or a
shape has no label: it is no background.
"""

import math
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from lensmith.core.text import listed
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source, damaged
from lensmith.data.annotations.xml_stream import xml_elements, xml_root
from lensmith.data.part_names import parts_of_names


def looks_like(source: Source) -> Look:
    """XML files whose root element is `<annotations>`."""
    files = source.files_alike(".xml", lambda text: xml_root(text) == "annotations")
    videos = [file for file in files if "<track " in source.beginning(file)]
    if videos:
        return Look(lacks=f"{videos[0]} is CVAT for video: export it as CVAT for images 1.1.")
    return Look(files)


class _BrokenError(Exception):
    """A value that is no number."""


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all files: one for each tag and shape, and one for each picture without any."""
    subsets = parts_of_names(PurePosixPath(file).stem for file in files)
    left_out: Counter[str] = Counter()
    for file in files:
        stem = PurePosixPath(file).stem
        annotator, subset = ("", stem) if stem in subsets else (stem if len(files) > 1 else "", "")
        for element in xml_elements(source.root / file):
            if element.tag == "meta":
                subset = next(iter(parts_of_names(_subset_of(element))), subset)
                if len(files) > 1 and stem not in subsets:
                    annotator = element.findtext(".//assignee/username") or element.findtext(".//assignee") or stem
            if element.tag != "image":
                continue
            try:
                found = list(_entries(element, subset, annotator.strip(), left_out))
            except _BrokenError as error:
                raise damaged(
                    f"Numbers were expected in annotations of CVAT in {source.root / file}.",
                    str(error),
                ) from None
            yield from found
    if left_out:
        shapes = listed(f"{count:,} {tag}" for tag, count in sorted(left_out.items()))
        reading.warnings.append(f"Shapes without an area, which are left out: {shapes}.")


def _entries(image: ET.Element, subset: str, annotator: str, left_out: Counter[str]) -> Iterator[Entry]:
    """Entries of a picture; shapes without an area are counted.

    Raises:
        _BrokenError: a value is no number.
    """
    width, height = _number(image, "width"), _number(image, "height")
    about = Entry(
        image.get("name", ""), None, size=(round(width), round(height)) if width and height else None,
        subset=image.get("subset") or subset, annotator=annotator,
    )  # fmt: skip
    labelled = False
    for shape in image:
        area = _area(shape)
        if area is None and shape.tag != "tag":
            left_out[shape.tag] += 1
            continue
        labelled = True
        attributes = tuple((each.get("name", ""), (each.text or "").strip()) for each in shape)
        yield about._replace(label=shape.get("label", ""), area=area, attributes=attributes)
    if not labelled:
        yield about


def _subset_of(meta: ET.Element) -> list[str]:
    """The subset of a task or a job, which its images do not name; none for a project, whose images do."""
    return [name.strip() for kind in ("task", "job") if (name := meta.findtext(f"{kind}/subset"))]


def _area(shape: ET.Element) -> Area | None:
    """The box around a shape; None for shapes without an area."""
    if shape.tag == "box":
        left, top, right, bottom = (_number(shape, edge) for edge in ("xtl", "ytl", "xbr", "ybr"))
        return _around_rotated(left, top, right, bottom, _number(shape, "rotation"))
    if shape.tag == "polygon":
        points = [point.split(",") for point in shape.get("points", "").split(";")]
        try:
            xs, ys = [float(point[0]) for point in points], [float(point[1]) for point in points]
        except (IndexError, ValueError):
            raise _broken(shape, "points") from None
        return Area(min(xs), min(ys), max(xs), max(ys))
    if shape.tag == "ellipse":
        x, y, rx, ry = (_number(shape, name) for name in ("cx", "cy", "rx", "ry"))
        return _around_rotated(x - rx, y - ry, x + rx, y + ry, _number(shape, "rotation"))
    if shape.tag == "mask":
        left, top, width, height = (_number(shape, name) for name in ("left", "top", "width", "height"))
        return Area(left, top, left + width, top + height)
    return None


def _around_rotated(left: float, top: float, right: float, bottom: float, degrees: float) -> Area:
    """The upright box around a box that is turned about its centre."""
    turn = math.radians(degrees)
    cos, sin = abs(math.cos(turn)), abs(math.sin(turn))
    x, y, width, height = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    half_width, half_height = (width * cos + height * sin) / 2, (width * sin + height * cos) / 2
    return Area(x - half_width, y - half_height, x + half_width, y + half_height)


def _number(element: ET.Element, name: str) -> float:
    """A number of an element; 0 where it is absent."""
    try:
        value = float(element.get(name) or 0)
    except ValueError:
        raise _broken(element, name) from None
    if not math.isfinite(value):
        raise _broken(element, name)
    return value


def _broken(element: ET.Element, name: str) -> _BrokenError:
    return _BrokenError(f"{(element.get(name) or '')[:80]!r} is there as {name!r} of <{element.tag}>.")


CVAT = Reader("cvat", "CVAT for images 1.1", looks_like, read)
