"""However much memory there is: what the ladder settles on fits, is near the best, and grows with the memory."""

import json
import math

from hypothesis import example, given
from hypothesis import strategies as st

from lensmith.training.microbatch.chunk_scheduler import LONGEST_PATIENCE, PATIENCE, Ladder

BATCHES = st.integers(1, 600)
CAPACITIES = st.integers(1, 800)


def step(ladder: Ladder, images: int, capacity: int, kept: int | None = None) -> int:
    """One training step where `capacity` images fit at once, `kept` while activations are kept: the retries it took."""
    retries = 0
    while ladder.at_once(images) > (capacity if ladder.checkpointing or kept is None else kept):
        assert ladder.fail(images), "no rung left"
        retries += 1
    ladder.succeed(images)
    return retries


def steps_until(done: object, ladder: Ladder, images: int, capacity: int, most: int) -> int:
    """Steps until `done()`."""
    for taken in range(most):
        if done():  # type: ignore[operator]
            return taken
        step(ladder, images, capacity)
    raise AssertionError(f"not within {most} steps: {ladder}")


@given(BATCHES, CAPACITIES)
def test_what_it_settles_on_fits_and_is_at_most_twice_as_many_chunks_as_needed(images: int, capacity: int) -> None:
    ladder = Ladder()
    retries = step(ladder, images, capacity)
    assert ladder.at_once(images) <= capacity
    fewest = math.ceil(images / capacity)
    assert fewest <= ladder.chunks(images) <= max(1, 2 * fewest - 2)
    assert retries <= math.ceil(math.log2(fewest)) if fewest > 1 else retries == 0


@given(BATCHES, CAPACITIES)
@example(131, 10)  # 13 chunks cannot be had of 131 images, and were tried for ever
@example(49, 6)
def test_it_reaches_the_fewest_chunks_that_fit_and_stays_there(images: int, capacity: int) -> None:
    ladder, fewest = Ladder(), math.ceil(images / capacity)
    step(ladder, images, capacity)
    # Halving what lies between takes log₂ tries, and each one that fails doubles the wait for the next.
    steps_until(lambda: ladder.chunks(images) == fewest, ladder, images, capacity, 2 * PATIENCE * max(2, fewest))
    before = ladder.patience
    assert all(step(ladder, images, capacity) <= 1 and ladder.chunks(images) == fewest for _ in range(before // 2))


@given(BATCHES, CAPACITIES, st.integers(1, 300))
def test_it_grows_back_to_the_whole_batch_when_memory_returns(images: int, capacity: int, held: int) -> None:
    ladder = Ladder()
    for _ in range(held):
        step(ladder, images, capacity)
    # It forgets what was too large after two waits at most, and then gets rid of a chunk after each one.
    longest = 2 * ladder.patience * (ladder.chunks(images) + 2)
    steps_until(lambda: ladder.chunks(images) == 1, ladder, images, images, longest)
    steps_until(lambda: ladder.limit is None, ladder, images, images, longest)
    assert ladder.at_once(10 * images) == 10 * images


@given(st.integers(2, 600), CAPACITIES, st.integers(0, 2000))
def test_a_try_to_grow_that_fails_costs_one_retry_and_doubles_the_wait(images: int, capacity: int, steps: int) -> None:
    ladder = Ladder()
    step(ladder, images, capacity)
    for _ in range(steps):
        trying = ladder.before is not None
        limit, patience = (ladder.before or (None, False))[0], ladder.patience
        retries = step(ladder, images, capacity)
        assert retries == 0 or (trying and retries == 1)
        if retries:
            assert ladder.limit == limit
            assert ladder.patience == min(2 * patience, LONGEST_PATIENCE)


def test_tries_become_rare_when_memory_stays_as_it_is() -> None:
    ladder = Ladder()
    step(ladder, 64, 20)
    tries = [number for number in range(20_000) if step(ladder, 64, 20)]
    assert len(tries) < 12
    assert tries[-1] - tries[-2] >= 2 * LONGEST_PATIENCE


@given(BATCHES, st.integers(1, 64), CAPACITIES)
def test_a_floor_ends_it(images: int, floor: int, capacity: int) -> None:
    ladder = Ladder(floor=floor)
    while ladder.at_once(images) > capacity:
        before = ladder.at_once(images)
        if not ladder.fail(images):
            assert before <= floor
            assert capacity < floor
            break
        assert min(floor, images) <= ladder.at_once(images) < before
    else:
        assert ladder.at_once(images) <= capacity


@given(BATCHES, CAPACITIES, st.integers(1, 64), st.integers(0, 400))
def test_a_ceiling_is_never_passed(images: int, capacity: int, ceiling: int, steps: int) -> None:
    ladder = Ladder(ceiling=ceiling)
    for _ in range(steps):
        step(ladder, images, capacity)
        assert ladder.at_once(images) <= ceiling
    steps_until(
        lambda: ladder.chunks(images) == math.ceil(images / ceiling), ladder, images, images,
        2 * ladder.patience * (ladder.chunks(images) + 2) + 1,
    )  # fmt: skip


@given(st.integers(2, 600), st.integers(1, 32), st.integers(1, 600), st.integers(0, 600))
def test_checkpointing_comes_before_chunks_smaller_than_gentle(images: int, gentle: int, kept: int, more: int) -> None:
    ladder = Ladder(gentle=gentle, can_checkpoint=True)
    while ladder.at_once(images) > (kept + more if ladder.checkpointing else kept):
        assert ladder.fail(images)
        assert ladder.checkpointing or ladder.at_once(images) >= gentle
    assert ladder.at_once(images) <= (kept + more if ladder.checkpointing else kept)
    if not ladder.checkpointing:
        assert ladder.chunks(images) <= max(1, 2 * math.ceil(images / kept) - 2)


def test_checkpointing_is_left_again_when_memory_is_back() -> None:
    ladder = Ladder(gentle=8, can_checkpoint=True)
    step(ladder, 64, 40, kept=5)
    assert ladder.checkpointing
    for _ in range(500):
        step(ladder, 64, 64)
    assert (ladder.checkpointing, ladder.chunks(64), ladder.limit) == (False, 1, None)


def test_a_failed_try_without_checkpointing_goes_back_to_it() -> None:
    ladder = Ladder(gentle=8, can_checkpoint=True)
    retries = [step(ladder, 64, 64, kept=5) for _ in range(200)]
    assert max(retries[1:]) == 1
    assert ladder.checkpointing
    assert ladder.chunks(64) == 1


def test_a_try_that_has_no_room_is_not_made() -> None:
    ladder = Ladder(gentle=64, can_checkpoint=True)
    assert ladder.fail(32)  # checkpointing
    assert ladder.fail(32)  # two chunks
    for _ in range(20 * PATIENCE):
        ladder.succeed(32, lambda limit: False)
        assert (ladder.checkpointing, ladder.limit, ladder.before) == (True, 16, None)
    ladder.limit = None  # nor is checkpointing left for the sake of it
    for _ in range(20 * PATIENCE):
        ladder.succeed(32, lambda limit: False)
        assert ladder.checkpointing


def test_checkpointing_that_was_asked_for_is_never_left() -> None:
    ladder = Ladder(checkpointing=True)
    for _ in range(500):
        step(ladder, 64, 9)
        assert ladder.checkpointing
    ladder.restart()
    for _ in range(500):
        step(ladder, 64, 64)
        assert ladder.checkpointing


@given(st.integers(1, 20))
def test_an_epochs_last_and_small_batch_proves_nothing(whole: int) -> None:
    """Its 4 images fit at once, which must neither end a try to grow nor make the whole batch be tried."""
    ladder = Ladder()
    retries = [step(ladder, images, 20) for _ in range(600 // whole) for images in [64] * whole + [4]]
    assert retries[0] == 2
    assert max(retries[1:]) == 1  # of tries to grow, each undone at once
    assert sum(retries[1:]) < 8
    assert ladder.chunks(64) == 4


def test_after_a_smaller_batch_failed_it_grows_to_what_that_takes() -> None:
    ladder = Ladder()
    step(ladder, 1000, 1000)
    step(ladder, 64, 32)
    steps_until(lambda: ladder.chunks(64) == 1, ladder, 64, 64, 100)


def test_a_restart_forgets_what_was_found() -> None:
    ladder = Ladder(floor=2, ceiling=50, gentle=16, can_checkpoint=True)
    for _ in range(100):
        step(ladder, 64, 9)
    ladder.restart()
    assert ladder == Ladder(floor=2, ceiling=50, gentle=16, can_checkpoint=True)


@given(BATCHES, CAPACITIES, CAPACITIES, st.integers(0, 100))
def test_a_checkpoint_of_it_goes_on_the_same(images: int, capacity: int, later: int, steps: int) -> None:
    ladder = Ladder(gentle=4, can_checkpoint=True)
    for _ in range(steps):
        step(ladder, images, capacity)
    other = Ladder(gentle=4, can_checkpoint=True)
    other.restore(json.loads(json.dumps(ladder.state())))
    assert other == ladder
    for _ in range(50):
        assert step(other, images, later) == step(ladder, images, later)
    assert other == ladder
