"""Files of the label doctor: the page, the findings as JSON, and the lists that `review`, `split` and `train` read.

    report.html      the page
    findings.json    all findings, and SHA-256 of the lists as they were written
    suspects.csv     path,label,suggested,score,flagged,reason: a work list for `lensmith review`, and a list for
                     `--exclude`, which takes the flagged rows
    relabel.csv      path,label: suggestions that are nearly certain, for `--relabel`

Paths in the lists are relative to their folder.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

from lensmith.config import LabelDoctorSettings
from lensmith.core.csv_text import csv_text, paths_from
from lensmith.core.files import atomic_write_all
from lensmith.core.output_names import require_folder_name
from lensmith.curation.doctor_page import render
from lensmith.curation.label_doctor import LabelDoctorResult
from lensmith.errors import OutputError

FINDINGS, SUSPECTS, RELABEL = "findings.json", "suspects.csv", "relabel.csv"


def prepare_folder(settings: LabelDoctorSettings) -> Path:
    """The folder for the findings, checked before anything is computed; doctor/NAME by default.

    Raises:
        OutputError: the folder lies in the image folder, holds something else, or lists that were edited since.
    """
    out = settings.out or Path("doctor") / settings.folder.resolve().stem
    require_folder_name(out, "the findings, with --out")
    if settings.folder.is_dir() and out.resolve().is_relative_to(settings.folder.resolve()):
        raise OutputError(
            f"A folder outside the images in {settings.folder} was expected for the findings.",
            f"{out} lies in it.",
            "Name another with --out.",
        )
    if not out.exists() or settings.overwrite:
        return out
    if not out.is_dir() or (any(out.iterdir()) and not (out / FINDINGS).is_file()):
        raise OutputError(
            f"A free folder, or one with older findings, was expected at {out}.",
            "Something else is there.",
            "Name another with --out.",
        )
    if edited := _edited(out):
        raise OutputError(
            f"Lists as the label doctor wrote them were expected in {out}, to replace them.",
            f"{' and '.join(edited)} {'was' if len(edited) == 1 else 'were'} edited since.",
            "Name another folder with --out, or replace them with --overwrite.",
        )
    return out


def _edited(out: Path) -> list[str]:
    """Names of the lists in an older folder that are not as they were written."""
    try:
        written = json.loads((out / FINDINGS).read_text(encoding="utf-8"))["lists"]
        return [
            name for name, digest in written.items()
            if (out / name).is_file() and hashlib.sha256((out / name).read_bytes()).hexdigest() != digest
        ]  # fmt: skip
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return []


def write_files(found: LabelDoctorResult) -> None:
    """Write the page and the lists into the folder `found.out`, all of them or none."""
    assert found.out is not None
    out = found.out
    page = render(found)
    out.mkdir(parents=True, exist_ok=True)
    path = paths_from(found.image_set.root, out)
    lists = {SUSPECTS: _suspects_csv(found, path), RELABEL: _relabel_csv(found, path)}
    digests = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in lists.items()}
    findings = json.dumps({**found.as_dict(), "lists": digests}, indent=1) + "\n"
    atomic_write_all({out / name: text for name, text in {**lists, "report.html": page, FINDINGS: findings}.items()})


def _suspects_csv(found: LabelDoctorResult, path: Callable[[str], str]) -> str:
    rows = [
        (
            path(suspect.path),
            suspect.label,
            suspect.suggested,
            f"{suspect.score:.4f}",
            "yes" if suspect.flagged else "no",
            f"looks like {suspect.suggested} ({suspect.suggested_probability:.0%}) rather than {suspect.label} "
            f"({suspect.label_probability:.0%})",
        )
        for suspect in found.suspects
    ]
    return csv_text(("path", "label", "suggested", "score", "flagged", "reason"), rows)


def _relabel_csv(found: LabelDoctorResult, path: Callable[[str], str]) -> str:
    rows = [(path(suspect.path), suspect.suggested) for suspect in found.suspects if suspect.is_certain]
    return csv_text(("path", "label"), rows)
