"""Every image once an epoch, in an order that depends on nothing but seed and epoch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lensmith.data.split import prepare
from lensmith.image import Preprocessing, preprocess
from lensmith.train.augment import LEVELS, Augment
from lensmith.train.dataset import Batch, Images, Order, loader

HOW = Preprocessing(image_size=24)
CPU = torch.device("cpu")


def images(folder: Path, augment: Augment | None = LEVELS["standard"], seed: int = 0) -> Images:
    found = prepare(folder, (5, 3, 2), 0)
    return Images(found, found.samples, HOW, augment, seed)


def batches(dataset: Images, order: Order, workers: int = 0) -> list[Batch]:
    return list(loader(dataset, order, workers, CPU))


def same(first: Batch, second: Batch) -> bool:
    tensors = all(torch.equal(getattr(first, n), getattr(second, n)) for n in ("images", "labels", "factors"))
    return tensors and first.indices == second.indices


def indices(order: Order) -> list[list[int]]:
    return [[index for _, index in batch] for batch in order]


@pytest.mark.parametrize(("length", "size"), [(10, 4), (12, 4), (9, 8), (1, 4), (5, 1), (33, 32)])
def test_each_sample_comes_once_an_epoch_in_near_equal_batches(length: int, size: int) -> None:
    order = Order(length, size, seed=3)
    found = indices(order)
    assert sorted(index for batch in found for index in batch) == list(range(length))
    assert len(found) == len(order) == -(-length // size)
    lengths = [len(batch) for batch in found]
    assert max(lengths) <= size
    assert max(lengths) - min(lengths) <= 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    first, other = Order(50, 8, seed=0), Order(50, 8, seed=1)
    before = indices(first)
    assert indices(first) == before
    assert indices(other) != before
    first.epoch = 1
    assert indices(first) != before
    assert next(iter(first))[0][0] == 1


def test_without_a_seed_the_order_is_the_folder_s() -> None:
    assert indices(Order(5, 2, None)) == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize("done", [0, 1, 5, 6])
def test_skipping_gives_the_tail_of_the_epoch(shared_colours: Path, done: int) -> None:
    dataset, order = images(shared_colours), Order(24, 4, seed=0)
    whole = batches(dataset, order)
    order.skip = done
    tail = batches(dataset, order)
    assert len(tail) == len(whole) - done
    assert all(map(same, tail, whole[done:]))


def test_data_workers_change_no_pixel(shared_colours: Path) -> None:
    dataset, order = images(shared_colours), Order(24, 5, seed=0)
    alone = batches(dataset, order)
    assert all(map(same, batches(dataset, order, workers=2), alone))


def test_a_loader_leaves_torch_s_random_numbers_alone(shared_colours: Path) -> None:
    before = torch.get_rng_state()
    batches(images(shared_colours), Order(24, 8, seed=0))
    assert torch.equal(torch.get_rng_state(), before)


def test_training_batches_hold_bytes_labels_and_factors(shared_colours: Path) -> None:
    dataset = images(shared_colours)
    batch = batches(dataset, Order(24, 8, seed=0))[0]
    assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (8, 24, 24, 3))
    assert (batch.factors.dtype, tuple(batch.factors.shape)) == (torch.float32, (8, 4))
    assert batch.labels.tolist() == [dataset.samples[index].label for index in batch.indices]
    assert batch.taken == 8


def test_validation_is_what_the_service_would_make_of_the_file(shared_colours: Path) -> None:
    dataset = images(shared_colours, augment=None)
    for batch in batches(dataset, Order(24, 7, None)):
        for row, index in enumerate(batch.indices):
            encoded = dataset.images.file(dataset.samples[index]).read_bytes()
            assert np.array_equal(batch.images[row].numpy(), preprocess(encoded, HOW))


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
@pytest.mark.parametrize("damage", [b"no image at all", None])
def test_a_file_that_cannot_be_read_is_left_out_and_named(
    colours: Path, augment: Augment | None, damage: bytes | None
) -> None:
    dataset, order = images(colours, augment), Order(24, 8, seed=0)
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
    batch: Any = batches(dataset, Order(24, 4, None))[0]
    assert (len(batch.images), len(batch.labels), len(batch.factors), batch.taken) == (0, 0, 0, 4)
    assert len(batch.unreadable) == 4
