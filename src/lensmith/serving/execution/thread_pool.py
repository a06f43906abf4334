"""Thread pools that classify images: a queue of jobs, and run-to-completion on one thread per core.

`Pool` is the interface of both execution modes. `ThreadPool` runs each image to completion on one thread, alone or in a
small batch of what is queued; this measured fastest on CPUs. `dynamic_batcher.DynamicBatcher` decodes on all cores and
feeds one executor with batches. In both, an idle thread takes what is queued at once; there are no timers.
"""

import asyncio
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import Empty, SimpleQueue

from lensmith.imaging.decode_cost import DecodeCost
from lensmith.serving.execution.decode_times import DecodeTimes
from lensmith.serving.execution.job import ExpiredError, Job, PreparedJob, group_by_model, infer
from lensmith.serving.execution.loaded_model import LoadedModel, TimedPrediction

SMOOTHING = 0.1
"""Weight of the newest time in the running mean of times."""
OUTLIER = 4.0
"""A time counts for at most so many times the mean."""


class Pool(ABC):
    """Threads behind a queue. Jobs are submitted from event loops; one that is cancelled leaves the queue.

    Attributes:
        threads: number of images classified at once.
        max_batch: largest number of images in one run of the engine.
        running: images that a thread has taken and not answered yet: in a `ThreadPool` at most `max_batch` per thread,
            in a `DynamicBatcher` those being decoded, ready for a batch, and in one.
        waiting: images that wait for a thread.
        image_s: seconds that a thread (a batcher's executor) is busy with one image, as a running mean; 0 before the
            first. Decoding large pictures is not part of it.
        decode_times: what decoding a large picture takes.
    """

    def __init__(self, threads: int, max_batch: int) -> None:
        self.threads = threads
        self.max_batch = max_batch
        self.running = 0
        self.waiting = 0
        self.image_s = 0.0
        self.decode_times = DecodeTimes()
        self._extra_waiting_s = 0.0
        self._large: dict[Job, float] = {}  # large pictures that a thread has taken → when
        self._counting = threading.Lock()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()

    def set_estimate(self, image_s: float) -> None:
        """Set the time of one image, in seconds, as it was measured before the first request."""
        self.image_s = image_s

    def predicted_s(self, ahead: int = 0, cost: DecodeCost | None = None) -> float:
        """Predicted seconds until an image that arrived now would be answered.

        Args:
            ahead: further images before it.
            cost: cost of decoding it, where it is large.
        """
        before = self.waiting + self.running + ahead
        behind = before - self.threads + 1
        # It is answered together with those that its thread takes with it.
        together = min(self.max_batch, 1 + (self.waiting + ahead) // self.threads)
        # Of the large pictures before it, those count that a thread must finish before one is free for it.
        extra_s = self._pending_extra_s() * behind / before / self.threads if behind > 0 else 0.0
        return (max(0, behind) / self.threads + together) * self.image_s + extra_s + self.decode_times.predicted_s(cost)

    def _pending_extra_s(self) -> float:
        """Seconds of decoding that are left of all large pictures, those that threads are busy with included."""
        if not self._large and not self._extra_waiting_s:
            return 0.0
        now = time.perf_counter()
        with self._counting:
            left = [max(0.0, job.extra_s - (now - taken)) for job, taken in self._large.items()]
            return self._extra_waiting_s + sum(left)

    def decoding_ahead_s(self) -> float:
        """Predicted seconds that all threads together still take to decode the large pictures that are here."""
        return self._pending_extra_s() / self.threads

    def idle(self) -> bool:
        """Whether a thread is free for an image that arrived now."""
        return self.waiting + self.running < self.threads

    def submit(self, job: Job) -> asyncio.Future[TimedPrediction]:
        """Queue a job; its future raises what decoding or the engine raised, or `ExpiredError`."""
        job.extra_s = self.decode_times.predicted_s(job.cost)
        with self._counting:
            self.waiting += 1
            self._extra_waiting_s += job.extra_s
        job.answer.add_done_callback(lambda answer: self._abandon(job) if answer.cancelled() else None)
        self._queue.put(job)
        return job.answer

    def close(self) -> None:
        """End the threads once the jobs that are queued have been answered."""
        for _ in range(self.threads):
            self._queue.put(None)

    def _start(self, target: Callable[[], None], count: int, name: str) -> None:
        for number in range(count):
            threading.Thread(target=target, name=f"{name}-{number}", daemon=True).start()

    def _take(self, job: Job) -> bool:
        """Whether a job from the head of the queue is still to be classified."""
        with self._counting:
            if job.abandoned:
                return False
            job.taken = True
            self._count_left(job)
            now = time.perf_counter()
            expired = now > job.deadline
            self.running += not expired
            if job.cost is not None and not expired:
                self._large[job] = now
        if expired:
            job.post(ExpiredError())
        return not expired

    def _done(self, job: Job, result: TimedPrediction | BaseException) -> None:
        with self._counting:
            self.running -= 1
            self._large.pop(job, None)
        job.post(result)

    def _count_left(self, job: Job) -> None:
        """Note that a job has left the queue; called under the lock."""
        self.waiting -= 1
        # Without a large picture it is exactly 0 again: differences of floats would add up.
        self._extra_waiting_s = self._extra_waiting_s - job.extra_s if self.waiting else 0.0

    def _note_time(self, seconds: float) -> None:
        """Update the running mean with the time of one image."""
        self.image_s = running_mean(self.image_s, seconds)

    def _abandon(self, job: Job) -> None:
        with self._counting:
            if not job.taken:
                job.abandoned, job.image = True, None
                self._count_left(job)

    @abstractmethod
    def describe(self) -> str:
        """The execution mode in words, for the log."""

    @abstractmethod
    def warm(self, model: LoadedModel) -> None:
        """Run a model as this pool will run it, so that its first requests take no longer than later ones.

        It runs in the caller's thread, beside what is being answered.
        """


class ThreadPool(Pool):
    """Run to completion: each thread takes images from their bytes to their answers.

    Args:
        threads: number of images classified at once.
        max_batch: largest number of images that one thread answers together, where so many wait for each thread.
    """

    def __init__(self, threads: int, max_batch: int = 1) -> None:
        super().__init__(threads, max_batch)
        self._start(self._work, threads, "classify")

    def describe(self) -> str:
        """See `Pool.describe`."""
        together = f", up to {self.max_batch} images together" if self.max_batch > 1 else ""
        return f"run to completion on {self.threads} thread{'s' * (self.threads > 1)}{together}"

    def warm(self, model: LoadedModel) -> None:
        """See `Pool.warm`: twice on as many threads at once, alone and in the largest batch."""
        prepared = model.prepare(model.sample())
        batches = [prepared[None].repeat(size, axis=0) for size in {1, self.max_batch}]
        with ThreadPoolExecutor(self.threads) as others:  # they inherit the caller's priority
            for batch in 2 * batches:
                for done in [others.submit(model.infer, batch) for _ in range(self.threads)]:
                    done.result()

    def _work(self) -> None:
        while self._next():
            pass

    def _next(self) -> bool:
        """Classify what waits, or wait for it; False: stop.

        A call of its own for each, so that a waiting thread holds no reference to an image or a model.
        """
        job = self._queue.get()
        if job is None:
            return False
        if not self._take(job):
            return True
        jobs = [job]
        # A fair share of what waits, so that the other threads also find some. Nobody waits for a large picture's sake.
        for _ in range(min(self.max_batch - 1, self.waiting // self.threads)):
            if jobs[-1].cost is not None:
                break
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
        prepared = self._prepare(jobs)
        for group in group_by_model(prepared):
            infer(group, self._done)
        took = time.perf_counter() - started
        for each in prepared:
            if each.job.cost is not None:
                self.decode_times.note(each.job.cost, each.decode_s)
                took -= each.decode_s
        self._note_time(took / len(jobs))
        return True

    def _prepare(self, jobs: list[Job]) -> list[PreparedJob]:
        """Decode jobs; one that fails does not fail the others."""
        prepared = []
        for job in jobs:
            try:
                prepared.append(job.prepare())
            except BaseException as error:
                self._done(job, error)
        return prepared


def running_mean(mean: float, seconds: float) -> float:
    """An exponential running mean of times with one more, in seconds; a `mean` of 0 is none yet."""
    # One image that took very long, as when the machine stalled, says little about the next.
    return mean + SMOOTHING * (min(seconds, OUTLIER * mean) - mean) if mean else seconds
