"""Work-conserving batching."""

import asyncio
import threading
import time
from pathlib import Path

import numpy as np

from lensmith.bundle import Bundle
from lensmith.classifier import Classifier
from lensmith.engine import FakeEngine
from lensmith.errors import ImageError
from lensmith.serve.work.batcher import Batcher
from lensmith.serve.work.model import Model
from lensmith.serve.work.workers import Job


def test_a_free_executor_takes_what_is_ready_at_once_and_never_more_than_the_ceiling(
    colour_bundle: Bundle, red_png: bytes
) -> None:
    sizes: list[int] = []
    begun, release = threading.Event(), threading.Event()

    def answer(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        begun.set()
        release.wait(5)
        return np.zeros((len(batch), 3), np.float32)

    async def scenario() -> None:
        pool = Batcher(decoders=2, max_batch=4)
        model = Model(Classifier(colour_bundle, FakeEngine(answer)), 10**8, Path("bundle"))
        first = pool.submit(Job(model, red_png, 1))  # alone: nothing waits for company
        await asyncio.to_thread(begun.wait, 5)
        others = [pool.submit(Job(model, red_png, 1)) for _ in range(6)]
        while pool.waiting:  # until all are decoded, or being so
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.1)
        release.set()
        found = await asyncio.gather(first, *others)
        assert {each.batch for each in found} == {1, 4, 2}
        pool.close()

    asyncio.run(scenario())
    assert sizes == [1, 4, 2]


def test_an_image_that_cannot_be_read_takes_no_other_with_it(classifier: Classifier, red_png: bytes) -> None:
    async def scenario() -> None:
        pool, model = Batcher(decoders=2, max_batch=8), Model(classifier, 10**8, Path("bundle"))
        images = (red_png, b"nothing", red_png)
        found = await asyncio.gather(*(pool.submit(Job(model, each, 1)) for each in images), return_exceptions=True)
        assert isinstance(found[1], ImageError)
        assert [each.prediction.label for each in (found[0], found[2])] == ["red", "red"]  # type: ignore[union-attr]
        assert (pool.running, pool.waiting) == (0, 0)
        pool.close()

    asyncio.run(scenario())


def test_what_is_predicted_counts_batches_and_not_images(colour_bundle: Bundle) -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.02)  # whatever the batch
        return np.zeros((len(batch), 3), np.float32)

    async def scenario() -> None:
        pool = Batcher(decoders=1, max_batch=4)
        pool.warm(Model(Classifier(colour_bundle, FakeEngine(answer)), 10**8, Path("bundle")))
        alone, behind_8 = pool.predicted_s(), pool.predicted_s(ahead=8)
        assert alone >= 0.02
        assert 0.06 <= behind_8 < 8 * alone
        pool.close()

    asyncio.run(scenario())
