"""The bounded pool."""

import asyncio
import threading

import pytest

from lensmith.serve.workers import OverloadedError, Workers


def test_a_job_returns_its_value_or_raises_its_error() -> None:
    async def scenario() -> None:
        workers = Workers(threads=1, max_waiting=1)
        assert await workers.submit(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            await workers.submit(lambda: 1 // 0)
        assert (workers.running, workers.waiting) == (0, 0)
        workers.close()

    asyncio.run(scenario())


def test_no_more_jobs_run_at_once_than_there_are_threads_and_none_off_the_pool() -> None:
    names: set[str] = set()
    most = 0

    async def scenario() -> None:
        workers = Workers(threads=3, max_waiting=100)

        def job() -> None:
            nonlocal most
            names.add(threading.current_thread().name)
            most = max(most, workers.running)

        await asyncio.gather(*(workers.submit(job) for _ in range(100)))
        workers.close()

    asyncio.run(scenario())
    assert most <= 3
    assert all(name.startswith("worker") for name in names)


def test_one_job_too_many_is_refused_and_a_place_comes_back_when_one_ends_or_leaves() -> None:
    async def scenario() -> None:
        workers = Workers(threads=1, max_waiting=1)
        release = threading.Event()
        running = workers.submit(lambda: release.wait(5))
        waiting = workers.submit(lambda: None)
        with pytest.raises(OverloadedError):
            workers.submit(lambda: None)
        waiting.cancel()
        await asyncio.sleep(0)  # asyncio tells the pool in its next turn
        replacement = workers.submit(lambda: "ran")
        release.set()
        assert await running is True
        assert await replacement == "ran"
        assert (workers.running, workers.waiting) == (0, 0)
        workers.close()

    asyncio.run(scenario())


def test_a_job_given_up_while_it_runs_keeps_its_place_until_it_ends() -> None:
    async def scenario() -> None:
        workers = Workers(threads=1, max_waiting=0)
        begun, release = threading.Event(), threading.Event()

        def job() -> None:
            begun.set()
            release.wait(5)

        running = workers.submit(job)
        await asyncio.to_thread(begun.wait, 5)
        running.cancel()
        await asyncio.sleep(0.01)
        with pytest.raises(OverloadedError):
            workers.submit(lambda: None)
        release.set()
        async with asyncio.timeout(5):
            while workers.running:
                await asyncio.sleep(0.005)
        assert await workers.submit(lambda: 1) == 1
        workers.close()

    asyncio.run(scenario())
