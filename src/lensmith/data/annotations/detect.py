"""The annotation format of a folder or a file, found by looking at names and beginnings of files."""

import shlex
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath

from lensmith.core.text import listed
from lensmith.data.annotations.json_stream import json_fault
from lensmith.data.annotations.reader import Look, Reader, Source
from lensmith.data.annotations.registry import READERS
from lensmith.errors import DataError, SettingsError


def detect(source: Source, name: str = "auto") -> tuple[Reader, Look] | None:
    """The reader that recognises a source, with what it found; None where none does.

    Args:
        source: folder or file.
        name: name of the format where the user has decided, else `auto`.

    Raises:
        DataError: files of two formats lie in the folder, or the named format has no file there.
        SettingsError: there is no format of that name.
    """
    if name != "auto":
        reader = next((reader for reader in READERS if reader.name == name), None)
        if reader is None:
            raise SettingsError(
                "The name of an annotation format was expected.",
                f"{name!r} arrived.",
                f"There are {listed((each.name for each in READERS), 20)}.",
            )
        look = reader.looks_like(source)
        if not look.files:
            raise unknown(source, reader.title, [reader])
        return reader, look
    found = [(reader, look) for reader in READERS if (look := reader.looks_like(source)).files]
    if len(found) > 1:
        named = " and ".join(f"{reader.title} ({listed(look.files, 1)})" for reader, look in found)
        raise DataError(
            f"Annotations of one format were expected in {source.path}.",
            f"There are {named}.",
            f"Decide with `lensmith data import {shlex.quote(str(source.path))} OUT --format {found[0][0].name}` (or "
            f"{' or '.join(reader.name for reader, _ in found[1:])}), or move the others away.",
        )
    return found[0] if found else None


def near_misses(source: Source, readers: Sequence[Reader] = READERS) -> list[str]:
    """A sentence for each format that files of the source come close to."""
    looks = [(reader, reader.looks_like(source)) for reader in readers]
    return [f"{reader.title} came close: {look.lacks}" for reader, look in looks if look.lacks]


def unknown(source: Source, wanted: str = "", readers: Sequence[Reader] = READERS) -> DataError:
    """The error for a source of no known format: what it holds, and which readers came close."""
    files = source.files("")
    kinds = Counter(PurePosixPath(file).suffix.lower() or "without ending" for file in files)
    held = [f"{count:,} {kind}" for kind, count in kinds.most_common(6)]
    if source.folders:
        held.append(f"the folders {listed(map(repr, source.folders))}")
    faults = {file: fault for file in source.json_heads if (fault := json_fault(source.root / file))}
    close = [f"{file} is no JSON in UTF-8: {fault}." for file, fault in sorted(faults.items())[:3]]
    close += near_misses(source, readers)
    return DataError(
        f"Annotations {f'of {wanted}' if wanted else 'of a known format'} were expected in {source.path}.",
        f"It holds {listed(held, 7) or 'nothing'}. {' '.join(close)}".strip(),
        f"Known formats are {listed((reader.title for reader in READERS), 20)}; name the folder that has both the "
        "annotation file and the pictures.",
    )
