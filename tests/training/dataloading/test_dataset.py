"""Every image once an epoch, in an order that depends on nothing but seed and epoch."""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lensmith.data.split import prepare
from lensmith.errors import RunError
from lensmith.imaging.preprocessing import Preprocessing, preprocess
from lensmith.training.dataloading.augment import LEVELS, Augment
from lensmith.training.dataloading.dataset import Batch, ImageDataset
from lensmith.training.dataloading.loader import build_loader
from lensmith.training.dataloading.sampler import EpochSampler, Item

HOW = Preprocessing(image_size=24)
CPU = torch.device("cpu")


def images(folder: Path, augment: Augment | None = LEVELS["standard"], seed: int = 0) -> ImageDataset:
    found = prepare(folder, (5, 3, 2), 0)
    return ImageDataset(found, found.samples, HOW, augment, seed)


def batches(dataset: ImageDataset, order: EpochSampler, workers: int = 0) -> list[Batch]:
    return list(build_loader(dataset, order, workers, CPU))


def same(first: Batch, second: Batch) -> bool:
    tensors = all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("images", "labels", "factors"))
    return tensors and first.indices == second.indices


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


LABELS = [0] * 30 + [1] * 7 + [2] * 3


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


def test_copies_of_a_sample_are_augmented_differently(shared_colours: Path) -> None:
    dataset = images(shared_colours)
    first, again, second = (dataset[Item(0, 5, copy)] for copy in (0, 0, 1))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], second[0])


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


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
def test_a_rank_without_images_gets_an_empty_batch(shared_colours: Path, augment: Augment | None) -> None:
    found = batches(images(shared_colours, augment), EpochSampler(24, 1, 0, rank=1, ranks=2))
    assert len(found) == 24
    shape = (0, 3, 24, 24) if augment is None else (0, 24, 24, 3)
    assert {(batch.taken, len(batch.labels), tuple(batch.images.shape)) for batch in found} == {(0, 0, shape)}


def test_data_workers_that_live_on_follow_epoch_and_image_size(shared_colours: Path) -> None:
    dataset, order = images(shared_colours), EpochSampler(24, 8, seed=0)
    living = build_loader(dataset, order, 2, CPU)
    for order.epoch, order.size in ((0, 16), (1, 16), (1, 40), (2, None)):
        found = list(living)
        assert all(map(same, found, batches(dataset, order)))
        assert {batch.images.shape[1] for batch in found} == {order.size or 24}


@pytest.mark.parametrize("done", [0, 1, 5, 6])
def test_skipping_gives_the_tail_of_the_epoch(shared_colours: Path, done: int) -> None:
    dataset, order = images(shared_colours), EpochSampler(24, 4, seed=0)
    whole = batches(dataset, order)
    order.skip = done
    tail = batches(dataset, order)
    assert len(tail) == len(whole) - done
    assert all(map(same, tail, whole[done:]))


def test_data_workers_change_no_pixel(shared_colours: Path) -> None:
    dataset, order = images(shared_colours), EpochSampler(24, 5, seed=0)
    alone = batches(dataset, order)
    assert all(map(same, batches(dataset, order, workers=2), alone))


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_runs_out_while_decoding_is_said_in_plain_words(
    shared_colours: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    monkeypatch.setattr("lensmith.training.dataloading.dataset.normalise", lambda *_: np.empty((3, 2**40, 2**15)))
    with pytest.raises(RunError, match=r"could not be had .*Unable to allocate") as raised:
        batches(images(shared_colours, augment=None), EpochSampler(8, 4, None), workers)
    assert "\n" not in str(raised.value)


def test_a_data_worker_that_is_killed_is_said_in_plain_words(
    shared_colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "lensmith.training.dataloading.dataset.normalise", lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    )
    with pytest.raises(RunError, match=r"could not be had \(DataLoader worker "):
        batches(images(shared_colours, augment=None), EpochSampler(8, 4, None), 1)


def test_a_loader_leaves_torch_s_random_numbers_alone(shared_colours: Path) -> None:
    before = torch.get_rng_state()
    batches(images(shared_colours), EpochSampler(24, 8, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_batches_hold_bytes_labels_and_factors(shared_colours: Path) -> None:
    dataset = images(shared_colours)
    batch = batches(dataset, EpochSampler(24, 8, seed=0))[0]
    assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (8, 24, 24, 3))
    assert (batch.factors.dtype, tuple(batch.factors.shape)) == (torch.float32, (8, 4))
    assert batch.labels.tolist() == [dataset.samples[index].label for index in batch.indices]
    assert batch.taken == 8


def test_validation_is_what_the_service_would_make_of_the_file(shared_colours: Path) -> None:
    dataset = images(shared_colours, augment=None)
    for batch in batches(dataset, EpochSampler(24, 7, None)):
        for row, index in enumerate(batch.indices):
            encoded = dataset.images.file(dataset.samples[index]).read_bytes()
            assert np.array_equal(batch.images[row].numpy(), preprocess(encoded, HOW))


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
@pytest.mark.parametrize("damage", [b"no image at all", None])
def test_a_file_that_cannot_be_read_is_left_out_and_named(
    colours: Path, augment: Augment | None, damage: bytes | None
) -> None:
    dataset, order = images(colours, augment), EpochSampler(24, 8, seed=0)
    whole = batches(dataset, order)[0]
    lost = dataset.samples[whole.indices[2]]
    if damage is None:
        dataset.images.file(lost).unlink()
    else:
        dataset.images.file(lost).write_bytes(damage)
    batch = batches(dataset, order)[0]
    kept = [row for row in range(8) if row != 2]
    assert [path for path, _ in batch.unreadable] == [lost.path]
    assert batch.unreadable[0][1].startswith("It cannot be")
    assert batch.taken == 8
    assert batch.indices == [whole.indices[row] for row in kept]
    assert torch.equal(batch.images, whole.images[kept])
    assert torch.equal(batch.labels, whole.labels[kept])


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
def test_a_batch_of_unreadable_files_is_empty(colours: Path, augment: Augment | None) -> None:
    dataset = images(colours, augment)
    for sample in dataset.samples:
        dataset.images.file(sample).write_bytes(b"broken")
    batch: Any = batches(dataset, EpochSampler(24, 4, None))[0]
    assert (len(batch.images), len(batch.labels), len(batch.factors), batch.taken) == (0, 0, 0, 4)
    assert len(batch.unreadable) == 4
