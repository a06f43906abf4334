"""Content hashes of the data, the key of every result that is made from it.

`ImageSet.fingerprint` knows names and sizes only, and does not notice an image that was replaced by another of the same
size. Here the content of each file counts; hashes are memoized by file (`imaging.content_digests`).
"""

import hashlib
import json

from lensmith.data.image_set import ImageSet
from lensmith.imaging.content_digests import content_digests


def hash_images(images: ImageSet) -> dict[str, str]:
    """SHA-256 of each image, by its path in the set; `gone` for a file that cannot be read."""
    digests = content_digests([images.file(sample) for sample in images.samples])
    return {
        sample.path: "gone" if digest is None else digest.hex()
        for sample, digest in zip(images.samples, digests, strict=True)
    }


def digest(images: ImageSet, hashes: dict[str, str]) -> str:
    """SHA-256 over the root folder of a set and every image's path, content, label and part."""
    whole = hashlib.sha256(f"{images.root.resolve()}\n{json.dumps(images.labels)}".encode(errors="surrogateescape"))
    for sample in images.samples:
        line = f"\n{sample.path}\t{hashes[sample.path]}\t{sample.label}\t{sample.part}\t{sample.group}"
        whole.update(line.encode(errors="surrogateescape"))
    return whole.hexdigest()
