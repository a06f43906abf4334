"""Every image once an epoch, or every class equally often, in an order that depends on nothing but seed and epoch."""

from collections import Counter

import pytest

from lensmith.training.dataloading.sampler import EpochSampler, Item

LABELS = [0] * 30 + [1] * 7 + [2] * 3


def indices(order: EpochSampler) -> list[list[int]]:
    return [[item.sample for item in batch] for batch in order]


@pytest.mark.parametrize(("length", "size"), [(10, 4), (12, 4), (9, 8), (1, 4), (5, 1), (33, 32)])
def test_each_sample_comes_once_an_epoch_in_near_equal_batches(length: int, size: int) -> None:
    order = EpochSampler(length, size, seed=3)
    found = indices(order)
    assert sorted(index for batch in found for index in batch) == list(range(length))
    assert len(found) == len(order) == -(-length // size)
    lengths = [len(batch) for batch in found]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, other = EpochSampler(50, 8, seed=0), EpochSampler(50, 8, seed=1)
    before = indices(first)
    assert indices(first) == before
    assert indices(other) != before
    first.epoch = 1
    assert indices(first) != before
    assert next(iter(first))[0].epoch == 1


def test_without_a_seed_the_order_is_the_folder_s() -> None:
    assert indices(EpochSampler(5, 2, None)) == [[0, 1], [2, 3], [4]]


def drawn(epochs: int, seed: int = 0) -> list[list[Item]]:
    """What each epoch draws of the 40 samples of LABELS, class by class equally often."""
    order = EpochSampler(len(LABELS), 8, seed, balance=LABELS)
    found = []
    for order.epoch in range(epochs):
        found.append([item for batch in order for item in batch])
    return found


def test_balanced_sampling_draws_every_class_equally_often() -> None:
    for items in drawn(epochs=5):
        counts = Counter(LABELS[item.sample] for item in items)
        assert len(items) == len(LABELS)
        assert set(counts) == {0, 1, 2}
        assert max(counts.values()) - min(counts.values()) <= 1
    total = Counter(LABELS[item.sample] for items in drawn(epochs=3) for item in items)
    assert set(total.values()) == {40}


def test_samples_that_are_left_out_are_not_drawn_and_their_class_is_drawn_as_often() -> None:
    order = EpochSampler(len(LABELS), 8, 0, balance=LABELS)
    order.leave_out({*range(29), 37, 38})
    counts = Counter(item.sample for batch in order for item in batch)
    assert sum(counts[sample] for sample in range(30, 37)) in (13, 14)
    assert {counts[29], counts[39]} <= {13, 14}
    order.leave_out(range(30))  # a whole class is gone
    counts = Counter(LABELS[item.sample] for batch in order for item in batch)
    assert counts == {1: 20, 2: 20}
    plain = EpochSampler(5, 2, None)
    plain.leave_out({1})
    assert indices(plain) == [[0, 1], [2, 3], [4]]


def test_balanced_sampling_uses_the_samples_of_a_class_evenly_over_a_run() -> None:
    for epochs in (1, 2, 5, 20):
        counts = Counter(item.sample for items in drawn(epochs) for item in items)
        for label in (0, 1, 2):
            own = [counts[sample] for sample in range(len(LABELS)) if LABELS[sample] == label]
            assert max(own) - min(own) <= 1


def test_a_sample_drawn_again_in_an_epoch_is_another_copy() -> None:
    for items in drawn(epochs=5):
        assert len({(item.sample, item.copy) for item in items}) == len(items)
        assert {item.copy for item in items if LABELS[item.sample] == 2} >= {0, 1, 2, 3}
        assert {item.copy for item in items if LABELS[item.sample] == 0} <= {0, 1}


def test_balanced_sampling_depends_on_nothing_but_seed_and_epoch() -> None:
    order = EpochSampler(len(LABELS), 8, 0, balance=LABELS)
    order.epoch = 3
    assert [item for batch in order for item in batch] == drawn(epochs=4)[3]
    assert drawn(2)[0] != drawn(2)[1]
    assert drawn(1, seed=0) != drawn(1, seed=1)


@pytest.mark.parametrize(("length", "size", "ranks"), [(24, 8, 2), (25, 8, 3), (3, 2, 4), (10, 4, 1)])
@pytest.mark.parametrize("seed", [0, None])
def test_the_slices_of_all_ranks_are_the_batch_in_order(length: int, size: int, ranks: int, seed: int | None) -> None:
    whole = list(EpochSampler(length, size, seed))
    orders = [EpochSampler(length, size, seed, rank=rank, ranks=ranks) for rank in range(ranks)]
    assert {len(order) for order in orders} == {len(whole)}
    for batch, *slices in zip(whole, *orders, strict=True):
        assert [item for own in slices for item in own] == batch
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_skipping_counts_whole_batches_whatever_the_rank() -> None:
    order = EpochSampler(20, 6, 0, rank=1, ranks=3)
    whole = list(order)
    order.skip = 2
    assert list(order) == whole[2:]
