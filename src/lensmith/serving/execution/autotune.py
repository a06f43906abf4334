"""Which way of working is faster here, by a short measurement at the start."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

from lensmith.serving.execution.dynamic_batcher import DynamicBatcher
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool, ThreadPool

TRIAL_BATCH = 8
"""Images of the batch that is tried, where the ceiling allows."""
TRIAL_S = 0.12
"""Seconds that each way is tried for; at least one round."""
SLOWER = 1.1
"""Batches are made unless an image takes so much longer in one. They form only where images wait, so that a lone image
waits for none, and spare threads most of their contention for the interpreter: what is as fast in the trial is faster
under load.
"""


@dataclass(frozen=True)
class PoolChoice:
    """A pool that has worked already, and why it is this one."""

    pool: Pool
    why: str


def choose_pool(model: LoadedModel, threads: int, batching: Literal["auto", "on", "off"], max_batch: int) -> PoolChoice:
    """Try both ways on a real image, and make the faster one, warm.

    Args:
        model: what will answer.
        threads: images that may be worked on at once, or decoded at once where a GPU answers them.
        batching: `on` and `off` say it without a trial.
        max_batch: images answered together at most.
    """
    sample = model.sample()
    with ThreadPoolExecutor(threads) as pool:
        _at_once(pool, threads, lambda: model.answer(sample))  # the first runs of a graph are slower
        alone_s = _seconds(lambda: _at_once(pool, threads, lambda: model.answer(sample))) / threads
    if batching == "off" or max_batch == 1:
        return _made(ThreadPool(threads), alone_s * threads, f"{_ms(alone_s)} an image")
    size = min(TRIAL_BATCH, max_batch)
    if model.on_gpu:
        together = DynamicBatcher(threads, max_batch)
        together.warm(model)
        with ThreadPoolExecutor(threads) as pool:
            decode_s = _seconds(lambda: _at_once(pool, threads, lambda: model.prepare(sample)))
        together.set_estimate(together.image_s, decode_s)
        together_s = max(decode_s / threads, together.batch_s(size) / size)
    else:
        with ThreadPoolExecutor(threads) as pool:
            _at_once(pool, threads, lambda: _batch(model, sample, size))
            together_s = _seconds(lambda: _at_once(pool, threads, lambda: _batch(model, sample, size)), 2)
        together_s /= threads * size
    measured = f"alone {_ms(alone_s)} an image, in batches of {size} {_ms(together_s)}"
    if batching == "auto" and alone_s * SLOWER < together_s:
        if model.on_gpu:
            together.close()
        return _made(ThreadPool(threads), alone_s * threads, measured)
    if model.on_gpu:
        return PoolChoice(together, measured)
    # What is on by itself goes as far as it was tried: the images of a larger batch would wait longer for one another.
    largest = max_batch if batching == "on" else size
    return _made(ThreadPool(threads, largest), min(alone_s, together_s) * threads, measured)


def _made(workers: ThreadPool, image_s: float, why: str) -> PoolChoice:
    workers.set_estimate(image_s)
    return PoolChoice(workers, why)


def _batch(model: LoadedModel, sample: bytes, size: int) -> None:
    prepared = [model.prepare(sample) for _ in range(size)]
    import numpy as np

    model.infer(np.stack(prepared))


def _at_once(pool: ThreadPoolExecutor, threads: int, work: Callable[[], Any]) -> None:
    for done in [pool.submit(work) for _ in range(threads)]:
        done.result()


def _seconds(work: Callable[[], Any], least: int = 3) -> float:
    """The shortest of as many rounds as fit into the trial."""
    best, end, rounds = float("inf"), time.perf_counter() + TRIAL_S, 0
    while rounds < least or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
        rounds += 1
    return best


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
