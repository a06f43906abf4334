"""Run to completion: threads behind a queue."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fixtures.serving import BlockingEngine, ModelOf, zeros
from lensmith.errors import ImageError
from lensmith.inference.classifier import Classifier
from lensmith.serving.execution.dynamic_batcher import DynamicBatcher
from lensmith.serving.execution.job import ExpiredError, Job
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool, ThreadPool

pytestmark = pytest.mark.anyio

EITHER_POOL = pytest.mark.parametrize("pool_class", [ThreadPool, DynamicBatcher])


async def test_a_job_gets_the_answer_that_the_classifier_gives(classifier: Classifier, red_png: bytes) -> None:
    pool = ThreadPool(threads=1)
    found = await pool.submit(Job(LoadedModel(classifier, 10**8, Path("b")), red_png, top_k=2))
    offline = classifier.classify(red_png, top_k=2)
    assert found.prediction.top == offline.top
    assert (found.batch, pool.running, pool.waiting) == (1, 0, 0)
    assert min(found.decode_s, found.inference_s, found.queue_s) > 0


async def test_a_prepared_tensor_is_answered_as_its_image_is(classifier: Classifier, red_png: bytes) -> None:
    pool, model = ThreadPool(threads=1), LoadedModel(classifier, 10**8, Path("b"))
    of_image = await pool.submit(Job(model, red_png, 3))
    of_tensor = await pool.submit(Job(model, model.prepare(red_png), 3))
    assert of_image.prediction.top == of_tensor.prediction.top


async def test_no_more_images_are_worked_on_at_once_than_there_are_threads(model_of: ModelOf, red_png: bytes) -> None:
    names: set[str] = set()
    most = 0
    pool = ThreadPool(threads=3)

    def answer(batch: np.ndarray) -> np.ndarray:
        nonlocal most
        names.add(threading.current_thread().name)
        most = max(most, pool.running)
        return zeros(batch)

    model = model_of(answer)
    await asyncio.gather(*(pool.submit(Job(model, red_png, 1)) for _ in range(100)))
    assert most <= 3
    assert all(name.startswith("classify") for name in names)


@EITHER_POOL
async def test_an_image_that_cannot_be_read_fails_alone(
    pool_class: Callable[..., Pool], model_of: ModelOf, red_png: bytes
) -> None:
    pool, model = pool_class(1, max_batch=4), model_of(zeros)
    jobs = [Job(model, image, 1) for image in (red_png, b"nothing", red_png)]
    found = await asyncio.gather(*map(pool.submit, jobs), return_exceptions=True)
    assert isinstance(found[1], ImageError)
    assert [each.prediction.class_id for each in (found[0], found[2])] == [0, 0]  # type: ignore[union-attr]
    assert (pool.running, pool.waiting) == (0, 0)


async def test_an_engine_that_fails_fails_its_images_and_the_threads_go_on(model_of: ModelOf, red_png: bytes) -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        if broken:
            raise RuntimeError("broken")
        return zeros(batch)

    broken = [True]
    pool, model = ThreadPool(threads=1), model_of(answer)
    with pytest.raises(RuntimeError, match="broken"):
        await pool.submit(Job(model, red_png, 1))
    broken.clear()
    assert (await pool.submit(Job(model, red_png, 1))).prediction.class_id == 0
    assert (pool.running, pool.waiting) == (0, 0)


async def test_an_image_whose_deadline_passed_while_it_waited_is_not_worked_on(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = ThreadPool(threads=1), model_of(blocking)
    running = pool.submit(Job(model, red_png, 1))
    await blocking.begun()
    late = pool.submit(Job(model, red_png, 1, deadline=time.perf_counter() - 1))
    in_time = pool.submit(Job(model, red_png, 1, deadline=time.perf_counter() + 60))
    blocking.release()
    with pytest.raises(ExpiredError):
        await late
    await asyncio.gather(running, in_time)
    assert blocking.sizes == [1, 1]
    assert (pool.running, pool.waiting) == (0, 0)


async def test_a_job_given_up_while_it_waits_frees_its_place_and_bytes_and_is_never_run(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = ThreadPool(threads=1), model_of(blocking)
    running = pool.submit(Job(model, red_png, 1))
    await blocking.begun()
    left = Job(model, red_png, 1)
    pool.submit(left).cancel()
    assert pool.waiting == 1
    await asyncio.sleep(0)  # asyncio tells the pool in its next turn
    assert (pool.running, pool.waiting, left.image) == (1, 0, None)
    blocking.release()
    await running
    assert blocking.sizes == [1]


async def test_a_job_given_up_while_it_runs_keeps_its_place_until_it_ends(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = ThreadPool(threads=1), model_of(blocking)
    running = pool.submit(Job(model, red_png, 1))
    await blocking.begun()
    running.cancel()
    await asyncio.sleep(0.01)
    assert (pool.running, pool.waiting) == (1, 0)
    blocking.release()
    await pool.submit(Job(model, red_png, 1))
    assert (pool.running, pool.waiting) == (0, 0)


async def test_with_batches_a_free_thread_takes_its_share_of_what_waits(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = ThreadPool(threads=1, max_batch=4), model_of(blocking)
    first = pool.submit(Job(model, red_png, 1))
    await blocking.begun()
    others = [pool.submit(Job(model, red_png, 1)) for _ in range(6)]
    blocking.release()
    found = await asyncio.gather(first, *others)
    assert [each.batch for each in found] == [1, 4, 4, 4, 4, 2, 2]
    assert blocking.sizes == [1, 4, 2]


async def test_images_of_two_models_are_never_answered_in_one_run(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool = ThreadPool(threads=1, max_batch=8)
    blocker = pool.submit(Job(model_of(blocking), red_png, 1))
    await blocking.begun()
    one = model_of(lambda batch: np.tile(np.float32([9, 0, 0]), (len(batch), 1)))
    two = model_of(lambda batch: np.tile(np.float32([0, 9, 0]), (len(batch), 1)))
    answers = [pool.submit(Job(model, red_png, 1)) for model in (one, two, one, two)]
    blocking.release()
    found = await asyncio.gather(*answers)
    assert [each.prediction.class_id for each in found] == [0, 1, 0, 1]
    assert [each.batch for each in found] == [2, 2, 2, 2]
    await blocker


async def test_the_predicted_time_grows_with_what_is_under_way(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = ThreadPool(threads=2), model_of(blocking)
    pool.set_estimate(0.1)
    predicted, answers = [pool.predicted_s()], []
    for _ in range(4):
        answers.append(pool.submit(Job(model, red_png, 1)))
        predicted.append(pool.predicted_s())
    assert predicted == pytest.approx([0.1, 0.1, 0.15, 0.2, 0.25])
    blocking.release()
    await asyncio.gather(*answers)
    assert pool.predicted_s() > 0


def test_an_image_is_predicted_to_end_with_those_that_are_answered_together_with_it() -> None:
    pool = ThreadPool(threads=2, max_batch=4)
    pool.set_estimate(0.01)
    pool.running, pool.waiting = 2, 6
    # Seven before it for two threads, and then a batch of four.
    assert pool.predicted_s() == pytest.approx((7 / 2 + 4) * 0.01)


def test_a_single_stall_darkens_the_prediction_little_and_a_lasting_slowness_fully() -> None:
    pool = ThreadPool(threads=1)
    pool.set_estimate(0.01)
    pool._note_time(5.0)
    assert pool.image_s < 0.014
    for _ in range(60):
        pool._note_time(0.1)
    assert pool.image_s == pytest.approx(0.1, rel=0.05)


@EITHER_POOL
async def test_a_thread_that_waits_keeps_no_model_alive(
    pool_class: Callable[..., Pool], model_of: ModelOf, red_png: bytes
) -> None:
    pool, model = pool_class(2, max_batch=2), model_of(zeros)
    await asyncio.gather(*(pool.submit(Job(model, red_png, 1)) for _ in range(50)))
    gone = weakref.ref(model)
    del model
    async with asyncio.timeout(5):
        while gone() is not None:  # a thread may just be noting how long it took
            await asyncio.sleep(0.01)
            gc.collect()


def test_a_model_is_warmed_on_all_threads_at_once_alone_and_in_the_largest_batch(model_of: ModelOf) -> None:
    sizes: list[int] = []
    together = threading.Barrier(2)

    def answer(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        together.wait(5)
        return zeros(batch)

    pool = ThreadPool(threads=2, max_batch=4)
    pool.set_estimate(0.1)
    pool.warm(model_of(answer))
    assert sorted(sizes) == [1, 1, 1, 1, 4, 4, 4, 4]
    assert (pool.image_s, pool.running, pool.waiting) == (0.1, 0, 0)
