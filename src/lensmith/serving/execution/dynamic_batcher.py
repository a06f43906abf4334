"""Work-conserving batching: an executor that becomes free takes whatever is ready, up to a ceiling, at once.

No timer holds a batch back to fill it: an idle executor answers one image alone, and a busy one finds the more images
ready the busier it is. For GPUs, where a batch takes little longer than one image, and decoding is the cores' work.
"""

from __future__ import annotations

import math
import time
from queue import Empty, SimpleQueue

from lensmith.imaging.preprocessing import Tensor
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import ExpiredError, Job, Pool, by_model, infer, running_mean

Ready = tuple[Job, Tensor, float, float]


class DynamicBatcher(Pool):
    """Threads that decode, and one that runs the engine on batches.

    Args:
        decoders: images decoded at once.
        max_batch: images in a batch at most.
    """

    threads = 1

    def __init__(self, decoders: int, max_batch: int) -> None:
        super().__init__()
        self.max_batch = max_batch
        self._decoders = decoders
        self._decoding = 0
        self._decode_s = 0.0
        # Of a batch of so many, in times of an image alone. Only `image_s` is learnt anew from each batch, whatever its
        # size: times of their own for each would have that of a size that seems slow, and is let in no more, stay so.
        self._costs = [float(size) for size in range(max_batch + 1)]
        self._measured = False
        self._ready: SimpleQueue[Ready | None] = SimpleQueue()
        self._start(self._decode, decoders, "decoder")
        self._start(self._execute, 1, "executor")

    def describe(self) -> str:
        """See `Pool.describe`."""
        return f"batches of up to {self.max_batch} images, decoded on {self._decoders} threads"

    def warm(self, model: LoadedModel) -> None:
        """See `Pool.warm`: every size of batch. The first model is run twice, to learn how long each takes."""
        prepared = model.prepare(model.sample())
        times = []
        for size in range(1, self.max_batch + 1):
            batch = prepared[None].repeat(size, axis=0)
            model.infer(batch)
            if not self._measured:
                started = time.perf_counter()
                model.infer(batch)
                times.append(time.perf_counter() - started)
        if not self._measured:
            self._measured = True
            times = plausible(times)
            self._costs = [0.0, *(each / times[0] for each in times)]
            self.set_estimate(times[0])

    def set_estimate(self, image_s: float, decode_s: float = 0.0) -> None:
        """See `Pool.set_estimate`.

        Args:
            image_s: of the executor with an image alone.
            decode_s: of a decoder with an image, while all decode; 0: not known.
        """
        super().set_estimate(image_s)
        self._decode_s = decode_s

    def predicted_s(self, ahead: int = 0) -> float:
        """See `Pool.predicted_s`: by what takes longer, decoding those before or answering them."""
        undecoded = self.waiting + self._decoding + ahead - self._decoders + 1
        decoded_s = (max(0, undecoded) / self._decoders + 1.0) * self._decode_s
        # The batch under way, full batches for those before, and its own.
        full, rest = divmod(self.waiting + self.running + ahead, self.max_batch)
        batches_s = full * self.batch_s(self.max_batch) + self.batch_s(rest + 1)
        return max(batches_s, decoded_s + self.batch_s(1))

    def batch_s(self, size: int) -> float:
        """Seconds that a batch of so many is expected to take."""
        return self._costs[size] * self.image_s

    def close(self) -> None:
        """See `Pool.close`."""
        for _ in range(self._decoders):
            self._queue.put(None)

    def _decode(self) -> None:
        while self._decode_next():
            pass
        self._ready.put(None)

    def _decode_next(self) -> bool:
        """Decode the next queued image, or wait for one; False: stop. A call of its own as `ThreadPool._next` is."""
        job = self._queue.get()
        if job is None:
            return False
        if not self._take(job):
            return True
        self._decodes(1)
        started = time.perf_counter()
        try:
            prepared = job.prepared()
        except BaseException as error:
            self._done(job, error)
        else:
            self._ready.put((job, prepared, started - job.queued, time.perf_counter() - started))
        self._decodes(-1)
        self._decode_s = running_mean(self._decode_s, time.perf_counter() - started)
        return True

    def _decodes(self, more: int) -> None:
        with self._counting:
            self._decoding += more

    def _execute(self) -> None:
        ended = 0
        while ended < self._decoders:
            ended += self._execute_next()

    def _execute_next(self) -> int:
        """Answer what is ready, or wait for it; how many decoders have ended by what came. See `ThreadPool._next`."""
        ready: list[Ready] = []
        ended = 0
        each = self._ready.get()
        while True:
            if each is None:
                ended += 1
            elif self._wanted(each[0]):
                ready.append(each)
            if len(ready) == self.max_batch:
                break
            try:
                each = self._ready.get_nowait()
            except Empty:
                break
        of_job = {id(each[0]): each for each in ready}
        for model, jobs in by_model([job for job, *_ in ready]):
            started = time.perf_counter()
            infer(model, [of_job[id(job)] for job in jobs], self._done)
            self._took((time.perf_counter() - started) / self._costs[len(jobs)])
        return ended

    def _wanted(self, job: Job) -> bool:
        """Whether a decoded image is still to be answered: it may have waited long for its batch."""
        if not job.answer.cancelled() and time.perf_counter() <= job.deadline:
            return True
        self._done(job, ExpiredError())  # which one that was cancelled does not hear
        return False


def plausible(times: list[float]) -> list[float]:
    """Times of batches of 1, 2, 3, … images without what a stall of the machine has added to single ones.

    A batch takes no longer than a larger one, nor than smaller ones that hold as many images one after another.
    """
    bounded: list[float] = []
    for size, _ in enumerate(times, start=1):
        smaller = (math.ceil(size / known) * took for known, took in enumerate(bounded, start=1))
        bounded.append(min([*times[size - 1 :], *smaller]))
    return bounded
