"""Some samples of a part, spread over its classes."""

from pathlib import Path

import numpy as np
import pytest

from lensmith.core.stats import evenly_spaced
from lensmith.data.scan import scan
from lensmith.exporting.samples import preprocess_samples, stratified
from lensmith.imaging.preprocessing import Preprocessing, preprocess

PREPROCESSING = Preprocessing(image_size=32)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 15, 16, 23, 1000])
def test_items_at_equal_distances_are_different_ones_and_reach_the_end(count: int) -> None:
    chosen = evenly_spaced(range(count), 8)
    assert len(set(chosen)) == len(chosen) == min(8, count)
    assert chosen[-1] >= count - count / 8 - 1


def test_each_class_has_its_share(shared_colours: Path) -> None:
    images = scan(shared_colours)
    shuffled = sorted(images.samples, key=lambda sample: sample.path[::-1])
    assert sorted(sample.label for sample in stratified(shuffled, 6)) == [0, 0, 1, 1, 2, 2]
    assert set(stratified(shuffled, 1000)) == set(images.samples)


def test_images_are_prepared_as_the_service_prepares_them_and_broken_ones_left_out(colours: Path) -> None:
    images = scan(colours)
    (colours / images.samples[0].path).write_bytes(b"broken")
    tensors, labels = preprocess_samples(images, images.samples, 1000, PREPROCESSING)
    assert len(tensors) == len(labels) == len(images.samples) - 1
    last = images.samples[-1]
    np.testing.assert_array_equal(tensors[-1], preprocess(images.file(last).read_bytes(), PREPROCESSING))
    assert labels[-1] == last.label


def test_no_images_are_an_empty_array(shared_colours: Path) -> None:
    tensors, labels = preprocess_samples(scan(shared_colours), (), 10, PREPROCESSING)
    assert tensors.shape == (0, 3, 32, 32)
    assert labels.shape == (0,)
