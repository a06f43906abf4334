"""Labels of several annotators read from their sources: one table or annotation source, or one for each annotator.

Labels without the name of an annotator are those of an annotator who is called as their source. The files of pictures
need not be there to compare labels of a table.
"""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from lensmith.core.labels import canonical_label, require_distinct
from lensmith.core.text import listed
from lensmith.data.annotation import Annotation
from lensmith.data.annotations.detect import unknown
from lensmith.data.annotations.load import load
from lensmith.data.annotations.reader import Source
from lensmith.data.files import require_exists, root_of_table
from lensmith.data.matched_boxes import match_boxes
from lensmith.data.scan import ANNOTATION_SUFFIXES, MANIFEST
from lensmith.data.table import read_table
from lensmith.errors import DataError
from lensmith.imaging.crops import picture_of


@dataclass(frozen=True)
class Labelled:
    """Labels of pictures below one root.

    Attributes:
        root: folder that paths are relative to.
        rows: labels, of which several may be of one picture; each with the name of its annotator.
        notes: sentences about how the sources were read.
        warnings: sentences about what is left out.
    """

    root: Path
    rows: tuple[Annotation, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def read_annotators(sources: Sequence[Path]) -> Labelled:
    """Read the labels of all sources.

    Args:
        sources: one source with labels of several annotators, or several sources of the same pictures.

    Raises:
        DataError: a source that cannot be read or has no label, fewer than two annotators, several sources without a
            picture in common, or classes whose names look alike.
    """
    read = [_read(source) for source in sources]
    if len(sources) > 1:
        read = [_named(each, name) for each, name in zip(read, _names(sources), strict=True)]
    together = read[0] if len(read) == 1 else _together(read, sources)
    matched = match_boxes(together.rows)
    together = replace(together, rows=tuple(matched.rows), notes=(*together.notes, *matched.notes))
    where = listed(sources)
    if not together.rows:
        why = " ".join(together.warnings) or "There is none."
        raise DataError(f"Labels of pictures were expected in {where}.", why, "Check the source.")
    paths = {row.path for row in together.rows}
    annotators = {canonical_label(row.annotator).casefold() for row in together.rows}
    if len(annotators) < 2:
        name = together.rows[0].annotator
        raise DataError(
            f"Labels of two annotators or more were expected in {where}.",
            f"All are by {name!r}." if name else "It does not say who gave which label.",
            "Give a table with a column annotator, or one file for each annotator of the same pictures.",
        )
    require_distinct({canonical_label(row.label) for row in together.rows}, where)
    missing = sorted(path for path in paths if not picture_of(together.root / path).exists())
    if not missing:
        return together
    warning = f"Images that are not there, whose labels count all the same: {len(missing):,} ({listed(missing, 3)})."
    return replace(together, warnings=(*together.warnings, warning))


def _read(source: Path) -> Labelled:
    """The labels of one source, as they are.

    Raises:
        DataError: the source cannot be read.
    """
    require_exists(source, "A table of labels, or annotations of a labelling tool,")
    table = source / MANIFEST if source.is_dir() else source
    is_manifest = table.name == MANIFEST and table.is_file()
    if not is_manifest and (found := load(source)) is not None:
        where, annotations = found
        return Labelled(where.root, tuple(annotations.rows), tuple(annotations.notes), tuple(annotations.warnings))
    if not is_manifest and source.suffix.lower() in ANNOTATION_SUFFIXES and source.is_file():
        raise unknown(Source(source))
    if not is_manifest and source.is_dir():
        raise DataError(
            f"A table of labels, or annotations of a labelling tool, was expected at {source}.",
            "It is a folder without either.",
            "Give a CSV with the columns path,label,annotator, or one CSV for each annotator.",
        )
    root = root_of_table(table)
    lines = read_table(table, root, need_files=False)
    return Labelled(root, tuple(lines.rows), tuple(lines.notes), tuple(lines.warnings))


def _named(labelled: Labelled, name: str) -> Labelled:
    """The labels, those of nobody with this name for their annotator."""
    rows = (row if canonical_label(row.annotator) else row._replace(annotator=name) for row in labelled.rows)
    return Labelled(labelled.root, tuple(rows), labelled.notes, labelled.warnings)


def _names(sources: Sequence[Path]) -> Iterator[str]:
    """The shortest name of each source that no other has: without the ending, with its folder, or the whole path."""
    forms = [(source.stem, f"{source.absolute().parent.name}/{source.stem}", str(source)) for source in sources]
    counts = [Counter(column) for column in zip(*forms, strict=True)]
    for names in forms:
        yield next((name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1])


def _together(read: Sequence[Labelled], sources: Sequence[Path]) -> Labelled:
    """Labels of several sources below one root, where a picture has one path.

    A picture is the same if its file is, or else if its path relative to the source's folder is, as in copies of the
    pictures that each annotator has.

    Raises:
        DataError: the sources have no picture in common.
    """
    roots = [Path(os.path.realpath(each.root)) for each in read]
    notes = tuple(dict.fromkeys(note for each in read for note in each.notes))
    warnings = tuple(dict.fromkeys(warning for each in read for warning in each.warnings))
    base = Path(os.path.commonpath(roots))
    below = [
        [row._replace(path=Path(os.path.relpath(root / row.path, base)).as_posix()) for row in each.rows]
        for root, each in zip(roots, read, strict=True)
    ]
    if _have_common(below):
        return Labelled(base, tuple(row for rows in below for row in rows), notes, warnings)
    if _have_common([each.rows for each in read]):
        note = f"Pictures are the same where their paths in the sources are; they are looked for in {read[0].root}."
        rows = tuple(row for each in read for row in each.rows)
        return Labelled(read[0].root, rows, (*notes, note), warnings)
    shown = [
        f"{source} has {each.rows[0].path if each.rows else 'none'}" for source, each in zip(sources, read, strict=True)
    ]
    raise DataError(
        "Sources with pictures in common were expected.",
        f"No picture is in two of them; {listed(shown, 3)}.",
        "Give labels of the same pictures, with paths relative to each source's folder.",
    )


def _have_common(sources: Sequence[Sequence[Annotation]]) -> bool:
    counts = Counter(path for rows in sources for path in {row.path for row in rows})
    return any(count > 1 for count in counts.values())
