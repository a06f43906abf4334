"""Download of a known data set as an image folder: DIR/train|val|test/CLASS/NAME.

Downloads stay in the cache. Every image is written whole or not at all, so an interrupted fetch resumes; a small hidden
file in DIR records the settings and whether the set is complete.
"""

import difflib
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

from lensmith.config import FetchSettings
from lensmith.core.files import atomic_write
from lensmith.core.locks import locked
from lensmith.core.machine import cache_dir
from lensmith.core.output_names import require_folder_name
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.data.image_set import PARTS
from lensmith.data.sources import KNOWN, KnownImage
from lensmith.data.split import rank
from lensmith.errors import OutputError, SettingsError

RECORD = ".lensmith-fetch.json"


@dataclass(frozen=True)
class FetchResult(Result):
    """Result of `lensmith data fetch`: a known data set as an image folder.

    Attributes:
        name: name of the data set.
        folder: path of the image folder.
        source: description of the source of the files.
        counts: part → number of images.
        classes: number of classes.
        written: number of images that this call wrote; 0 if the folder was complete before.
        tried: sources that failed, each with its reason.
    """

    name: str
    folder: Path
    source: str
    counts: dict[str, int]
    classes: int
    written: int
    tried: tuple[str, ...] = ()


def fetch(settings: FetchSettings) -> FetchResult:
    """Download a known data set as an image folder, or complete an interrupted download.

    Raises:
        DataError: all sources fail, or send other files than expected.
        OutputError: the folder holds something else, or is named like a file.
        SettingsError: an unknown name, or fewer training images than classes.
    """
    if settings.name not in KNOWN:
        near = difflib.get_close_matches(settings.name.lower(), KNOWN, 1, cutoff=0.4)
        raise SettingsError(
            f"The name of a known set was expected: {', '.join(KNOWN)}.",
            f"{settings.name!r} arrived.",
            f"Perhaps {near[0]} is meant." if near else "Name one of those.",
        )
    require_folder_name(settings.folder, "the images")
    cache = cache_dir() / "datasets" / settings.name
    cache.mkdir(parents=True, exist_ok=True)
    with locked(cache / ".lock"):  # two processes would write to the same partial files
        return _complete_set(settings) or _write_images(settings, cache)


def _write_images(settings: FetchSettings, cache: Path) -> FetchResult:
    opened = KNOWN[settings.name](cache)
    images = _limit(opened.images, settings)
    counts: dict[str, int] = {part: count for part in PARTS if (count := sum(image.part == part for image in images))}
    classes = len({image.label for image in images})
    record = {"asked": _requested(settings), "source": opened.source, "counts": counts, "classes": classes}
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write(folder / RECORD, json.dumps({**record, "finished": False}))
    for parent in {(folder / image.path).parent for image in images}:
        parent.mkdir(parents=True, exist_ok=True)
    missing = [image for image in images if not _has_content(folder / image.path)]
    for image, encoded in track(opened.read(missing), f"writing {settings.name}", len(missing)):
        atomic_write(folder / image.path, encoded, sync=False)
    atomic_write(folder / RECORD, json.dumps({**record, "finished": True}))
    return FetchResult(settings.name, folder, opened.source, counts, classes, len(missing), opened.tried)


def _complete_set(settings: FetchSettings) -> FetchResult | None:
    """The complete set that the folder holds; None if the folder is free, or the set in it is incomplete.

    Raises:
        OutputError: the folder holds something else.
    """
    folder = settings.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    arrived = "Something else is there."
    with suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads((folder / RECORD).read_text())
        if record["asked"] == _requested(settings):
            counts = record["counts"]
            present = {part: sum(len(files) for _, _, files in os.walk(folder / part)) for part in counts}
            if not record["finished"] or any(present[part] < count for part, count in counts.items()):
                return None
            return FetchResult(settings.name, folder, record["source"], counts, record["classes"], 0)
        arrived = f"It holds a set with other settings ({_settings_text(record['asked'])})."
    expected = f"{settings.name} with the same settings ({_settings_text(_requested(settings))})"
    raise OutputError(
        f"A free folder, or {expected}, was expected at {folder}.", arrived, "Name another folder, or remove that one."
    )


def _requested(settings: FetchSettings) -> dict[str, Any]:
    """The settings that decide which images there are; without a limit no image is drawn, and the seed is unused."""
    drawn = settings.max_train is not None or settings.max_test is not None
    return {
        "name": settings.name,
        "max_train": settings.max_train,
        "max_test": settings.max_test,
        "seed": settings.seed if drawn else None,
    }


def _settings_text(requested: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in requested.items() if value is not None)


def _limit(images: Sequence[KnownImage], settings: FetchSettings) -> list[KnownImage]:
    """At most so many images of each part, drawn evenly from the classes, in a seeded order."""
    limits = {"train": settings.max_train, "test": settings.max_test}
    chosen: list[KnownImage] = []
    for part in PARTS:
        members = [image for image in images if image.part == part]
        limit = limits.get(part)
        if limit is None or limit >= len(members):
            chosen += members
            continue
        classes: dict[str, list[KnownImage]] = defaultdict(list)
        for image in sorted(members, key=lambda image: rank(image.path, settings.seed)):
            classes[image.label].append(image)
        if part == "train" and limit < len(classes):
            raise SettingsError(
                f"At least one training image for each of the {len(classes)} classes of {settings.name} was expected.",
                f"max_train is {limit}.",
                f"Give {len(classes)} or more.",
            )
        turns = zip_longest(*(classes[label] for label in sorted(classes)))
        chosen += [image for image in chain.from_iterable(turns) if image is not None][:limit]
    return chosen


def _has_content(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
