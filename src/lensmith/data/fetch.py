"""A known set as an image folder: DIR/train|val|test/CLASS/NAME.

Downloads are kept in the cache. Every picture is written whole or not at all, so an interrupted fetch goes on where it
stopped; a small hidden file in DIR says what was asked for and whether it is finished.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from lensmith.config import FetchSettings
from lensmith.core.machine import cache_dir
from lensmith.core.progress import track
from lensmith.data.scan import PARTS
from lensmith.data.sources import KNOWN, Picture
from lensmith.data.split import rank
from lensmith.errors import OutputError, SettingsError

RECORD = ".lensmith-fetch.json"


@dataclass(frozen=True)
class Fetched:
    """A known set that is an image folder now.

    Attributes:
        name: of the set.
        folder: where it is.
        source: where its files came from, in words.
        counts: part → images.
        classes: number of classes.
        written: images written by this call; 0 where the folder was finished before.
        tried: sources that did not work, each with its reason.
    """

    name: str
    folder: Path
    source: str
    counts: dict[str, int]
    classes: int
    written: int
    tried: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "folder": str(self.folder), "tried": list(self.tried)}


def fetch(settings: FetchSettings) -> Fetched:
    """Make an image folder of a known set, or finish one that was begun.

    Raises:
        DataError: no source works, or what came is not what was expected.
        OutputError: the folder holds something else.
        SettingsError: no set has that name, or fewer training images than classes are asked for.
    """
    if settings.name not in KNOWN:
        near = difflib.get_close_matches(settings.name.lower(), KNOWN, 1, cutoff=0.4)
        raise SettingsError(
            f"The name of a known set was expected: {', '.join(KNOWN)}.",
            f"{settings.name!r} arrived.",
            f"Perhaps {near[0]} is meant." if near else "Name one of those.",
        )
    cache = cache_dir() / "datasets" / settings.name
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache / ".lock"):  # two at once would write into the same partial files
        return _begun(settings) or _fetch(settings, cache)


def _fetch(settings: FetchSettings, cache: Path) -> Fetched:
    opened = KNOWN[settings.name](cache)
    pictures = _drawn(opened.pictures, settings)
    counts: dict[str, int] = {
        part: count for part in PARTS if (count := sum(picture.part == part for picture in pictures))
    }
    classes = len({picture.label for picture in pictures})
    record = {"asked": _asked(settings), "source": opened.source, "counts": counts, "classes": classes}
    folder = settings.folder
    folder.mkdir(parents=True, exist_ok=True)
    _put(folder / RECORD, json.dumps({**record, "finished": False}).encode())
    for place in {(folder / picture.path).parent for picture in pictures}:
        place.mkdir(parents=True, exist_ok=True)
    missing = [picture for picture in pictures if not _whole(folder / picture.path)]
    for picture, encoded in track(opened.read(missing), f"writing {settings.name}", len(missing)):
        _put(folder / picture.path, encoded)
    _put(folder / RECORD, json.dumps({**record, "finished": True}).encode())
    return Fetched(settings.name, folder, opened.source, counts, classes, len(missing), opened.tried)


def _begun(settings: FetchSettings) -> Fetched | None:
    """The finished set that the folder holds; None where it is free, or holds the begun set.

    Raises:
        OutputError: it holds something else.
    """
    folder = settings.folder
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        record = json.loads((folder / RECORD).read_text())
        asked = record["asked"]
    except (OSError, ValueError, KeyError, TypeError):
        arrived = "Something else is there."
    else:
        if asked == _asked(settings):
            return _finished(settings, record)
        arrived = f"It holds a set that was asked for otherwise ({_said(asked)})."
    raise OutputError(
        f"A free folder, or {settings.name} as asked for now ({_said(_asked(settings))}), was expected at {folder}.",
        arrived,
        "Name another folder, or remove that one.",
    )


def _finished(settings: FetchSettings, record: dict[str, Any]) -> Fetched | None:
    present = {part: sum(len(files) for _, _, files in os.walk(settings.folder / part)) for part in record["counts"]}
    if not record["finished"] or any(present[part] < count for part, count in record["counts"].items()):
        return None
    return Fetched(settings.name, settings.folder, record["source"], record["counts"], record["classes"], 0)


def _asked(settings: FetchSettings) -> dict[str, Any]:
    """The settings that decide which pictures there are; without a limit nothing is drawn, and the seed is idle."""
    drawn = settings.max_train is not None or settings.max_test is not None
    return {
        "name": settings.name,
        "max_train": settings.max_train,
        "max_test": settings.max_test,
        "seed": settings.seed if drawn else None,
    }


def _said(asked: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in asked.items() if value is not None)


def _drawn(pictures: Iterable[Picture], settings: FetchSettings) -> list[Picture]:
    """At most so many pictures of each part, class by class in turn, in a seeded order."""
    limits = {"train": settings.max_train, "test": settings.max_test}
    parts = defaultdict(list)
    for picture in pictures:
        parts[picture.part].append(picture)
    kept: list[Picture] = []
    for part, members in parts.items():
        limit = limits.get(part)
        if limit is None or limit >= len(members):
            kept += members
            continue
        classes = {picture.label for picture in members}
        if part == "train" and limit < len(classes):
            raise SettingsError(
                f"At least one training image for each of the {len(classes)} classes of {settings.name} was expected.",
                f"max_train is {limit}.",
                f"Give {len(classes)} or more.",
            )
        members.sort(key=lambda picture: rank(picture.path, settings.seed))
        seen: Counter[str] = Counter()
        turns = []
        for picture in members:
            turns.append((seen[picture.label], picture.label, picture))
            seen[picture.label] += 1
        turns.sort(key=lambda turn: turn[:2])
        kept += [picture for _, _, picture in turns[:limit]]
    return kept


def _whole(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0


def _put(file: Path, content: bytes) -> None:
    """Write a whole file or none."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(file)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
