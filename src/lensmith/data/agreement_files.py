"""`lensmith data agreement`: annotators compared, and their consensus written, with contested images and a page."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from lensmith.config import AgreementSettings
from lensmith.core.csv_text import csv_text, paths_from, require_csv_name, require_free
from lensmith.core.files import atomic_write_all
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
    for file, text in contents.items():  # before any is written
        require_free(file, text, settings.overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write_all(contents)
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
    path = paths_from(labelled.root, folder)
    rows = [(path(row.path), canonical_label(row.label), row.part or "", row.group) for row in agreed.annotations]
    return csv_text(("path", "label", "split", "group"), rows, optional=("split", "group"))


def work_list(labelled: Labelled, result: AgreementResult, given: Given, folder: Path) -> str:
    """The contested images as CSV, the most divided first, as `lensmith review` opens it.

    Columns: path; suggested, the class with most votes where there is one; score, the share of the labels that are of
    another class, 0..1; candidates, all classes named, most votes first; votes, who named which; and the reason.
    """
    relative, lines = paths_from(labelled.root, folder), []
    for each in result.contested:
        counts = Counter(label for _, label in given[each.path])
        candidates = sorted(counts, key=lambda label: (-counts[label], label))
        leads = len(candidates) < 2 or counts[candidates[0]] > counts[candidates[1]]
        score = 1 - counts[candidates[0]] / counts.total()
        votes = "; ".join(f"{annotator}: {label}" for annotator, label in given[each.path])
        found = (relative(each.path), candidates[0] if leads else "", f"{score:.3f}", "; ".join(candidates), votes)
        lines.append((*found, each.reason, each.part or "", each.group))
    lines.sort(key=lambda line: (-float(line[2]), line[0]))
    columns = ("path", "suggested", "score", "candidates", "votes", "reason", "split", "group")
    return csv_text(columns, lines, optional=("split", "group"))


def _require_csv(out: Path) -> None:
    require_csv_name(out, "--out")
    if out.name.lower() == CONTESTED_FILE:
        raise SettingsError(
            "A manifest of the consensus was expected for --out.",
            f"{out} is what the list of contested images is called.",
            "Name it consensus.csv.",
        )
