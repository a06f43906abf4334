"""Datumaro JSON: `annotations/SUBSET.json` with items, whose labels are numbers into a list of classes.

Pictures lie in `images/SUBSET/`, with sub-folders flattened into the name (`a/b.jpg` is `a_b.jpg`); the item's `id` has
them still.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lensmith.core.text import listed
from lensmith.data.annotations.class_names import name_of
from lensmith.data.annotations.json_stream import json_items
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source, damaged


def looks_like(source: Source) -> Look:
    """JSON files with Datumaro's format version, or with its classes and items."""
    return Look(source.json_files(_is_dataset))


def _is_dataset(head: Any) -> bool:
    return isinstance(head, dict) and ("dm_format_version" in head or {"infos", "categories", "items"} <= head.keys())


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all subsets: one for each label and shape, and one for each item without any."""
    left_out: Counter[str] = Counter()
    for file in files:
        path, subset = source.root / file, PurePosixPath(file).stem
        try:
            names = [str(label["name"]) for label in json_items(path, "categories.label.labels.item")]
            for item in json_items(path, "items.item"):
                about, labelled = _about(item, subset), False
                for annotation in item.get("annotations") or ():
                    area = _area(annotation)
                    if annotation.get("label_id") is None or (area is None and annotation["type"] != "label"):
                        left_out[str(annotation["type"])] += 1
                        continue
                    labelled = True
                    yield about._replace(
                        label=name_of(str(annotation["label_id"]), names, path), area=area,
                        attributes=tuple((str(a), str(b)) for a, b in (annotation.get("attributes") or {}).items()),
                    )  # fmt: skip
                if not labelled:
                    yield about
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise damaged(
                f"Items of Datumaro were expected in {path}.",
                f"One is of another form ({type(error).__name__}: {error}).",
            ) from error
    if left_out:
        kinds = listed(f"{count:,} {kind}" for kind, count in sorted(left_out.items()))
        reading.warnings.append(f"Annotations without a label or without an area, which are left out: {kinds}.")


def _about(item: Mapping[str, Any], subset: str) -> Entry:
    """What is said of the picture itself."""
    name, image = str(item["id"]), item.get("image") or item.get("media") or {}
    stored, size = str(image.get("path") or ""), image.get("size")
    name += PurePosixPath(stored).suffix
    others = (f"images/{subset}/{stored}", stored) if stored and stored != name else ()
    return Entry(name, None, size=(int(size[1]), int(size[0])) if size else None, subset=subset, others=others)


def _area(annotation: Mapping[str, Any]) -> Area | None:
    """The box around a shape; None for labels of the picture and for shapes without an area."""
    if annotation["type"] == "bbox":
        left, top, width, height = map(float, annotation["bbox"])
        return Area(left, top, left + width, top + height)
    if annotation["type"] == "polygon":
        xs, ys = annotation["points"][0::2], annotation["points"][1::2]
        return Area(min(xs), min(ys), max(xs), max(ys))
    return None


DATUMARO = Reader("datumaro", "Datumaro JSON", looks_like, read)
