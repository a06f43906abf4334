"""Thread pools that classify images: the queue of jobs, and run-to-completion on one thread per core.

`Pool` is the interface of both execution modes. `ThreadPool` runs each image to completion on one thread, alone or in a
small batch of what is queued; this measured fastest on CPUs. `dynamic_batcher.DynamicBatcher` decodes on all cores and
feeds one executor with batches. In both, an idle thread takes what is queued at once; there are no timers.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from queue import Empty, SimpleQueue

import numpy as np

from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction

SMOOTHING = 0.1
"""Weight of the newest time in the running mean of times."""

OUTLIER = 4.0
"""A time counts for at most so many times the mean."""


class ExpiredError(Exception):
    """An image whose deadline passed while it waited; it was not worked on."""


class Job:
    """One image on its way to an answer.

    Args:
        model: answers.
        image: encoded bytes, or float32 (3, S, S) that is prepared already.
        top_k: classes to name.
        deadline: `time.perf_counter()` after which nobody waits for the answer any more.
    """

    __slots__ = ("abandoned", "answer", "deadline", "image", "loop", "model", "queued", "taken", "top_k")

    def __init__(self, model: LoadedModel, image: bytes | Tensor, top_k: int, deadline: float = math.inf) -> None:
        self.model = model
        self.image: bytes | Tensor | None = image
        self.top_k = top_k
        self.deadline = deadline
        self.loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[TimedPrediction] = self.loop.create_future()
        self.queued = time.perf_counter()
        self.abandoned = self.taken = False  # of which at most one becomes true, under the pool's lock

    def prepared(self) -> Tensor:
        """float32 (3, S, S)."""
        image, self.image = self.image, None  # the bytes are of no use any more, and may be many
        return self.model.prepare(image) if isinstance(image, bytes) else np.asarray(image)


class Pool(ABC):
    """Threads behind a queue. Jobs are submitted from event loops; one that is cancelled gives its place back.

    Attributes:
        threads: images worked on at once.
        running: images that a thread has taken and not answered yet: in a `ThreadPool` at most `max_batch` per thread,
            in a `DynamicBatcher` those being decoded, ready for a batch, and in one.
        waiting: images that wait for a thread.
        max_batch: images answered together at most.
    """

    threads: int
    max_batch: int

    def __init__(self) -> None:
        self.running = 0
        self.waiting = 0
        self._image_s = 0.0
        self._counting = threading.Lock()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._all: list[threading.Thread] = []

    @property
    def image_s(self) -> float:
        """Seconds that a thread (of a batcher: its executor) is busy with one image, as a running mean; 0 before the
        first.
        """
        return self._image_s

    def set_estimate(self, image_s: float) -> None:
        """Begin with a measured time in the place of none."""
        self._image_s = image_s

    def predicted_s(self, ahead: int = 0) -> float:
        """Seconds until an image that came now would be answered, with `ahead` more before it."""
        behind = self.waiting + self.running + ahead - self.threads + 1
        # It is answered with those that its thread takes together with it.
        together = min(self.max_batch, 1 + (self.waiting + ahead) // self.threads)
        return (max(0, behind) / self.threads + together) * self._image_s

    def idle(self) -> bool:
        """Whether an image that came now would be worked on at once."""
        return self.waiting + self.running < self.threads

    def submit(self, job: Job) -> asyncio.Future[TimedPrediction]:
        """Queue a job; its answer raises what the work raised, or `ExpiredError`."""
        with self._counting:
            self.waiting += 1
        job.answer.add_done_callback(lambda answer: self._abandon(job) if answer.cancelled() else None)
        self._queue.put(job)
        return job.answer

    def close(self) -> None:
        """Take no more jobs; those that run and wait go on to their end."""
        for _ in self._all:
            self._queue.put(None)

    def _start(self, target: Callable[[], None], count: int, name: str) -> None:
        for number in range(count):
            thread = threading.Thread(target=target, name=f"{name}-{number}", daemon=True)
            thread.start()
            self._all.append(thread)

    def _take(self, job: Job) -> bool:
        """Whether a job that came to the head of the queue is still to be done."""
        with self._counting:
            if job.abandoned:
                return False
            job.taken = True
            self.waiting -= 1
            expired = time.perf_counter() > job.deadline
            self.running += not expired
        if expired:
            _post(job, ExpiredError())
        return not expired

    def _done(self, job: Job, result: TimedPrediction | BaseException) -> None:
        with self._counting:
            self.running -= 1
        _post(job, result)

    def _took(self, seconds: float) -> None:
        """Note the time of one image."""
        self._image_s = running_mean(self._image_s, seconds)

    def _abandon(self, job: Job) -> None:
        with self._counting:
            if not job.taken:
                job.abandoned, job.image = True, None
                self.waiting -= 1

    @abstractmethod
    def describe(self) -> str:
        """How images are worked on, in words."""

    @abstractmethod
    def warm(self, model: LoadedModel) -> None:
        """Have a model run as it will be run here, so that its first requests take no longer than later ones.

        It takes the caller's time, and goes beside what is being answered.
        """


class ThreadPool(Pool):
    """Run to completion: each thread takes images from their bytes to their answers.

    Args:
        threads: images worked on at once.
        max_batch: images that one thread answers together at most, where so many wait for each thread.
    """

    def __init__(self, threads: int, max_batch: int = 1) -> None:
        super().__init__()
        self.threads = threads
        self.max_batch = max_batch
        self._start(self._work, threads, "worker")

    def describe(self) -> str:
        """See `Pool.describe`."""
        together = f", up to {self.max_batch} images together" if self.max_batch > 1 else ""
        return f"run to completion on {self.threads} thread{'s' * (self.threads > 1)}{together}"

    def warm(self, model: LoadedModel) -> None:
        """See `Pool.warm`: twice on as many threads at once, alone and in the largest batch."""
        prepared = model.prepare(model.sample())
        batches = [prepared[None].repeat(size, axis=0) for size in {1, self.max_batch}]
        with ThreadPoolExecutor(self.threads) as others:  # they are as polite as the caller
            for batch in 2 * batches:
                for done in [others.submit(model.infer, batch) for _ in range(self.threads)]:
                    done.result()

    def _work(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Answer what waits, or wait for it; whether to go on.

        A call of its own for each, so that a thread that waits holds on to no image, and to no model.
        """
        job = self._queue.get()
        if job is None:
            return False
        if not self._take(job):
            return True
        jobs = [job]
        # A fair share of what waits, so that the other threads find some, too.
        for _ in range(min(self.max_batch - 1, self.waiting // self.threads)):
            try:
                other = self._queue.get_nowait()
            except Empty:
                break
            if other is None:
                self._queue.put(None)
                break
            if self._take(other):
                jobs.append(other)
        started = time.perf_counter()
        answer(jobs, self._done)
        self._took((time.perf_counter() - started) / len(jobs))
        return True


def answer(jobs: Sequence[Job], done: Callable[[Job, TimedPrediction | BaseException], None]) -> None:
    """Decode and answer jobs in the caller's thread; one that fails fails alone."""
    for model, ours in by_model(jobs):
        ready: list[tuple[Job, Tensor, float, float]] = []
        for job in ours:
            started = time.perf_counter()
            try:
                prepared = job.prepared()
            except BaseException as error:
                done(job, error)
            else:
                ready.append((job, prepared, started - job.queued, time.perf_counter() - started))
        infer(model, ready, done)


def infer(
    model: LoadedModel,
    ready: Sequence[tuple[Job, Tensor, float, float]],
    done: Callable[[Job, TimedPrediction | BaseException], None],
) -> None:
    """Answer prepared jobs, each with the seconds that it waited and was decoded in, in one run of the engine."""
    if not ready:
        return
    started = time.perf_counter()
    results: list[TimedPrediction | BaseException]
    try:
        batch = ready[0][1][None] if len(ready) == 1 else np.stack([prepared for _, prepared, _, _ in ready])
        rows, features = model.infer_with_features(batch)
        took = time.perf_counter() - started
    except BaseException as error:
        results = [error] * len(ready)
    else:
        results = []
        of_each = itertools.repeat(None, len(ready)) if features is None else features
        for (job, _, waited, decoded), row, taken in zip(ready, rows, of_each, strict=True):
            try:
                results.append(TimedPrediction(model.rank(row, job.top_k), decoded, took, waited, len(ready), taken))
            except BaseException as error:
                results.append(error)
    for (job, *_), result in zip(ready, results, strict=True):
        done(job, result)


def running_mean(known: float, seconds: float) -> float:
    """A mean of times with one more; a `known` of 0 is none."""
    # One image that took very long, as when the machine stalled, says little of the next.
    return known + SMOOTHING * (min(seconds, OUTLIER * known) - known) if known else seconds


def by_model(jobs: Sequence[Job]) -> list[tuple[LoadedModel, list[Job]]]:
    """Jobs sorted by what answers them."""
    groups: dict[int, tuple[LoadedModel, list[Job]]] = {}
    for job in jobs:
        groups.setdefault(id(job.model), (job.model, []))[1].append(job)
    return list(groups.values())


def _post(job: Job, result: TimedPrediction | BaseException) -> None:
    with suppress(RuntimeError):  # the loop ended while the image was worked on: nobody waits
        job.loop.call_soon_threadsafe(_resolve, job.answer, result)


def _resolve(future: asyncio.Future[TimedPrediction], result: TimedPrediction | BaseException) -> None:
    if future.done():  # cancelled: the client left while its image was worked on
        return
    if isinstance(result, BaseException):
        future.set_exception(result)
    else:
        future.set_result(result)
