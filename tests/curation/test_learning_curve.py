"""The learning curve on drawn features: what more images bring, and no flattery by copies."""

import numpy as np
import pytest

from fixtures.drawn_features import drawn
from lensmith.curation import label_doctor
from lensmith.curation.discriminant import FeatureRows
from lensmith.curation.learning_curve import further, learning_curve


def test_the_learning_curve_rises_and_names_the_class_that_gains_most() -> None:
    values, labels = drawn(classes=4, per_class=60, features=48, spread=3.5)
    kept = np.flatnonzero((labels > 0) | (np.arange(len(labels)) < 24))
    names, groups, all_usable = ["rare", "b", "c", "d"], [""] * len(kept), np.ones(len(kept), dtype=bool)
    found = learning_curve(FeatureRows(values[kept]), labels[kept], names, 0.3, groups, all_usable)
    assert found is not None
    accuracies = [point.balanced_accuracy for point in found.points]
    assert accuracies[-1] > accuracies[0]
    assert found.exponent > 0
    assert found.needs[0].label == "rare"
    assert 0 < found.gain_pp < 100 * (1 - accuracies[-1])
    assert "20 more of rare" in label_doctor.describe_curve(found)[1]
    assert found.needs[0].images == 24


def test_copies_in_groups_do_not_flatter_the_learning_curve() -> None:
    rng = np.random.default_rng(0)
    values, labels = (
        np.repeat(rng.standard_normal((60, 40)), 4, axis=0).astype(np.float32),
        np.repeat(np.arange(60) % 2, 4),
    )
    usable, alone = np.ones(240, dtype=bool), [""] * 240
    together = [f"g{row // 4}" for row in range(240)]
    flattered = learning_curve(FeatureRows(values), labels, ["a", "b"], 0.1, alone, usable)
    honest = learning_curve(FeatureRows(values), labels, ["a", "b"], 0.1, together, usable)
    assert flattered is not None
    assert honest is not None
    assert flattered.points[-1].balanced_accuracy > 0.7  # of labels that nothing tells
    assert honest.points[-1].balanced_accuracy < 0.65


@pytest.mark.parametrize(("images", "more"), [(8, 20), (90, 20), (240, 60), (600, 100), (12_345, 3000)])
def test_further_images_are_a_round_number(images: int, more: int) -> None:
    assert further(images) == more
