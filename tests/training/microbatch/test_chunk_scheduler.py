"""However much memory there is: the chunk size settled on fits, is near the best, and grows with the memory."""

import json
import math

from hypothesis import example, given
from hypothesis import strategies as st

from lensmith.training.microbatch.chunk_scheduler import LONGEST_PATIENCE, PATIENCE, ChunkScheduler

BATCHES = st.integers(1, 600)
CAPACITIES = st.integers(1, 800)


def step(scheduler: ChunkScheduler, images: int, capacity: int, stored: int | None = None) -> int:
    """Retries of a step where `capacity` images fit at once, or `stored` while activations are stored."""
    retries = 0
    while scheduler.chunk_size(images) > (capacity if scheduler.checkpointing or stored is None else stored):
        assert scheduler.on_out_of_memory(images), "nothing smaller is left"
        retries += 1
    scheduler.on_success(images)
    return retries


def steps_until(done: object, scheduler: ChunkScheduler, images: int, capacity: int, most: int) -> int:
    """Steps until `done()`."""
    for taken in range(most):
        if done():  # type: ignore[operator]
            return taken
        step(scheduler, images, capacity)
    raise AssertionError(f"not within {most} steps: {scheduler}")


@given(BATCHES, CAPACITIES)
def test_what_it_settles_on_fits_and_is_at_most_twice_as_many_chunks_as_needed(images: int, capacity: int) -> None:
    scheduler = ChunkScheduler()
    retries = step(scheduler, images, capacity)
    assert scheduler.chunk_size(images) <= capacity
    fewest = math.ceil(images / capacity)
    assert fewest <= scheduler.chunks(images) <= max(1, 2 * fewest - 2)
    assert retries <= math.ceil(math.log2(fewest)) if fewest > 1 else retries == 0


@given(BATCHES, CAPACITIES)
@example(131, 10)  # 13 chunks cannot be had of 131 images, and were tried for ever
@example(49, 6)
def test_it_reaches_the_fewest_chunks_that_fit_and_stays_there(images: int, capacity: int) -> None:
    scheduler, fewest = ChunkScheduler(), math.ceil(images / capacity)
    step(scheduler, images, capacity)
    # Halving what lies between takes log₂ tries, and each one that fails doubles the wait for the next.
    steps_until(lambda: scheduler.chunks(images) == fewest, scheduler, images, capacity, 2 * PATIENCE * max(2, fewest))
    before = scheduler.patience
    assert all(
        step(scheduler, images, capacity) <= 1 and scheduler.chunks(images) == fewest for _ in range(before // 2)
    )


@given(BATCHES, CAPACITIES, st.integers(1, 300))
def test_it_grows_back_to_the_whole_batch_when_memory_returns(images: int, capacity: int, held: int) -> None:
    scheduler = ChunkScheduler()
    for _ in range(held):
        step(scheduler, images, capacity)
    # It forgets what was too large after two waits at most, and then gets rid of a chunk after each one.
    longest = 2 * scheduler.patience * (scheduler.chunks(images) + 2)
    steps_until(lambda: scheduler.chunks(images) == 1, scheduler, images, images, longest)
    steps_until(lambda: scheduler.limit is None, scheduler, images, images, longest)
    assert scheduler.chunk_size(10 * images) == 10 * images


@given(st.integers(2, 600), CAPACITIES, st.integers(0, 2000))
def test_a_try_to_grow_that_fails_costs_one_retry_and_doubles_the_wait(images: int, capacity: int, steps: int) -> None:
    scheduler = ChunkScheduler()
    step(scheduler, images, capacity)
    for _ in range(steps):
        trying = scheduler.before is not None
        limit, patience = (scheduler.before or (None, False))[0], scheduler.patience
        retries = step(scheduler, images, capacity)
        assert retries == 0 or (trying and retries == 1)
        if retries:
            assert scheduler.limit == limit
            assert scheduler.patience == min(2 * patience, LONGEST_PATIENCE)


def test_tries_become_rare_when_memory_stays_as_it_is() -> None:
    scheduler = ChunkScheduler()
    step(scheduler, 64, 20)
    tries = [number for number in range(20_000) if step(scheduler, 64, 20)]
    assert len(tries) < 12
    assert tries[-1] - tries[-2] >= 2 * LONGEST_PATIENCE


@given(BATCHES, st.integers(1, 64), CAPACITIES)
def test_the_smallest_chunk_ends_it(images: int, floor: int, capacity: int) -> None:
    scheduler = ChunkScheduler(min_chunk=floor)
    while scheduler.chunk_size(images) > capacity:
        before = scheduler.chunk_size(images)
        if not scheduler.on_out_of_memory(images):
            assert before <= floor
            assert capacity < floor
            break
        assert min(floor, images) <= scheduler.chunk_size(images) < before
    else:
        assert scheduler.chunk_size(images) <= capacity


@given(BATCHES, CAPACITIES, st.integers(1, 64), st.integers(0, 400))
def test_the_largest_chunk_is_never_passed(images: int, capacity: int, ceiling: int, steps: int) -> None:
    scheduler = ChunkScheduler(max_chunk=ceiling)
    for _ in range(steps):
        step(scheduler, images, capacity)
        assert scheduler.chunk_size(images) <= ceiling
    steps_until(
        lambda: scheduler.chunks(images) == math.ceil(images / ceiling), scheduler, images, images,
        2 * scheduler.patience * (scheduler.chunks(images) + 2) + 1,
    )  # fmt: skip


@given(st.integers(2, 600), st.integers(1, 32), st.integers(1, 600), st.integers(0, 600))
def test_checkpointing_comes_before_chunks_below_a_size(images: int, below: int, stored: int, more: int) -> None:
    scheduler = ChunkScheduler(checkpoint_below=below, can_checkpoint=True)
    while scheduler.chunk_size(images) > (stored + more if scheduler.checkpointing else stored):
        assert scheduler.on_out_of_memory(images)
        assert scheduler.checkpointing or scheduler.chunk_size(images) >= below
    assert scheduler.chunk_size(images) <= (stored + more if scheduler.checkpointing else stored)
    if not scheduler.checkpointing:
        assert scheduler.chunks(images) <= max(1, 2 * math.ceil(images / stored) - 2)


def test_checkpointing_is_left_again_when_memory_is_back() -> None:
    scheduler = ChunkScheduler(checkpoint_below=8, can_checkpoint=True)
    step(scheduler, 64, 40, stored=5)
    assert scheduler.checkpointing
    for _ in range(500):
        step(scheduler, 64, 64)
    assert (scheduler.checkpointing, scheduler.chunks(64), scheduler.limit) == (False, 1, None)


def test_a_failed_try_without_checkpointing_goes_back_to_it() -> None:
    scheduler = ChunkScheduler(checkpoint_below=8, can_checkpoint=True)
    retries = [step(scheduler, 64, 64, stored=5) for _ in range(200)]
    assert max(retries[1:]) == 1
    assert scheduler.checkpointing
    assert scheduler.chunks(64) == 1


def test_a_try_that_has_no_room_is_not_made() -> None:
    scheduler = ChunkScheduler(checkpoint_below=64, can_checkpoint=True)
    assert scheduler.on_out_of_memory(32)  # checkpointing
    assert scheduler.on_out_of_memory(32)  # two chunks
    for _ in range(20 * PATIENCE):
        scheduler.on_success(32, lambda limit: False)
        assert (scheduler.checkpointing, scheduler.limit, scheduler.before) == (True, 16, None)
    scheduler.limit = None  # nor is checkpointing left for the sake of it
    for _ in range(20 * PATIENCE):
        scheduler.on_success(32, lambda limit: False)
        assert scheduler.checkpointing


def test_checkpointing_that_was_asked_for_is_never_left() -> None:
    scheduler = ChunkScheduler(checkpointing=True)
    for _ in range(500):
        step(scheduler, 64, 9)
        assert scheduler.checkpointing
    scheduler.restart()
    for _ in range(500):
        step(scheduler, 64, 64)
        assert scheduler.checkpointing


@given(st.integers(1, 20))
def test_an_epochs_last_and_small_batch_proves_nothing(whole: int) -> None:
    """Its 4 images fit at once, which must neither end a try to grow nor make the whole batch be tried."""
    scheduler = ChunkScheduler()
    retries = [step(scheduler, images, 20) for _ in range(600 // whole) for images in [64] * whole + [4]]
    assert retries[0] == 2
    assert max(retries[1:]) == 1  # of tries to grow, each undone at once
    assert sum(retries[1:]) < 8
    assert scheduler.chunks(64) == 4


def test_after_a_smaller_batch_failed_it_grows_to_what_that_takes() -> None:
    scheduler = ChunkScheduler()
    step(scheduler, 1000, 1000)
    step(scheduler, 64, 32)
    steps_until(lambda: scheduler.chunks(64) == 1, scheduler, 64, 64, 100)


def test_a_restart_forgets_what_was_found() -> None:
    scheduler = ChunkScheduler(min_chunk=2, max_chunk=50, checkpoint_below=16, can_checkpoint=True)
    for _ in range(100):
        step(scheduler, 64, 9)
    scheduler.restart()
    assert scheduler == ChunkScheduler(min_chunk=2, max_chunk=50, checkpoint_below=16, can_checkpoint=True)


@given(BATCHES, CAPACITIES, CAPACITIES, st.integers(0, 100))
def test_a_checkpoint_of_it_goes_on_the_same(images: int, capacity: int, later: int, steps: int) -> None:
    scheduler = ChunkScheduler(checkpoint_below=4, can_checkpoint=True)
    for _ in range(steps):
        step(scheduler, images, capacity)
    other = ChunkScheduler(checkpoint_below=4, can_checkpoint=True)
    other.restore(json.loads(json.dumps(scheduler.state())))
    assert other == scheduler
    for _ in range(50):
        assert step(other, images, later) == step(scheduler, images, later)
    assert other == scheduler
