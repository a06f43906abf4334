"""Benchmark of a bundle's engines on this machine: latency, throughput and memory, measured in a helper process.

A helper process has no idle threads of torch, shows how much memory the engine takes, and may crash.
"""

import base64
import statistics
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any, Self

import psutil
from pydantic import TypeAdapter

from lensmith.bundle.format import EngineRecord
from lensmith.core.helper_process import HelperError, answer_request, run_helper
from lensmith.core.machine import allowed_cores
from lensmith.core.progress import track
from lensmith.core.text import first_line
from lensmith.errors import BundleError
from lensmith.imaging.preprocessing import Preprocessing, preprocess
from lensmith.inference.engine import open_graph

LATENCY_S, THROUGHPUT_S = 0.8, 1.6
LIMIT_S = 300.0
"""Time limit of one measurement: an engine that takes longer to load and answer some images is of no use."""
RIVAL = 0.75
"""Engines from this share of the fastest one's speed on are measured twice: a busy machine may disturb one time."""


@dataclass(frozen=True)
class Speed:
    """Measurements of one engine.

    Attributes:
        latency_ms: median time of one image alone on one core, from its bytes to the answer, in milliseconds.
        images_per_second: throughput from bytes to answers, one image a core at a time, on all cores allowed.
        load_s: time from the files to the first answer, in seconds.
        memory_bytes: growth of the process's resident memory.
    """

    latency_ms: float
    images_per_second: float
    load_s: float
    memory_bytes: int

    def better(self, other: Self) -> Self:
        """The better of two measurements, value by value: a disturbance only makes them worse."""
        return type(self)(
            min(self.latency_ms, other.latency_ms),
            max(self.images_per_second, other.images_per_second),
            min(self.load_s, other.load_s),
            min(self.memory_bytes, other.memory_bytes),
        )


def measure_all(
    folder: Path, records: Sequence[EngineRecord], how: Preprocessing, images: Sequence[bytes]
) -> list[EngineRecord]:
    """Measure engines, the fastest ones twice; the record of one that does not run has the reason and no speed.

    Args:
        folder: folder of the graphs.
        records: engines to measure; each has a graph.
        how: preprocessing of the images.
        images: encoded images, taken in turn.

    Returns:
        The records with their measurements, in the same order.
    """
    found: dict[str, Speed] = {}
    failed: dict[str, str] = {}

    def measure_once(record: EngineRecord) -> None:
        try:
            speed = measure(folder / str(record.graph), record, how, images)
            found[record.name] = speed.better(found[record.name]) if record.name in found else speed
        except BundleError as error:
            failed[record.name] = error.arrived

    for record in track(records, "Measuring", len(records)):
        measure_once(record)
    fastest = max((speed.images_per_second for speed in found.values()), default=0.0)
    rivals = [r for r in records if r.name in found and found[r.name].images_per_second >= RIVAL * fastest]
    for record in track(rivals if len(rivals) > 1 else [], "Measuring the fastest again"):
        measure_once(record)
    return [
        record.model_copy(update=asdict(found[record.name]))
        if record.name in found
        else record.model_copy(update={"images_per_second": None, "latency_ms": None, "why": failed[record.name]})
        for record in records
    ]


def measure(graph: Path, record: EngineRecord, how: Preprocessing, images: Sequence[bytes]) -> Speed:
    """Measure one engine in a helper process, which takes some seconds.

    Args:
        graph: the graph's file.
        record: engine and precision.
        how: preprocessing of the images.
        images: encoded images, taken in turn.

    Raises:
        BundleError: the engine does not load or run; the error has the engine's message.
    """
    encoded = [base64.b64encode(image).decode() for image in images]
    request = {"graph": str(graph), "engine": record.engine, "precision": record.precision, "how": asdict(how)}
    try:
        return Speed(**run_helper("lensmith.inference.benchmark", {**request, "images": encoded}, LIMIT_S))
    except HelperError as error:
        raise BundleError(
            f"{record.name} was expected to run {graph.name} in a process of its own.",
            f"{first_line(error)}.",
            "Leave that engine out, or see what `lensmith doctor` says of it.",
        ) from error


def _measure_here(graph: str, engine: str, precision: str, how: Preprocessing, images: Sequence[bytes]) -> Speed:
    """Measure in this process."""
    process = psutil.Process()
    before = process.memory_info().rss
    started = time.perf_counter()
    opened = open_graph(graph, engine, precision, threads=1)

    def answer(image: bytes) -> None:
        opened.run(preprocess(image, how)[None])

    answer(images[0])
    load_s = time.perf_counter() - started
    cores = allowed_cores()
    with ThreadPoolExecutor(cores) as pool:
        list(pool.map(answer, islice(cycle(images), 2 * cores)))  # warms up each thread
        times: list[float] = []
        end = time.perf_counter() + LATENCY_S
        while len(times) < 5 or time.perf_counter() < end:
            started = time.perf_counter()
            answer(images[len(times) % len(images)])
            times.append(time.perf_counter() - started)
        started = time.perf_counter()
        end = started + THROUGHPUT_S

        def work(first: int) -> int:
            done = 0
            while time.perf_counter() < end:
                answer(images[(first + done) % len(images)])
                done += 1
            return done

        done = sum(pool.map(work, range(cores)))
        images_per_second = done / (time.perf_counter() - started)
    memory_bytes = max(0, process.memory_info().rss - before)
    return Speed(round(1e3 * statistics.median(times), 3), round(images_per_second, 2), round(load_s, 3), memory_bytes)


def _answer(request: dict[str, Any]) -> dict[str, float]:
    """The helper process's work: the request of `measure` → fields of a `Speed`."""
    request["how"] = TypeAdapter(Preprocessing).validate_python(request["how"])
    request["images"] = [base64.b64decode(image) for image in request["images"]]
    return asdict(_measure_here(**request))


if __name__ == "__main__":
    answer_request(_answer)
