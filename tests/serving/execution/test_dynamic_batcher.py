"""Work-conserving batching."""

import asyncio
import threading
import time

import numpy as np
import pytest

from fixtures.serving import BlockingEngine, ModelOf, zeros
from lensmith.serving.execution.dynamic_batcher import DynamicBatcher, without_stalls
from lensmith.serving.execution.job import ExpiredError, Job

pytestmark = pytest.mark.anyio


async def test_a_free_executor_takes_what_is_ready_at_once_and_never_more_than_the_ceiling(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool = DynamicBatcher(decoders=2, max_batch=4)
    model = model_of(blocking)
    first = pool.submit(Job(model, red_png, 1))  # alone: nothing waits for company
    await blocking.begun()
    others = [pool.submit(Job(model, red_png, 1)) for _ in range(6)]
    while pool.waiting:  # until all are decoded, or being so
        await asyncio.sleep(0.005)
    await asyncio.sleep(0.1)
    blocking.release()
    found = await asyncio.gather(first, *others)
    assert {each.batch for each in found} == {1, 4, 2}
    assert blocking.sizes == [1, 4, 2]


async def test_what_is_predicted_counts_batches_and_not_images(model_of: ModelOf) -> None:
    def answer(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.02)  # whatever the batch
        return zeros(batch)

    pool = DynamicBatcher(decoders=1, max_batch=4)
    pool.warm(model_of(answer))
    alone, behind_8 = pool.predicted_s(), pool.predicted_s(ahead=8)
    assert alone >= 0.02
    assert 0.06 <= behind_8 < 8 * alone


async def test_what_is_predicted_knows_of_decoding(model_of: ModelOf, red_png: bytes) -> None:
    release = threading.Event()
    pool, model = DynamicBatcher(decoders=2, max_batch=32), model_of(zeros)
    pool.set_estimate(0.001, decode_s=0.02)
    assert pool.predicted_s() == pytest.approx(0.021)
    prepare = model.prepare
    model.prepare = lambda encoded: release.wait(5) and prepare(encoded)  # type: ignore[method-assign]
    answers = [pool.submit(Job(model, red_png, 1)) for _ in range(60)]
    while pool.running < 2:
        await asyncio.sleep(0.005)
    assert pool.predicted_s() == pytest.approx(0.611)
    release.set()
    await asyncio.gather(*answers)


async def test_what_is_decoded_waits_for_batches_alone(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = DynamicBatcher(decoders=2, max_batch=4), model_of(blocking)
    answers = [pool.submit(Job(model, red_png, 1)) for _ in range(8)]
    await decoded(pool)
    pool.set_estimate(0.001, decode_s=0.02)
    assert pool.predicted_s() == pytest.approx(0.021)  # and not eight times as long
    pool.set_estimate(0.02, decode_s=0.02)
    assert pool.predicted_s() == pytest.approx(0.18)
    blocking.release()
    await asyncio.gather(*answers)


async def test_how_long_decoding_takes_is_learnt(model_of: ModelOf, red_png: bytes) -> None:
    pool, model = DynamicBatcher(decoders=1, max_batch=4), model_of(zeros)
    pool.set_estimate(0.001, decode_s=10.0)
    for _ in range(40):
        await pool.submit(Job(model, red_png, 1))
    assert pool.predicted_s() < 2


def test_no_size_of_batch_stays_dark() -> None:
    pool = DynamicBatcher(decoders=1, max_batch=4)
    pool.set_estimate(0.01)
    pool._note_time(5.0)  # a stall
    assert pool.batch_s(4) < 0.056
    for _ in range(100):
        pool._note_time(0.1)
    assert pool.batch_s(4) > 0.3
    for _ in range(60):  # with images alone, as others are let in no more
        pool._note_time(0.01)
    assert pool.batch_s(4) == pytest.approx(0.04, rel=0.1)


@pytest.mark.parametrize(
    ("times", "believed"),
    [
        ([1, 1.5, 2, 2.5], [1, 1.5, 2, 2.5]),
        ([7, 9, 3, 3], [3, 3, 3, 3]),  # a larger batch took less
        ([1, 1, 1, 50], [1, 1, 1, 2]),  # two smaller ones would have
        ([1], [1]),
    ],
)
def test_of_the_measured_times_those_of_a_stall_are_not_believed(times: list[float], believed: list[float]) -> None:
    assert without_stalls(times) == believed


def test_another_model_is_warmed_in_every_size_and_changes_nothing_that_was_learnt(model_of: ModelOf) -> None:
    sizes: list[int] = []

    def answer(batch: np.ndarray) -> np.ndarray:
        sizes.append(len(batch))
        return zeros(batch)

    pool = DynamicBatcher(decoders=1, max_batch=4)
    pool.warm(model_of(answer))
    assert sizes == [1, 1, 2, 2, 3, 3, 4, 4]
    learnt = [pool.batch_s(size) for size in range(5)]
    sizes.clear()
    pool.warm(model_of(answer))
    assert sizes == [1, 2, 3, 4]
    assert [pool.batch_s(size) for size in range(5)] == learnt


async def test_decoded_images_that_came_too_late_or_whose_client_left_are_in_no_batch(
    model_of: ModelOf, blocking: BlockingEngine, red_png: bytes
) -> None:
    pool, model = DynamicBatcher(decoders=1, max_batch=2), model_of(blocking)
    first = pool.submit(Job(model, red_png, 1))
    await blocking.begun()
    jobs = [Job(model, red_png, 1) for _ in range(4)]
    late, left, *others = [pool.submit(job) for job in jobs]
    await decoded(pool)
    jobs[0].deadline = 0.0
    left.cancel()
    blocking.release()
    with pytest.raises(ExpiredError):
        await late
    found = await asyncio.gather(first, *others)
    assert [each.batch for each in found] == [1, 2, 2]
    assert (pool.running, pool.waiting) == (0, 0)
    assert blocking.sizes == [1, 2]


async def decoded(pool: DynamicBatcher) -> None:
    """Nothing waits for a decoder, or is in one."""
    async with asyncio.timeout(5):
        while pool.waiting or pool._decoding:
            await asyncio.sleep(0.005)
