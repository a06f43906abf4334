"""Dynamic batching, work-conserving: an executor that becomes free takes whatever is ready, up to a ceiling, at once.

No timer delays a batch to fill it: an idle executor answers one image alone, and the busier it is, the more images it
finds ready. For GPUs, where a batch takes little longer than one image, and the cores decode.
"""

import math
import time
from queue import Empty, SimpleQueue

from lensmith.imaging.decode_cost import DecodeCost
from lensmith.serving.execution.job import ExpiredError, PreparedJob, group_by_model, infer
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool, running_mean


class DynamicBatcher(Pool):
    """Threads that decode, and one executor that runs the engine on batches.

    Args:
        decoders: number of images decoded at once.
        max_batch: largest number of images in a batch.
    """

    def __init__(self, decoders: int, max_batch: int) -> None:
        super().__init__(1, max_batch)
        self._decoders = decoders
        self._decoding = 0
        self._decode_s = 0.0
        # Cost of a batch of each size, in multiples of an image alone. Only `image_s` is learnt anew from each batch,
        # whatever its size: with a time of its own, a size that once seemed slow would be admitted no more, and so
        # never be measured again.
        self._costs = [float(size) for size in range(max_batch + 1)]
        self._is_measured = False
        self._ready: SimpleQueue[PreparedJob | None] = SimpleQueue()
        self._start(self._decode, decoders, "decoder")
        self._start(self._execute, 1, "executor")

    def describe(self) -> str:
        """See `Pool.describe`."""
        return f"batches of up to {self.max_batch} images, decoded on {self._decoders} threads"

    def warm(self, model: LoadedModel) -> None:
        """See `Pool.warm`: every size of batch. The first model is run twice, to measure how long each size takes."""
        prepared = model.prepare(model.sample())
        times = []
        for size in range(1, self.max_batch + 1):
            batch = prepared[None].repeat(size, axis=0)
            model.infer(batch)
            if not self._is_measured:
                started = time.perf_counter()
                model.infer(batch)
                times.append(time.perf_counter() - started)
        if not self._is_measured:
            self._is_measured = True
            times = without_stalls(times)
            self._costs = [0.0, *(each / times[0] for each in times)]
            self.set_estimate(times[0])

    def set_estimate(self, image_s: float, decode_s: float = 0.0) -> None:
        """See `Pool.set_estimate`.

        Args:
            image_s: seconds that the executor takes for an image alone.
            decode_s: seconds that a decoder takes for an image while all decode; 0: unknown.
        """
        super().set_estimate(image_s)
        self._decode_s = decode_s

    def predicted_s(self, ahead: int = 0, cost: DecodeCost | None = None) -> float:
        """See `Pool.predicted_s`: the longer of decoding the images before, and of answering them."""
        undecoded = self.waiting + self._decoding + ahead - self._decoders + 1
        decoded_s = (max(0, undecoded) / self._decoders + 1.0) * self._decode_s + self.decode_times.predicted_s(cost)
        if undecoded > 0:
            decoded_s += self._pending_extra_s() * undecoded / (undecoded + self._decoders - 1) / self._decoders
        # The running batch, full batches for those before, and its own.
        full, rest = divmod(self.waiting + self.running + ahead, self.max_batch)
        batches_s = full * self.batch_s(self.max_batch) + self.batch_s(rest + 1)
        return max(batches_s, decoded_s + self.batch_s(1))

    def batch_s(self, size: int) -> float:
        """Predicted seconds that a batch of `size` images takes."""
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
        self._count_decoding(1)
        started = time.perf_counter()
        try:
            self._ready.put(job.prepare())
        except BaseException as error:
            self._done(job, error)
        self._count_decoding(-1)
        took = time.perf_counter() - started
        with self._counting:
            self._large.pop(job, None)  # the executor, which it waits for now, takes no longer for it
        if job.cost is None:
            self._decode_s = running_mean(self._decode_s, took)
        else:
            self.decode_times.note(job.cost, took)
        return True

    def _count_decoding(self, change: int) -> None:
        with self._counting:
            self._decoding += change

    def _execute(self) -> None:
        ended = 0
        while ended < self._decoders:
            ended += self._execute_next()

    def _execute_next(self) -> int:
        """Classify what is ready, or wait for it; returns how many decoders have ended meanwhile."""
        ready: list[PreparedJob] = []
        ended = 0
        each = self._ready.get()
        while True:
            if each is None:
                ended += 1
            elif self._is_wanted(each):
                ready.append(each)
            if len(ready) == self.max_batch:
                break
            try:
                each = self._ready.get_nowait()
            except Empty:
                break
        for group in group_by_model(ready):
            started = time.perf_counter()
            infer(group, self._done)
            self._note_time((time.perf_counter() - started) / self._costs[len(group)])
        return ended

    def _is_wanted(self, prepared: PreparedJob) -> bool:
        """Whether a decoded image is still to be classified: it may have waited long for its batch."""
        job = prepared.job
        if not job.answer.cancelled() and time.perf_counter() <= job.deadline:
            return True
        self._done(job, ExpiredError())  # a cancelled job ignores it
        return False


def without_stalls(times: list[float]) -> list[float]:
    """Times of batches of 1, 2, 3, … images, in seconds, without what a stall of the machine has added to some.

    A batch takes no longer than a larger one, nor than smaller ones that hold as many images one after another.
    """
    bounded: list[float] = []
    for size, _ in enumerate(times, start=1):
        smaller = (math.ceil(size / known) * took for known, took in enumerate(bounded, start=1))
        bounded.append(min([*times[size - 1 :], *smaller]))
    return bounded
