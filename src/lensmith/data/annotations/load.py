"""A source of annotations, recognised and read; or nothing, where it is something else."""

import zipfile
from pathlib import Path

from lensmith.core.text import listed
from lensmith.data.annotations.assemble import Annotations, assemble
from lensmith.data.annotations.detect import detect
from lensmith.data.annotations.reader import Reading, Source
from lensmith.errors import DataError, OutOfMemoryError


def load(
    path: Path, name: str = "auto", *, margin: float = 0.0, attribute: str | None = None
) -> tuple[Source, Annotations] | None:
    """Annotations of a folder or file with the root of its pictures; None where no format is recognised.

    Args:
        path: folder or file.
        name: name of the format, or `auto` to find it by looking.
        margin: see `assemble`.
        attribute: see `assemble`.

    Raises:
        OutOfMemoryError: memory does not suffice for the labels.
        DataError: an archive, annotations of two formats, or damaged ones; or none of their pictures is there.
        SettingsError: there is no format of that name.
    """
    if path.is_file() and path.suffix.lower() == ".zip" and zipfile.is_zipfile(path):
        raise DataError(
            f"A folder, or a file with annotations, was expected at {path}.",
            "It is a zip archive.",
            f"Unpack it first, and give the folder: python -m zipfile -e {path} {path.with_suffix('')}",
        )
    source = Source(path)
    found = detect(source, name)
    if found is None:
        return None
    reader, look = found
    reading = Reading([f"Read as {reader.title}: {listed(look.files, 3)}."], [])
    try:
        return source, assemble(source, reader.read(source, look.files, reading), reading, margin, attribute)
    except MemoryError:
        raise OutOfMemoryError(
            f"Memory for all labels in {path} was expected.",
            "It ran out while they were read.",
            "Split the annotation file, export the pictures that you need, or use a machine with more memory.",
        ) from None
