"""Answers of bundles, cached by the images' contents: a champion has answered most test images in an earlier gate."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from lensmith.bundle.format import MANIFEST
from lensmith.core.array_cache import ArrayCache, NotCachedError
from lensmith.core.cache import default_budget_bytes
from lensmith.core.files import sha256
from lensmith.core.progress import track
from lensmith.core.row_cache import RowKey, rows_by_content
from lensmith.core.version import installed_versions
from lensmith.imaging.content_digests import content_digests
from lensmith.inference.classifier import Classifier, Prediction

BLOCK = 256
"""Answers that are written together."""


class CachingClassifier(Classifier):
    """A classifier whose answers to streams of files are computed once for each content, bundle and engine."""

    def stream(self, paths: Iterable[str | os.PathLike[str]], top_k: int = 5) -> Iterator[Prediction]:
        """As `Classifier.stream`; where there is no room for a cache nothing is cached."""
        files, width = list(map(Path, paths)), len(self.bundle.labels)

        def compute(rows: Sequence[int]) -> Iterator[npt.NDArray[Any]]:
            """Probabilities, float32 (C,) for each row; NaN for a file that cannot be read."""
            found = super(CachingClassifier, self).stream([files[row] for row in rows], 1)
            for answer in track(found, "Evaluating", len(rows)):
                yield np.full(width, np.nan, np.float32) if answer.probabilities is None else answer.probabilities

        # bundle.json has the hashes of all other files, and all that makes logits probabilities.
        values = {
            "bundle": sha256(self.bundle.path / MANIFEST),
            "engine": f"{self.engine.name} {self.engine.precision}",
            "versions": installed_versions(("lensmith", self.engine.name, "numpy", "pillow")),
        }
        title = f"{len(files):,} images: {self.bundle.manifest.name} {self.bundle.manifest.version}"
        key, lengths = RowKey("answers", values, "float32"), [width] * len(files)
        try:
            flat = rows_by_content(
                ArrayCache(default_budget_bytes()), key, content_digests(files), lengths, compute, title,
                rows_a_block=BLOCK,
            )  # fmt: skip
        except NotCachedError:
            yield from super().stream(files, top_k)
            return
        for file, row in zip(files, flat.reshape(-1, width), strict=True):
            yield self._file(file, top_k) if np.isnan(row[0]) else replace(self.rank(row, top_k), path=str(file))
