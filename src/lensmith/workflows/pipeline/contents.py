"""What the data is, byte by byte: the key of everything that is made of it.

`ImageSet.fingerprint` knows names and sizes; an image that was replaced by another of the same size would pass it by.
Here each file is hashed, once: its hash is kept with what the system says of the file, and a file is read again only
when that has changed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.data.scan import ImageSet
from lensmith.workflows.pipeline.results import write_whole


def hashes(images: ImageSet, kept: Path) -> dict[str, str]:
    """SHA-256 of each image, by its path in the set; `gone` where it cannot be read.

    Args:
        images: the set.
        kept: JSON file in which hashes are kept from run to run.
    """
    known = _read(kept)
    said = {sample.path: _stamp(images.file(sample)) for sample in images.samples}
    new = [path for path, stamp in said.items() if stamp is None or known.get(path, ("", ""))[0] != stamp]
    found = {path: known[path][1] for path in said.keys() - set(new)}
    if new:
        found.update(track(_hashed(images.root, new), "reading the data", len(new)))
    if new or known.keys() != said.keys():
        write_whole(kept, json.dumps({path: (said[path], found[path]) for path in said}))
    return found


def digest(images: ImageSet, hashes: dict[str, str]) -> str:
    """SHA-256 of every path, content, label and part of a set, and of where it lies."""
    whole = hashlib.sha256(f"{images.root.resolve()}\n{json.dumps(images.labels)}".encode(errors="surrogateescape"))
    for sample in images.samples:
        line = f"\n{sample.path}\t{hashes[sample.path]}\t{sample.label}\t{sample.part}"
        whole.update(line.encode(errors="surrogateescape"))
    return whole.hexdigest()


def copies_across(images: ImageSet, hashes: dict[str, str]) -> list[str]:
    """Test images whose very bytes are in another part, too."""
    elsewhere = {hashes[sample.path] for sample in images.samples if sample.part != "test"}
    return [sample.path for sample in images.part("test") if hashes[sample.path] in elsewhere]


def _hashed(root: Path, paths: list[str]) -> Iterator[tuple[str, str]]:
    def one(path: str) -> tuple[str, str]:
        try:
            with (root / path).open("rb") as file:
                return path, hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return path, "gone"

    with ThreadPoolExecutor(allowed_cores(), thread_name_prefix="hash") as pool:
        for start in range(0, len(paths), 4096):
            yield from pool.map(one, paths[start : start + 4096])


def _stamp(file: Path) -> str | None:
    # The system sets the time of change itself, so a file put back with its old date is another, too.
    try:
        found = os.stat(file)  # noqa: PTH116 - a third of the time of Path.stat for a million files
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _read(kept: Path) -> dict[str, tuple[str, str]]:
    with suppress(OSError, ValueError, TypeError, AttributeError):
        return {str(path): (str(stamp), str(sha)) for path, (stamp, sha) in json.loads(kept.read_bytes()).items()}
    return {}
