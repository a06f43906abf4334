"""COCO JSON: images, categories and annotations in three lists that name each other by ids, which may have gaps.

An annotation without a box (as Datumaro writes labels) is for the whole picture. Crowds (`iscrowd`) are regions of many
objects, not one, and are left out.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from lensmith.data.annotations.json_stream import json_items
from lensmith.data.annotations.reader import Area, Entry, Look, Reader, Reading, Source, damaged

_KIND = re.compile(r"(instances|labels|stuff|panoptic|captions|person_keypoints|image_info)_(.+)")
_NO_CLASSES = ("image_info", "captions", "person_keypoints", "panoptic")
"""Kinds of files beside those with classes; keypoints are of persons, who are in the instances as well."""


def looks_like(source: Source) -> Look:
    """JSON files with lists of images and of annotations in COCO's form; instances go before stuff."""
    kinds = {file: _KIND.fullmatch(PurePosixPath(file).stem) for file in source.json_files(_is_dataset)}
    found = [file for file, kind in kinds.items() if not (kind and kind[1] in _NO_CLASSES)]
    if kinds and not found:
        return Look(lacks=f"{next(iter(kinds))} has no classes: add the file that is called instances.")
    instances = [file for file in found if not PurePosixPath(file).stem.startswith("stuff_")]
    return Look(tuple(instances or found))


def _is_dataset(head: Any) -> bool:
    """Whether an object has lists of images or annotations in COCO's form."""
    return isinstance(head, dict) and (
        _first_has(head.get("images"), "file_name") or _first_has(head.get("annotations"), "category_id")
    )


def _first_has(elements: object, key: str) -> bool:
    """Whether the first element of a list is an object with a key."""
    return isinstance(elements, list) and bool(elements) and isinstance(elements[0], dict) and key in elements[0]


def read(source: Source, files: Sequence[str], reading: Reading) -> Iterator[Entry]:
    """Entries of all files: one for each annotation with a category, and one for each image without any."""
    crowds = 0
    for file in files:
        path, pure = source.root / file, PurePosixPath(file)
        kind = _KIND.fullmatch(pure.stem)
        folder = pure.parts[0] if len(pure.parts) > 1 and pure.parts[0] in source.part_folders else ""
        subset = folder or (kind[2] if kind else pure.stem)
        try:
            names = {each["id"]: str(each["name"]) for each in json_items(path, "categories.item")}
            images = {each["id"]: _about(each, folder, subset) for each in json_items(path, "images.item")}
            annotated: Counter[Any] = Counter()
            for each in json_items(path, "annotations.item"):
                number = each["image_id"]
                if number not in images or each["category_id"] not in names:
                    raise KeyError(f"image {number} or category {each['category_id']} is not listed")
                if each.get("iscrowd"):
                    crowds += 1
                    continue
                annotated[number] += 1
                yield images[number]._replace(label=names[each["category_id"]], area=_area(each))
            yield from (about for number, about in images.items() if not annotated[number])
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise damaged(
                f"Images, categories and annotations of COCO were expected in {path}.",
                f"One is of another form ({type(error).__name__}: {error}).",
            ) from error
    if crowds:
        reading.warnings.append(f"Regions of crowds (iscrowd), which are left out: {crowds:,}.")


def _about(image: Mapping[str, Any], folder: str, subset: str) -> Entry:
    name = str(image["file_name"])
    size = (int(image["width"]), int(image["height"])) if image.get("width") and image.get("height") else None
    return Entry(name, None, size=size, subset=subset, others=(f"{folder}/{name}",) if folder else ())


def _area(annotation: Mapping[str, Any]) -> Area | None:
    if not annotation.get("bbox") or not any(annotation["bbox"]):
        return None
    left, top, width, height = map(float, annotation["bbox"])
    return Area(left, top, left + width, top + height)


COCO = Reader("coco", "COCO JSON", looks_like, read)
