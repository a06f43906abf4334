"""Import: annotations of a labelling tool → a manifest, with a list of the unlabelled pictures beside it.

Pictures stay where they are. A box is a crop, named by a media fragment; its file is written only where `crops` asks.
"""

import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from lensmith.config import ImportSettings
from lensmith.core.csv_text import csv_text, is_same_file, paths_from, require_csv_name, require_free
from lensmith.core.files import atomic_write_all, replace_directory, staging_directory
from lensmith.core.labels import canonical_label
from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.core.threads import map_in_order
from lensmith.data.annotation import Annotation
from lensmith.data.annotations.detect import unknown
from lensmith.data.annotations.load import load
from lensmith.data.annotations.reader import Source
from lensmith.data.consensus import Contested
from lensmith.data.files import printable, require_exists
from lensmith.data.matched_boxes import match_boxes
from lensmith.data.scan import image_set_of
from lensmith.errors import DataError, ImageError, OutputError
from lensmith.imaging.crops import picture_of
from lensmith.imaging.decoding import read


@dataclass(frozen=True)
class ImportResult(Result):
    """Result of `lensmith data import`.

    Attributes:
        source: folder or file that was read.
        manifest: path of the CSV of path,label[,split][,group][,annotator].
        written: False if the same manifest existed already.
        counts: class → part (`all` without parts) → number of images or crops, by consensus of the annotators.
        annotations: number of lines of the manifest: one for each label of a picture or crop by each annotator.
        has_crops: whether labels are those of boxes.
        crops: folder of the crops that were written; None where crops are cut when they are read.
        unlabelled: path of each picture without a label, relative to the pictures' root.
        unlabelled_list: path of the CSV of these; None where there is none.
        missing: name of each picture that annotations name and that is not there.
        annotators: names of the annotators, sorted.
        contested: pictures or crops that manifests leave out since their labels contradict each other.
        set_aside: path and reason of what cannot be used.
        notes: sentences about how the annotations were read.
        warnings: sentences about what is left out or doubtful.
        junk: number of files of systems and programs that are left out, by name.
    """

    source: Path
    manifest: Path
    written: bool
    counts: dict[str, dict[str, int]]
    annotations: int
    has_crops: bool
    crops: Path | None
    unlabelled: tuple[str, ...]
    unlabelled_list: Path | None
    missing: tuple[str, ...]
    annotators: tuple[str, ...]
    contested: tuple[Contested, ...]
    set_aside: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    junk: Mapping[str, int] = field(default_factory=dict)


def import_annotations(settings: ImportSettings) -> ImportResult:
    """Write the manifest of an annotation source.

    Raises:
        DataError: a source of no known format, or that cannot be used; labels other than the `classes`; or crops are
            asked for where there are no boxes.
        OutputError: another manifest exists, and `overwrite` is off; or the folder of the crops is not free.
        SettingsError: the manifest's name ends in that of another format than CSV.
    """
    source, out = settings.source, settings.out
    require_csv_name(out, "OUT")
    require_exists(source, "A folder or file with annotations")
    loaded = load(source, settings.format, margin=settings.margin, attribute=settings.attribute)
    if loaded is None:
        raise unknown(Source(source))
    root, annotations = loaded[0].root, loaded[1]
    images = image_set_of(*loaded)
    _require_known(annotations.rows, settings.classes or (), source)
    if (settings.crops is not None or settings.margin) and not annotations.has_crops:
        raise DataError(
            f"Boxes were expected in {source}, for --crops and --margin.",
            "Its labels are those of whole pictures.",
            "Leave these options out.",
        )
    relative = paths_from(root, out.parent)
    paths = {row.path: relative(row.path) for row in annotations.rows}
    list_of_unlabelled = unlabelled_list(out)
    list_text = csv_text(("path",), [(relative(path),) for path in images.unlabelled])
    if images.unlabelled and not out.exists():  # a list without a manifest is not one of ours
        require_free(list_of_unlabelled, list_text, settings.overwrite)
    if settings.crops is not None:
        require_free(out, None, settings.overwrite)
        annotations = replace(annotations, rows=match_boxes(annotations.rows).rows)  # one file for each object
        paths, failed = _write_crops(root, annotations.rows, settings.crops, out)
        rows = [row for row in annotations.rows if row.path in paths]
        annotations = replace(annotations, rows=rows, aside=[*annotations.aside, *failed])
        images = replace(image_set_of(loaded[0], annotations), notes=images.notes)
    text = _manifest(annotations.rows, paths)
    require_free(out, text, settings.overwrite)
    written = not is_same_file(out, text)
    contents = {out: text} if written else {}
    if images.unlabelled or (out.exists() and list_of_unlabelled.exists()):
        contents[list_of_unlabelled] = list_text
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_all(contents)
    except BaseException:
        if settings.crops is not None:
            shutil.rmtree(settings.crops, ignore_errors=True)
        raise
    return ImportResult(
        source=source,
        manifest=out,
        written=written,
        counts=images.counts(),
        annotations=len(annotations.rows),
        has_crops=annotations.has_crops,
        crops=settings.crops,
        unlabelled=images.unlabelled,
        unlabelled_list=list_of_unlabelled if images.unlabelled else None,
        missing=annotations.missing,
        annotators=tuple(sorted({row.annotator for row in annotations.rows} - {""})),
        contested=images.contested,
        set_aside=images.set_aside,
        notes=images.notes,
        warnings=images.warnings,
        junk=dict(images.junk),
    )


def unlabelled_list(manifest: Path) -> Path:
    """Path of the list of unlabelled pictures beside a manifest."""
    return manifest.with_name(f"{manifest.stem}-unlabelled.csv")


def _require_known(rows: Sequence[Annotation], classes: Sequence[str], source: Path) -> None:
    """Refuse labels that are not among the classes, where classes are given."""
    known = set(map(canonical_label, classes))
    strange = Counter(label for row in rows if (label := canonical_label(row.label)) not in known)
    if known and strange:
        raise DataError(
            f"Labels of the classes {listed(map(repr, classes), 10)} were expected in {source}.",
            f"There are others: {listed((f'{label!r} ({count:,})' for label, count in strange.most_common()), 10)}.",
            "Add them to --classes, or correct the annotations.",
        )


def _manifest(rows: Sequence[Annotation], paths: Mapping[str, str]) -> str:
    """The manifest; columns that no annotation needs are left out."""
    ordered = sorted(rows, key=lambda row: (paths[row.path], row.annotator))
    cells = ((paths[row.path], row.label, row.part or "", row.group, row.annotator) for row in ordered)
    columns = ("path", "label", "split", "group", "annotator")
    return csv_text(columns, cells, optional=("split", "group", "annotator"))


def _write_crops(
    root: Path, rows: Sequence[Annotation], folder: Path, manifest: Path
) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Write each crop as a file `STEM#N.png`, N from 1 in each picture.

    Returns:
        Path of each crop → path of its file as the manifest has it; and path and reason of those that cannot be cut.

    Raises:
        OutputError: the folder has something in it.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise OutputError(
            f"A new or empty folder was expected for crops at {folder}.", "Something is there.", "Name another one."
        )
    crops = list(dict.fromkeys(row.path for row in rows))
    counts: Counter[Path] = Counter()
    names = {}
    for crop in crops:
        stem = picture_of(Path(crop)).with_suffix("")
        counts[stem] += 1  # of a.jpg and a.png together
        names[crop] = stem.with_name(f"{stem.name}#{counts[stem]}").as_posix()
    files: dict[str, str] = {}
    failed: list[tuple[str, str]] = []
    with staging_directory(folder) as staging:

        def write(crop: str) -> str | None:
            try:
                content = read(root / crop)
            except ImageError as error:
                return error.arrived.rstrip(".")
            name = names[crop] + (".png" if content.startswith(b"\x89PNG") else ".tif")
            (staging / name).parent.mkdir(parents=True, exist_ok=True)
            (staging / name).write_bytes(content)
            files[crop] = name
            return None

        cores = allowed_cores()
        reasons = map_in_order(write, crops, cores, 8 * cores, "crops")
        for crop, reason in zip(crops, track(reasons, "writing crops", len(crops)), strict=True):
            if reason is not None:
                failed.append((printable(crop), reason))
        if folder.exists():
            folder.rmdir()
        replace_directory(staging, folder)
    relative = paths_from(folder, manifest.parent)
    return {crop: relative(name) for crop, name in files.items()}, failed
