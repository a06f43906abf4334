"""Self-training: pseudo-labels in equal shares, and kept only where the validation part shows that they help."""

import numpy as np
import pytest
import torch

from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.linear_probe.fit import LinearProbe
from lensmith.training.linear_probe.lbfgs import LinearHead
from lensmith.training.linear_probe.self_training import pseudo_labels, self_train


def probe_of(weight) -> LinearProbe:
    weight = torch.tensor(weight, dtype=torch.float32)
    return LinearProbe(LinearHead(weight, torch.zeros(len(weight)), "by hand", 1.0), [], 1, 1.0, 1.0, 1)


def features(values) -> Features:
    return Features(np.asarray(values, dtype=np.float32), {})


WEAK, GOOD, BAD = probe_of(np.eye(2) * 0.5), probe_of(np.eye(2) * 2), probe_of(-np.eye(2))
VALIDATION = features(np.repeat(np.eye(2), 30, axis=0)), torch.arange(2).repeat_interleave(30)


def run(solved: LinearProbe, seen: list, monitor: str = "loss", unlabelled=None):
    labelled = features(np.eye(2))

    def solve(views, labels):
        seen.append((views, labels))
        return solved

    pictures = unlabelled or features([[9, 0], [8, 0], [7, 0], [0, 9], [0, 0.0]])
    return self_train(WEAK, [labelled, labelled], torch.arange(2), VALIDATION, pictures, monitor, solve)


def test_no_class_gets_more_than_the_median_class():
    sure, unsure = [0.9, 0.05, 0.05], [0.4, 0.3, 0.3]
    answers = np.array([sure, [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], unsure, [0.1, 0.1, 0.8], [0.7, 0.2, 0.1]], np.float32)
    assert pseudo_labels(answers).tolist() == [0, 2, 4]
    assert pseudo_labels(answers[3:4]).tolist() == []


def test_the_head_sees_pseudo_labels_in_the_first_view_alone():
    seen: list = []
    found = run(GOOD, seen)
    (first, second), labels = seen[0]
    taken = len(found.rows)
    assert labels.tolist() == [0, 1, *found.labels]
    assert first.values.shape == second.values.shape == (2 + taken, 2)
    assert not first.unreadable
    assert set(second.unreadable) == set(range(2, 2 + taken))
    assert (found.confidences >= 0.5).all()


@pytest.mark.parametrize(("solved", "kept"), [(GOOD, True), (BAD, False), (WEAK, False)])
def test_only_a_better_head_is_kept(solved, kept):
    found = run(solved, [])
    assert found.kept is kept
    assert found.probe is (solved if kept else WEAK)


def test_a_lower_loss_does_not_outweigh_a_worse_monitored_metric():
    # Twice as sure on 28 of 30, and wrong on two that were right.
    skewed = np.repeat(np.eye(2), 30, axis=0).astype(np.float32)
    skewed[:2] = [0.1, 0.05]
    validation = features(skewed), VALIDATION[1]
    tilted = probe_of([[2.0, 0.0], [1.0, 6.0]])
    found = self_train(
        WEAK, [features(np.eye(2))], torch.arange(2), validation, features([[9.0, 0], [0, 9]]), "accuracy",
        lambda views, labels: tilted,
    )  # fmt: skip
    assert found.gain > found.error
    assert found.score_after < found.score_before
    assert not found.kept


def test_nothing_sure_changes_nothing():
    seen: list = []
    found = run(GOOD, seen, unlabelled=Features(np.full((2, 2), np.nan, np.float32), {0: "broken", 1: "broken"}))
    assert (seen, found.kept, found.probe) == ([], False, WEAK)
