"""`lensmith data agreement`: annotators compared, and their consensus written, with contested images and a page."""

import csv
import io
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lensmith.config import AgreementSettings
from lensmith.core.files import atomic_write
from lensmith.core.labels import canonical_label
from lensmith.core.packages import require_packages
from lensmith.data.annotation import Annotation
from lensmith.data.annotator_sources import Labelled, read_annotators
from lensmith.data.annotators import AgreementFiles, AgreementResult, compare
from lensmith.data.consensus import Consensus, resolve, votes_of
from lensmith.errors import OutputError, SettingsError

CONTESTED_FILE, PAGE_FILE = "contested.csv", "agreement.html"

Given = Mapping[str, Sequence[tuple[str, str]]]
"""Path of an image → annotator and class of each of its labels."""


def measure_agreement(settings: AgreementSettings) -> AgreementResult:
    """Compare annotators, and write the consensus, the contested images and a page where `out` names the manifest.

    Raises:
        DataError: sources that cannot be read, or with fewer than two annotators.
        MissingPackageError: the page needs a package that is not installed.
        OutputError: other files are there, and `overwrite` is off.
        SettingsError: a consensus that memory does not suffice for, or a manifest that is not called as a CSV.
    """
    if settings.out is not None:
        require_packages("jinja2")
        _require_csv(settings.out)
    labelled = read_annotators(settings.sources)
    agreed = resolve(labelled.rows, settings.consensus)
    result = compare(labelled, agreed, settings)
    if settings.out is None:
        return result
    from lensmith.data.agreement_page import render  # whose jinja2 the figures alone do not need

    given = labels_of_images(labelled.rows)
    folder = settings.out.parent
    files = AgreementFiles(settings.out, folder / CONTESTED_FILE, folder / PAGE_FILE)
    written = replace(result, files=files)
    contents = {
        files.manifest: manifest_text(labelled, agreed, folder),
        files.contested: work_list(labelled, written, given, folder),
        files.report: render(written, labelled.root, agreed, given),
    }
    _require_free(contents, settings.overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, text in contents.items():
            atomic_write(file, text)
    except OSError as error:
        raise OutputError(
            f"A folder that one may write into was expected for {settings.out}.",
            f"It cannot be written to ({error.strerror or error}).",
            "Name another with --out.",
        ) from error
    return written


def labels_of_images(rows: Sequence[Annotation]) -> dict[str, list[tuple[str, str]]]:
    """Path → annotator and class of each label of an image, in the order of the annotators' names."""
    votes = votes_of(rows)
    ratings, found = votes.ratings, defaultdict(list)
    for picture, annotator, label in zip(ratings.picture, ratings.annotator, ratings.label, strict=True):
        found[ratings.pictures[picture]].append((ratings.annotators[annotator], ratings.classes[label]))
    for path, given in votes.undecided.items():
        found[path] += [(annotator, label) for annotator, labels in given.items() for label in labels]
    return {path: sorted(given) for path, given in found.items()}


def manifest_text(labelled: Labelled, agreed: Consensus, folder: Path) -> str:
    """The consensus as CSV of path,label[,split][,group], with paths relative to the folder of the manifest."""
    has_parts = any(row.part for row in agreed.annotations)
    has_groups = any(row.group for row in agreed.annotations)
    columns = ["path", "label", *(["split"] if has_parts else []), *(["group"] if has_groups else [])]
    lines = (
        (
            _relative(labelled.root, row.path, folder),
            canonical_label(row.label),
            *([row.part or ""] if has_parts else []),
            *([row.group] if has_groups else []),
        )
        for row in agreed.annotations
    )
    return _as_csv(columns, lines)


def work_list(labelled: Labelled, result: AgreementResult, given: Given, folder: Path) -> str:
    """The contested images as CSV, the most divided first, as `lensmith review` opens it.

    Columns: path; suggested, the class with most votes where there is one; score, the share of the labels that are of
    another class, 0..1; candidates, all classes named, most votes first; votes, who named which; and the reason.
    """
    has_parts, has_groups = any(each.part for each in result.contested), any(each.group for each in result.contested)
    lines = []
    for each in result.contested:
        counts = Counter(label for _, label in given[each.path])
        candidates = sorted(counts, key=lambda label: (-counts[label], label))
        leads = len(candidates) < 2 or counts[candidates[0]] > counts[candidates[1]]
        score = 1 - counts[candidates[0]] / counts.total()
        votes = "; ".join(f"{annotator}: {label}" for annotator, label in given[each.path])
        path = _relative(labelled.root, each.path, folder)
        own = (*([each.part or ""] if has_parts else []), *([each.group] if has_groups else []))
        suggested = candidates[0] if leads else ""
        lines.append((path, suggested, f"{score:.3f}", "; ".join(candidates), votes, each.reason, *own))
    lines.sort(key=lambda line: (-float(line[2]), line[0]))
    own = (*(["split"] if has_parts else []), *(["group"] if has_groups else []))
    return _as_csv(("path", "suggested", "score", "candidates", "votes", "reason", *own), lines)


def _relative(root: Path, path: str, folder: Path) -> str:
    return Path(os.path.relpath(Path(os.path.realpath(root), path), os.path.realpath(folder))).as_posix()


def _as_csv(columns: Sequence[str], lines: Iterable[Sequence[Any]]) -> str:
    text = []
    for cells in (columns, *lines):
        line = io.StringIO()  # which quotes carriage returns only where they end lines
        csv.writer(line, lineterminator="\r\n").writerow(cells)
        text.append(line.getvalue().removesuffix("\r\n") + "\n")
    return "".join(text)


def _require_csv(out: Path) -> None:
    if out.suffix.lower() != ".csv":
        raise SettingsError(
            "A manifest that ends in .csv was expected for --out, since it is CSV.",
            f"{out} arrived.",
            f"Name it {out.with_suffix('.csv').name}." if out.name else "Name a file.",
        )
    if out.name.lower() == CONTESTED_FILE:
        raise SettingsError(
            "A manifest of the consensus was expected for --out.",
            f"{out} is what the list of contested images is called.",
            "Name it consensus.csv.",
        )


def _require_free(contents: Mapping[Path, str], overwrite: bool) -> None:
    """Refuse files that hold something else, before any is written."""
    for file, text in contents.items():
        if file.is_dir() or (
            file.exists() and not overwrite and file.read_bytes() != text.encode("utf-8", "surrogateescape")
        ):
            raise OutputError(
                f"A free path was expected for {file}.",
                "Something else is there." if file.is_dir() else "A file with other content is there.",
                "Replace it with --overwrite, or name another folder with --out.",
            )
