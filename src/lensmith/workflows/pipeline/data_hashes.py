"""Content hashes of the data, the key of every result that is made from it.

`ImageSet.fingerprint` knows names and sizes only, and does not notice an image that was replaced by another of the same
size. Here the content of each file is hashed. Hashes are cached with the file's size, times and inode, and a file is
read again only when one of these has changed.
"""

import hashlib
import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from lensmith.core.files import atomic_write, sha256, stat_stamp
from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.core.threads import map_in_order
from lensmith.data.image_set import ImageSet
from lensmith.imaging.crops import picture_of
from lensmith.workflows.pipeline.folder import read_json


def hash_images(images: ImageSet, cache: Path) -> dict[str, str]:
    """SHA-256 of each image, by its path in the set; `gone` for a file that cannot be read.

    `cache` is a JSON file with the hashes of the last run, which is updated.
    """
    known = _read_cache(cache)
    stamps = {sample.path: stat_stamp(picture_of(images.file(sample))) for sample in images.samples}
    new = [path for path, stamp in stamps.items() if stamp is None or known.get(path, ("", ""))[0] != stamp]
    found = {path: known[path][1] for path in stamps.keys() - set(new)}
    if new:
        found.update(track(_hash_files(images.root, new), "reading the data", len(new)))
    if new or known.keys() != stamps.keys():
        atomic_write(cache, json.dumps({path: (stamps[path], found[path]) for path in stamps}) + "\n")
    return found


def digest(images: ImageSet, hashes: dict[str, str]) -> str:
    """SHA-256 over the root folder of a set and every image's path, content, label and part."""
    whole = hashlib.sha256(f"{images.root.resolve()}\n{json.dumps(images.labels)}".encode(errors="surrogateescape"))
    for sample in images.samples:
        line = f"\n{sample.path}\t{hashes[sample.path]}\t{sample.label}\t{sample.part}"
        whole.update(line.encode(errors="surrogateescape"))
    return whole.hexdigest()


def _hash_files(root: Path, paths: list[str]) -> Iterator[tuple[str, str]]:
    def hash_one(path: str) -> tuple[str, str]:
        try:
            return path, sha256(root / path)
        except OSError:
            return path, "gone"

    cores = allowed_cores()
    yield from map_in_order(hash_one, paths, cores, 64 * cores, "hash")


def _read_cache(cache: Path) -> dict[str, tuple[str, str]]:
    with suppress(ValueError, TypeError):
        return {path: (str(stamp), str(sha)) for path, (stamp, sha) in read_json(cache).items()}
    return {}
