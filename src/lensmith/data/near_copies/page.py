"""The page of near copies: pairs side by side, in one HTML file without scripts or requests."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lensmith.core.files import atomic_write
from lensmith.core.templates import render_page
from lensmith.data.files import printable
from lensmith.data.image_set import ImageSet, Sample
from lensmith.data.near_copies.search import CopyKind, NearCopy
from lensmith.errors import OutputError
from lensmith.imaging.thumbnails import thumbnail_if_readable

SHOWN = 200
"""Number of pairs on the page; --json has all."""
KINDS: dict[CopyKind, str] = {"content": "equal files", "pixels": "equal pixels", "near": "near copy"}


def require_place(path: Path) -> None:
    """Refuse a path that the page cannot be written to, before the long work.

    Raises:
        OutputError: something else than a file is there, the name ends in that of another format, or its folder is
            closed to writing.
    """
    if path.is_dir() or path.suffix.lower() not in (".html", ".htm"):
        raise OutputError(
            "A file that ends in .html was expected for the page of near copies, with --out.",
            f"{path} {'is a folder' if path.is_dir() else 'arrived'}.",
            f"Name it {(path / 'near-copies.html') if path.is_dir() else path.with_suffix('.html')}.",
        )
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK):
        raise OutputError(
            f"A folder that one may write into was expected for the page of near copies, {path}.",
            f"{nearest} is {'closed to writing' if nearest.is_dir() else 'no folder'}.",
            "Name another with --out.",
        )


def write_page(images: ImageSet, copies: Sequence[NearCopy], path: Path) -> None:
    """Write the page, whole or not at all, in place of an older one.

    Args:
        images: the image set.
        copies: its near copies, in the order of the page.
        path: the HTML file.
    """
    counts = Counter(pair.kind for pair in copies)
    sample_of = {sample.path: sample for sample in images.samples}
    path.parent.mkdir(parents=True, exist_ok=True)
    text = render_page(
        "lensmith.data",
        "near_copies.html.j2",
        root=str(images.root),
        images=len(images.samples),
        total=len(copies),
        kinds=[(KINDS[kind], counts[kind]) for kind in KINDS],
        across_parts=sum(pair.across_parts for pair in copies),
        across_classes=sum(pair.across_classes for pair in copies),
        pairs=[_pair(images, sample_of, pair) for pair in copies[:SHOWN]],
    )
    atomic_write(path, text)


def _pair(images: ImageSet, sample_of: Mapping[str, Sample], pair: NearCopy) -> dict[str, Any]:
    return {
        "kind": KINDS[pair.kind],
        "similarity": pair.similarity,
        "across_parts": pair.across_parts,
        "across_classes": pair.across_classes,
        "sides": [
            {
                "path": printable(path),
                "label": images.labels[sample.label],
                "part": sample.part or "",
                "picture": thumbnail_if_readable(images.root / path),
            }
            for path, sample in ((path, sample_of[path]) for path in pair.paths)
        ],
    }
