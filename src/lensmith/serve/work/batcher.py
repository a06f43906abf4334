"""Work-conserving batching: an executor that becomes free takes whatever is ready, up to a ceiling, at once.

No timer holds a batch back to fill it: an idle executor answers one image alone, and a busy one finds the more images
ready the busier it is. For GPUs, where a batch takes little longer than one image, and decoding is the cores' work.
"""

from __future__ import annotations

import time
from queue import Empty, SimpleQueue

from lensmith.image import Tensor
from lensmith.serve.work.model import Model
from lensmith.serve.work.workers import SMOOTHING, Job, Pool, by_model, infer

Ready = tuple[Job, Tensor, float, float]


class Batcher(Pool):
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
        self._batch_s: dict[int, float] = {}
        self._ready: SimpleQueue[Ready | None] = SimpleQueue()
        self._start(self._decode, decoders, "decoder")
        self._start(self._execute, 1, "executor")

    def describe(self) -> str:
        """See `Pool.describe`."""
        return f"batches of up to {self.max_batch} images, decoded on {self._decoders} threads"

    def warm(self, model: Model) -> None:
        """Run every batch size once to make it ready, and once more to learn how long it takes."""
        prepared = model.prepare(model.sample())
        for size in range(1, self.max_batch + 1):
            batch = prepared[None].repeat(size, axis=0)
            model.infer(batch)
            started = time.perf_counter()
            model.infer(batch)
            self._batch_s[size] = time.perf_counter() - started

    def predicted_s(self, ahead: int = 0) -> float:
        """See `Pool.predicted_s`: the batch under way, full batches for those before, and its own."""
        full, rest = divmod(self.waiting + self.running + ahead, self.max_batch)
        return full * self._seconds(self.max_batch) + self._seconds(rest + 1)

    def close(self) -> None:
        """See `Pool.close`."""
        for _ in range(self._decoders):
            self._queue.put(None)

    def _seconds(self, size: int) -> float:
        """Of a batch of so many, or what the nearest size that has been run lets expect."""
        if size in self._batch_s or not self._batch_s:
            return self._batch_s.get(size, self._image_s * size)
        nearest = min(self._batch_s, key=lambda known: abs(known - size))
        return self._batch_s[nearest] * max(1.0, size / nearest)

    def _decode(self) -> None:
        while (job := self._queue.get()) is not None:
            if not self._take(job):
                continue
            started = time.perf_counter()
            try:
                prepared = job.prepared()
            except BaseException as error:
                self._done(job, error)
            else:
                self._ready.put((job, prepared, started - job.queued, time.perf_counter() - started))
        self._ready.put(None)

    def _execute(self) -> None:
        open_decoders = self._decoders
        while open_decoders:
            batch = [self._ready.get()]
            while len(batch) < self.max_batch:
                try:
                    batch.append(self._ready.get_nowait())
                except Empty:
                    break
            ready = [each for each in batch if each is not None]
            open_decoders -= len(batch) - len(ready)
            of_job = {id(each[0]): each for each in ready}
            for model, jobs in by_model([each[0] for each in ready]):
                started = time.perf_counter()
                infer(model, [of_job[id(job)] for job in jobs], self._done)
                took = time.perf_counter() - started
                known = self._batch_s.get(len(jobs), took)
                self._batch_s[len(jobs)] = known + SMOOTHING * (took - known)
                self._took(took / len(jobs))
