"""Looking at every file of a set before training does: what is there, and what is wrong with it.

Each image is decoded whole, so a file that was cut short is found, and hashed, so a copy is found under any name.
"""

from __future__ import annotations

import hashlib
import io
import os
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.data.scan import ImageSet, Sample, scan
from lensmith.errors import ImageError
from lensmith.imaging.decode import decode, read

Kind = Literal["label conflict", "leak", "unreadable", "empty", "duplicate", "set aside"]
KINDS: dict[Kind, str] = {
    "label conflict": "the same image under two classes",
    "leak": "the same image in two parts",
    "unreadable": "cannot be decoded",
    "empty": "no byte in it",
    "duplicate": "the same image twice in one class",
    "set aside": "not an image, or in the wrong place",
}
"""What can be wrong with a file, the gravest first."""

FEW_IMAGES = 4
"""A class with fewer images cannot fill three parts and still have two to learn from."""
IMBALANCE = 10
"""Largest class over smallest at which a warning is due."""


@dataclass(frozen=True)
class Finding:
    """Something wrong with one file.

    Attributes:
        path: relative to the set's root.
        kind: what sort of trouble.
        reason: the trouble itself, in words.
    """

    path: str
    kind: Kind
    reason: str


@dataclass(frozen=True)
class Side:
    """Width or height over all usable images, in pixels."""

    min: int
    median: float
    max: int


@dataclass(frozen=True)
class Checked:
    """What `check` saw.

    Attributes:
        path: what was checked.
        images: files that were decoded, well or not.
        usable: those that decoded.
        counts: class → part (`all` while unsplit) → usable images.
        width: None where no image is usable.
        height: None where no image is usable.
        formats: encoded format (JPEG, PNG, …) → usable images.
        modes: pixel mode as stored (RGB, L, P, CMYK, …) → usable images.
        findings: every file with something wrong, the gravest first.
        warnings: what is unwise about the set as a whole.
        notes: how the set was read.
    """

    path: Path
    images: int
    usable: int
    counts: dict[str, dict[str, int]]
    width: Side | None
    height: Side | None
    formats: dict[str, int]
    modes: dict[str, int]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> int:
        """Number of findings."""
        return len(self.findings)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "path": str(self.path), "problems": self.problems}


def check(path: str | os.PathLike[str]) -> Checked:
    """Decode and hash every file of an image folder or CSV; raises for no single file.

    Raises:
        DataError: the set as a whole is missing, empty, of no known layout, or of a single class.
    """
    images = scan(path)
    looks = list(track(_look_at(images), "checking images", len(images.samples)))
    good = [look for look in looks if look.error is None]
    findings = [
        *(Finding(name, "empty" if reason.startswith("empty") else "set aside", reason)
          for name, reason in images.set_aside),
        *(Finding(look.sample.path, "unreadable", look.error) for look in looks if look.error is not None),
        *_copies(images, good),
    ]  # fmt: skip
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), finding.path))
    counts = _counts(images, [look.sample for look in good])
    return Checked(
        path=Path(path),
        images=len(looks),
        usable=len(good),
        counts=counts,
        width=_side([look.width for look in good]),
        height=_side([look.height for look in good]),
        formats=dict(Counter(look.format for look in good).most_common()),
        modes=dict(Counter(look.mode for look in good).most_common()),
        findings=tuple(findings),
        warnings=tuple(_warnings(images, counts, findings)),
        notes=images.notes,
    )


@dataclass(frozen=True)
class _Look:
    """What one file turned out to be; `width` and `height` are upright, in pixels."""

    sample: Sample
    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    error: str | None = None


def _look_at(images: ImageSet) -> Iterator[_Look]:
    with warnings.catch_warnings(), ThreadPoolExecutor(allowed_cores(), thread_name_prefix="check") as pool:
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata; what matters is whether it decodes
        for start in range(0, len(images.samples), 1024):  # a pool takes all its work at once
            block = images.samples[start : start + 1024]
            yield from pool.map(lambda sample: _look(sample, images.file(sample)), block)


def _look(sample: Sample, file: Path) -> _Look:
    try:
        encoded = read(file)
        picture = decode(encoded)
    except ImageError as error:
        return _Look(sample, error=error.arrived.rstrip("."))
    with Image.open(io.BytesIO(encoded)) as stored:
        form, mode = stored.format or "", stored.mode
    return _Look(sample, hashlib.sha256(encoded).hexdigest(), picture.width, picture.height, form, mode)


def _copies(images: ImageSet, looks: Iterable[_Look]) -> Iterator[Finding]:
    """Every file whose content came before; compared with the worst of its earlier copies."""
    earlier: dict[str, list[Sample]] = defaultdict(list)
    for look in looks:
        sample, others = look.sample, earlier[look.sha256]
        if others:
            kind: Kind = "duplicate"
            other = others[0]
            if conflicts := [found for found in others if found.label != sample.label]:
                kind, other = "label conflict", conflicts[0]
            elif leaks := [found for found in others if found.part != sample.part]:
                kind, other = "leak", leaks[0]
            yield Finding(
                sample.path, kind, f"{_place(images, sample)} here; the same content as {other.path}"
                + (f", which is {_place(images, other)}" if kind != "duplicate" else "")
            )  # fmt: skip
        others.append(sample)


def _place(images: ImageSet, sample: Sample) -> str:
    return f"{images.labels[sample.label]!r}" + (f" in {sample.part}" if sample.part else "")


def _counts(images: ImageSet, usable: Sequence[Sample]) -> dict[str, dict[str, int]]:
    columns = images.parts or ("all",)
    table = {label: dict.fromkeys(columns, 0) for label in images.labels}
    for sample in usable:
        table[images.labels[sample.label]][sample.part or "all"] += 1
    return {label: {str(part): count for part, count in row.items()} for label, row in table.items()}


def _side(pixels: Sequence[int]) -> Side | None:
    return Side(min(pixels), statistics.median(pixels), max(pixels)) if pixels else None


def _warnings(images: ImageSet, counts: dict[str, dict[str, int]], findings: Sequence[Finding]) -> Iterator[str]:
    totals = {label: sum(row.values()) for label, row in counts.items()}
    few = [label for label, total in totals.items() if total < FEW_IMAGES]
    if few:
        yield f"Fewer than {FEW_IMAGES} usable images: {_listed(few)}. Such a class can hardly be learnt and judged."
    largest, smallest = max(totals, key=totals.__getitem__), min(totals, key=totals.__getitem__)
    if totals[largest] >= IMBALANCE * max(1, totals[smallest]):
        yield (
            f"Strong imbalance: {largest} has {totals[largest]:,} usable images, {smallest} has {totals[smallest]:,}. "
            "Judge by balanced accuracy or F1 rather than by accuracy."
        )
    for part in images.parts:
        missing = [label for label, row in counts.items() if not row[part] and totals[label]]
        if missing:
            yield f"No usable image in {part}: {_listed(missing)}."
    kinds = Counter(finding.kind for finding in findings)
    if kinds["label conflict"]:
        yield "Images that stand under two classes teach a contradiction: keep each under one."
    if kinds["leak"]:
        yield "Images that stand in two parts make the result look better than it is: remove one of the copies."
    if kinds["duplicate"] and "val" not in images.parts:
        yield "Copies may fall into different parts when a validation part is made: remove them first."


def _listed(labels: Sequence[str]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
