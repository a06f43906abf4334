"""Batch prediction: one row an image, as CSV, JSON Lines or Parquet, without torch.

An image that cannot be read gives a row with its reason, and never stops the others. A file is written whole or not at
all.
"""

import csv
import json
import os
import sys
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, ClassVar, TextIO

import numpy as np

from lensmith.config import PredictSettings
from lensmith.core.files import atomic_path
from lensmith.core.junk import count_junk, describe_junk
from lensmith.core.packages import require_packages
from lensmith.core.progress import track
from lensmith.core.result import Result
from lensmith.core.text import listed
from lensmith.errors import DataError, OutputError, SettingsError
from lensmith.imaging.formats import SUFFIXES
from lensmith.inference.classifier import Prediction, load

PARQUET_ROWS = 10_000
"""Rows in a row group, which is collected in memory before it is written."""

_FORMATS = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


@dataclass(frozen=True)
class Predicted(Result):
    """The result of a batch prediction.

    Attributes:
        images: number of rows.
        unreadable: number of rows with an error instead of an answer.
        abstained: number of rows whose confidence is below the bundle's abstention threshold.
        seconds: time between the first image and the last row written, in seconds.
        out: the file, or None where rows went to a stream or into `predictions`.
        predictions: the rows, where they went to neither a file nor a stream.
    """

    computed: ClassVar[tuple[str, ...]] = ("images_per_second",)

    images: int
    unreadable: int
    abstained: int
    seconds: float
    out: Path | None = None
    predictions: tuple[Prediction, ...] | None = None

    @property
    def images_per_second(self) -> float:
        """Throughput, on all cores allowed."""
        return round(self.images / self.seconds, 1) if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `predictions` only where there are some."""
        values = {**super().as_dict(), "seconds": round(self.seconds, 3)}
        return {name: value for name, value in values.items() if name != "predictions" or value is not None}


def predict(settings: PredictSettings, stream: TextIO | None = None) -> Predicted:
    """Classify images into `settings.out`, else into `stream`, else into the result.

    Args:
        settings: the bundle, the images and the output.
        stream: text stream for the rows, where there is no `settings.out`.

    Raises:
        BundleError: the bundle cannot be used.
        DataError: a folder without images, or not one image that can be read; then no file is written.
        SettingsError: Parquet into a stream, or a file name whose ending stands for no format, or for another one.
        OutputError: the output is a folder or a device.
    """
    out = _writable(settings.out) if settings.out else None
    form = _format(settings)
    if form == "parquet" and settings.out is None and stream is not None:
        arrived = "There is no --out, and Parquet is not text that could be printed."
        raise SettingsError("A file was expected for Parquet.", arrived, "Add --out FILE.parquet")
    if form == "parquet":
        require_packages("pyarrow")
    paths, total = _expand(settings.images)
    classifier = load(settings.bundle, settings.engine)
    top_k = min(settings.top_k, len(classifier.bundle.labels))
    counts: Counter[str] = Counter()
    first: Prediction | None = None

    def counted() -> Iterator[Prediction]:
        nonlocal first
        for prediction in classifier.stream(paths, top_k):
            counts.update(images=1, unreadable=int(prediction.error is not None), abstained=int(prediction.abstained))
            first = first or prediction
            yield prediction
        if first is not None and counts["images"] == counts["unreadable"]:
            # Raised here, so that no file of reasons replaces one of answers.
            raise _nothing_readable(counts["images"], first)

    # Rows and a moving bar on one terminal would spoil each other.
    shown = out is not None or stream is None or not stream.isatty()
    rows = track(counted(), "Classifying", total) if shown else counted()
    started = time.perf_counter()
    predictions = None
    if out is not None:
        with atomic_path(out) as partial:
            if form == "parquet":
                _write_parquet(rows, partial, top_k)
            else:
                with partial.open("w", encoding="utf-8", newline="") as file:
                    _write_text(rows, file, form, top_k)
    elif stream is not None:
        _write_text(rows, stream, form, top_k)
    else:
        predictions = tuple(rows)
    seconds = time.perf_counter() - started
    return Predicted(counts["images"], counts["unreadable"], counts["abstained"], seconds, settings.out, predictions)


def _format(settings: PredictSettings) -> str:
    """The output's format: the stated one, else that of the file's ending, else csv."""
    of_ending = _FORMATS.get(settings.out.suffix.lower()) if settings.out else "csv"
    if settings.format and (settings.out is None or of_ending in (None, settings.format)):
        return settings.format
    if of_ending is None or settings.format:
        wanted = f"{settings.format} was asked for" if settings.format else "no --format tells what to write"
        raise SettingsError(
            f"A file that ends in {listed(_FORMATS)} was expected for --out.",
            f"{settings.out} arrived, and {wanted}.",
            "Name the file by its format, or name the format with --format.",
        )
    return of_ending


def _nothing_readable(images: int, first: Prediction) -> DataError:
    return DataError(
        "Images that can be read were expected.",
        f"None of {images:,} can be; the first is {first.path}: {(first.error or '').rstrip('.')}.",
        "Name files that hold images, or a folder of them.",
    )


def _expand(inputs: Sequence[str]) -> tuple[Iterable[Path], int | None]:
    """Paths in the order given, and their number; None with `-`, as standard input is read line by line."""
    junk: Counter[str] = Counter()
    files = {
        name: _in_folder(Path(name), junk) if Path(name).is_dir() else [Path(name)] for name in inputs if name != "-"
    }
    if junk:
        print(describe_junk(junk), file=sys.stderr, flush=True)
    paths = chain.from_iterable(_from_stdin() if name == "-" else files[name] for name in inputs)
    return paths, None if "-" in inputs else sum(len(files[name]) for name in inputs)


def _in_folder(folder: Path, junk: Counter[str]) -> list[Path]:
    """Files below `folder` with an image's suffix, sorted; those of systems and programs are counted in `junk`."""
    files: list[Path] = []
    seen = set()
    tops = deque([str(folder)])
    while tops:
        for base, folders, names in os.walk(tops.popleft()):
            real = os.path.realpath(base)
            # Links may form a cycle, so each real folder counts once.
            folders[:] = (
                [] if real in seen else [each for each in folders if not count_junk(Path(base, each), True, junk)]
            )
            # Links come last, so that a folder has its own name, and not that of a link to it.
            tops += (str(Path(base, each)) for each in folders if Path(base, each).is_symlink())
            if real not in seen:
                files += (
                    Path(base, name)
                    for name in names
                    if Path(name).suffix.lower() in SUFFIXES
                    and not count_junk(Path(base, name), False, junk)
                    and not Path(base, name).is_fifo()  # reading a pipe would wait for ever
                )
            seen.add(real)
    if not files:
        raise DataError(
            f"Images were expected in {folder}.",
            f"No file under it ends in {', '.join(sorted(SUFFIXES))}.",
            "Give the folder that holds the images, or name the files.",
        )
    return sorted(files)


def _from_stdin() -> Iterator[Path]:
    return (Path(name) for line in sys.stdin if (name := line.rstrip("\r\n")))


def _writable(out: Path) -> Path:
    target = out.resolve()  # through links, so that a link stays one
    if target.exists() and not target.is_file():
        raise OutputError(
            f"A file to write was expected at {out}.",
            "A folder is there." if target.is_dir() else "A device or pipe is there.",
            "Name a file with --out, or leave --out away to print the rows.",
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _write_text(rows: Iterable[Prediction], stream: TextIO, form: str, top_k: int) -> None:
    if form == "jsonl":
        for row in rows:
            stream.write(json.dumps(row.as_dict()) + "\n")
    else:
        table = csv.writer(stream, lineterminator="\n")
        table.writerow(_columns(top_k))
        for row in rows:
            table.writerow(map(_text, _cells(row, top_k)))
    stream.flush()


def _write_parquet(rows: Iterable[Prediction], path: Path, top_k: int) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {"class_id": pa.int32(), "confidence": pa.float32(), "abstained": pa.bool_()}
    names = _columns(top_k)
    schema = pa.schema([(name, kinds.get(name.rstrip("_0123456789"), pa.string())) for name in names])
    remaining = iter(rows)
    with pq.ParquetWriter(path, schema) as file:
        while group := [_cells(row, top_k) for row in islice(remaining, PARQUET_ROWS)]:
            file.write_table(pa.table(list(map(list, zip(*group, strict=True))), schema=schema))


def _columns(top_k: int) -> list[str]:
    more = (f"{name}_{place}" for place in range(2, top_k + 1) for name in ("label", "confidence"))
    return ["path", "label", "class_id", "confidence", "abstained", "error", *more]


def _text(cell: Any) -> Any:
    if isinstance(cell, bool):
        return str(cell).lower()  # which more readers of CSV take for a truth value than Python's own
    # NumPy prints the fewest digits that give the same float32 back.
    return str(np.float32(cell)) if isinstance(cell, float) else cell


def _cells(row: Prediction, top_k: int) -> list[Any]:
    """One cell for each of `_columns`; None where an unreadable image has no answer."""
    # A file name need not be valid UTF-8; tables must be.
    path = os.fsencode(row.path or "").decode(errors="backslashreplace")
    more: list[Any] = [cell for ranked in row.top[1:] for cell in (ranked.label, ranked.confidence)]
    missing = [None] * (2 * top_k - 2 - len(more))
    return [path, row.label, row.class_id, row.confidence, row.abstained, row.error, *more, *missing]
