"""Jobs: one image each on its way through a pool, and the engine runs that classify several of them together."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from lensmith.bundle.image_hashes import file_hash
from lensmith.imaging.decode_cost import DecodeCost
from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction

Done = Callable[["Job", TimedPrediction | BaseException], None]
"""Called once with each job's result."""


class ExpiredError(Exception):
    """An image whose deadline passed while it waited, so that it was never classified."""


class Job:
    """One image to be classified, and the future of its result.

    Args:
        model: the model that classifies it.
        image: encoded bytes, or float32 (3, S, S), normalised.
        top_k: number of classes to name.
        deadline: `time.perf_counter()` in seconds, after which nobody waits for the answer any more.
        cost: cost of decoding a large image; None for any other.
    """

    __slots__ = (
        "abandoned", "answer", "cost", "deadline", "extra_s", "image", "loop", "model", "queued", "taken", "top_k",
    )  # fmt: skip

    def __init__(
        self,
        model: LoadedModel,
        image: bytes | Tensor,
        top_k: int,
        deadline: float = math.inf,
        cost: DecodeCost | None = None,
    ) -> None:
        self.model = model
        self.image: bytes | Tensor | None = image
        self.top_k = top_k
        self.deadline = deadline
        self.cost = cost
        self.extra_s = 0.0  # what its pool predicts for decoding it, where it is large
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[TimedPrediction] = self.loop.create_future()
        self.queued = time.perf_counter()
        self.abandoned = self.taken = False  # at most one becomes true, under the pool's lock

    def prepare(self) -> PreparedJob:
        """Decode the image in the caller's thread.

        Raises:
            ImageError: the image cannot be used.
        """
        started = time.perf_counter()
        image, self.image = self.image, None  # the bytes are not needed any more, and may be many
        prepared = self.model.prepare(image) if isinstance(image, bytes) else np.asarray(image)
        decode_s = time.perf_counter() - started
        hashed = file_hash(image) if isinstance(image, bytes) else None
        return PreparedJob(self, prepared, started - self.queued, decode_s, hashed)

    def post(self, result: TimedPrediction | BaseException) -> None:
        """Hand the result to the event loop, from any thread."""
        with suppress(RuntimeError):  # the loop was closed while the image was classified: nobody waits
            self.loop.call_soon_threadsafe(_resolve, self.answer, result)


@dataclass(frozen=True, slots=True)
class PreparedJob:
    """A job whose image is decoded.

    Attributes:
        job: the job.
        image: float32 (3, S, S), normalised.
        queue_s: seconds that it waited for a thread.
        decode_s: seconds from its encoded bytes to `image`.
        file_hash: hash of the bytes of its file; None for a tensor.
    """

    job: Job
    image: Tensor
    queue_s: float
    decode_s: float
    file_hash: int | None = None


def infer(prepared: Sequence[PreparedJob], done: Done) -> None:
    """Classify one or more prepared jobs of one model in one run of the engine; one that fails fails alone."""
    model = prepared[0].job.model
    results: list[TimedPrediction | BaseException] = []
    started = time.perf_counter()
    try:
        batch = prepared[0].image[None] if len(prepared) == 1 else np.stack([each.image for each in prepared])
        rows, features = model.infer_with_features(batch)
        inference_s = time.perf_counter() - started
    except BaseException as error:
        results = [error] * len(prepared)
    else:
        of_each = itertools.repeat(None, len(prepared)) if features is None else features
        for each, row, its_features in zip(prepared, rows, of_each, strict=True):
            try:
                prediction = model.rank(row, each.job.top_k)
            except BaseException as error:
                results.append(error)
            else:
                timing = each.decode_s, inference_s, each.queue_s, len(prepared)
                results.append(TimedPrediction(prediction, *timing, its_features, each.file_hash))
    for each, result in zip(prepared, results, strict=True):
        done(each.job, result)


def group_by_model(prepared: Sequence[PreparedJob]) -> list[list[PreparedJob]]:
    """Prepared jobs grouped by their models, each group in the order of the jobs."""
    groups: dict[int, list[PreparedJob]] = {}
    for each in prepared:
        groups.setdefault(id(each.job.model), []).append(each)
    return list(groups.values())


def _resolve(future: asyncio.Future[TimedPrediction], result: TimedPrediction | BaseException) -> None:
    if future.done():  # cancelled: the client left while its image was classified
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
