"""Autotuning of the execution mode: a short measurement at the start decides between single images and batches."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from lensmith.serving.execution.dynamic_batcher import DynamicBatcher
from lensmith.serving.execution.loaded_model import LoadedModel
from lensmith.serving.execution.thread_pool import Pool, ThreadPool

TRIAL_BATCH = 8
"""Number of images in the batch that is measured, where `max_batch` allows."""
TRIAL_S = 0.12
"""Seconds that each execution mode is measured for; at least one round."""
MAX_BATCH_COST = 1.1
"""Batches are made unless an image takes this many times longer in one. They form only where images wait, so that a
lone image is not delayed, and they spare threads most of their contention for the interpreter: an execution mode that
is as fast in the measurement is faster under load.
"""


def choose_pool(
    model: LoadedModel, threads: int, batching: Literal["auto", "on", "off"], max_batch: int
) -> tuple[Pool, str]:
    """Measure both execution modes on a real image, and make the pool of the faster one.

    Args:
        model: the active model.
        threads: number of images classified at once, or decoded at once where a GPU classifies them.
        batching: `on` and `off` decide without the measurement.
        max_batch: largest number of images in one run of the engine.

    Returns:
        The pool, with an estimate of the time of one image; and the measurements that decided, in words.
    """
    sample = model.sample()
    with ThreadPoolExecutor(threads) as pool:
        _at_once(pool, threads, lambda: model.classify(sample))  # the first runs of a graph are slower
        alone_s = _seconds(lambda: _at_once(pool, threads, lambda: model.classify(sample))) / threads
    if batching == "off" or max_batch == 1:
        return _choice(ThreadPool(threads), alone_s * threads, f"{_ms(alone_s)} an image")
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
    if batching == "auto" and alone_s * MAX_BATCH_COST < together_s:
        if model.on_gpu:
            together.close()
        return _choice(ThreadPool(threads), alone_s * threads, measured)
    if model.on_gpu:
        return together, measured
    # In auto mode the batch is capped at the size that was measured: in a larger one, images would wait longer.
    largest = max_batch if batching == "on" else size
    return _choice(ThreadPool(threads, largest), min(alone_s, together_s) * threads, measured)


def _choice(pool: ThreadPool, image_s: float, why: str) -> tuple[Pool, str]:
    pool.set_estimate(image_s)
    return pool, why


def _batch(model: LoadedModel, sample: bytes, size: int) -> None:
    model.infer(np.stack([model.prepare(sample) for _ in range(size)]))


def _at_once(pool: ThreadPoolExecutor, threads: int, work: Callable[[], Any]) -> None:
    for done in [pool.submit(work) for _ in range(threads)]:
        done.result()


def _seconds(work: Callable[[], Any], least: int = 3) -> float:
    """Seconds of the fastest of as many rounds as fit into the measurement."""
    best, end, rounds = float("inf"), time.perf_counter() + TRIAL_S, 0
    while rounds < least or time.perf_counter() < end:
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
        rounds += 1
    return best


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
