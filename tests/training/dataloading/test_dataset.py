"""Batches are the same whoever decodes them, and files that cannot be read are left out."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

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


def test_copies_of_a_sample_are_augmented_differently(shared_colours: Path) -> None:
    dataset = images(shared_colours)
    first, again, second = (dataset[Item(0, 5, copy)] for copy in (0, 0, 1))
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[0], second[0])


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
def test_a_rank_without_images_gets_an_empty_batch(shared_colours: Path, augment: Augment | None) -> None:
    found = batches(images(shared_colours, augment), EpochSampler(24, 1, 0, rank=1, ranks=2))
    assert len(found) == 24
    shape = (0, 3, 24, 24) if augment is None else (0, 24, 24, 3)
    assert {(len(batch.labels), tuple(batch.images.shape)) for batch in found} == {(0, shape)}


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
    # torch looks every five seconds whether its processes are there.
    monkeypatch.setattr(_MultiProcessingDataLoaderIter._try_get_data, "__defaults__", (0.1,))
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
    assert batch.indices == [whole.indices[row] for row in kept]
    assert torch.equal(batch.images, whole.images[kept])
    assert torch.equal(batch.labels, whole.labels[kept])


@pytest.mark.parametrize("augment", [None, LEVELS["light"]])
def test_a_batch_of_unreadable_files_is_empty(colours: Path, augment: Augment | None) -> None:
    dataset = images(colours, augment)
    for sample in dataset.samples:
        dataset.images.file(sample).write_bytes(b"broken")
    batch: Any = batches(dataset, EpochSampler(24, 4, None))[0]
    assert (len(batch.images), len(batch.labels), len(batch.factors)) == (0, 0, 0)
    assert len(batch.unreadable) == 4
