"""Heads that are solved for reach what slow solvers reach, with the regularisation that validates best."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from lensmith.config import TrainSettings
from lensmith.evaluation.confidence import supported_confidence
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.linear_probe.fit import SHARPNESS, copy_head, fit_linear_probe, nearest_mean
from lensmith.training.linear_probe.lbfgs import STRENGTHS, FeatureTable, LinearHead, fit_lbfgs
from lensmith.training.loss import Classification

CPU = torch.device("cpu")
CLASSES, FEATURES = 4, 12


def data(count: int, noise: float, seed: int = 0, shift: int = 7) -> tuple[Features, torch.Tensor]:
    """Gaussian classes, features of very different scales."""
    means = np.random.default_rng(shift).normal(size=(CLASSES, FEATURES))
    random = np.random.default_rng(seed)
    labels = np.arange(count) % CLASSES
    values = means[labels] + noise * random.normal(size=(count, FEATURES))
    scales = 10.0 ** np.linspace(-1, 2, FEATURES)
    return Features((values * scales + 3).astype(np.float16), {}), torch.from_numpy(labels)


def settings(**values: object) -> TrainSettings:
    return TrainSettings.model_validate({"data": "photos", **values})


def fitted(table: FeatureTable, task: Classification | None = None) -> LinearHead:
    """The head without a validation part."""
    [(head, _)] = fit_lbfgs(table, CLASSES, task or Classification(), None)
    return head


def loss(head: LinearHead, rows: Features, labels: torch.Tensor, smoothing: float = 0.0) -> float:
    logits = head(torch.from_numpy(rows.values.astype(np.float32)))
    return torch.nn.functional.cross_entropy(logits, labels, label_smoothing=smoothing).item()


@pytest.mark.parametrize("balanced", [False, True])
def test_it_is_the_solution_that_scikit_learn_finds(balanced: bool) -> None:
    rows, labels = data(200, 1.0)
    keep = torch.cat([torch.nonzero(labels == 0)[:10, 0], torch.nonzero(labels != 0)[:, 0]])
    rows, labels = Features(rows.values[keep.numpy()], {}), labels[keep]
    counts = torch.bincount(labels).float()
    weights = len(labels) / (CLASSES * counts) if balanced else None
    table = FeatureTable([rows], labels, CPU)
    head = fitted(table, Classification(0.0, weights))
    plain = (rows.values.astype(np.float64) - table.mean.numpy()) / table.scale.numpy()
    theirs = LogisticRegression(
        C=1 / (head.strength * len(labels)), class_weight="balanced" if balanced else None, tol=1e-10, max_iter=10_000
    ).fit(plain, labels.numpy())
    ours = head(torch.from_numpy(rows.values.astype(np.float32))).softmax(1).numpy()
    assert np.abs(ours - theirs.predict_proba(plain)).max() < 5e-3


def test_features_that_hardly_change_do_not_drown_the_others() -> None:
    """As ReLUs that are nearly always zero do: a deviation of almost nothing is no reason to count as much."""
    random, (told, labels) = np.random.default_rng(2), data(120, 1.0)
    held, truth = data(2000, 1.0, seed=1)

    def with_noise(rows: Features) -> Features:
        informative = rows.values / rows.values.astype(np.float32).std(0)
        noise = 0.01 * random.normal(size=(len(informative), 400))
        return Features(np.concatenate([informative, noise], 1).astype(np.float16), {})

    def right(rows: Features, others: Features) -> float:
        head = fitted(FeatureTable([rows], labels, CPU))
        answers = head(torch.from_numpy(others.values.astype(np.float32))).argmax(1)
        return float((answers == truth).float().mean())

    assert right(with_noise(told), with_noise(held)) > right(told, held) - 0.02


def test_regularisation_is_picked_on_the_validation_part() -> None:
    few, many = data(24, 3.0), data(4000, 3.0)
    held = data(2000, 3.0, seed=1)

    def score(head: LinearHead) -> float:
        return -loss(head, *held)

    picked = []
    for rows, labels in (few, many):
        tried = fit_lbfgs(FeatureTable([rows], labels, CPU), CLASSES, Classification(), score)
        assert [value for _, value in tried] == [score(head) for head, _ in tried]
        picked.append(max(tried, key=lambda pair: pair[1])[0].strength)
    assert picked[0] > picked[1]  # fewer images need more of it


def test_features_that_do_not_fit_into_memory_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, labels = data(300, 1.0)
    whole = fitted(FeatureTable([rows], labels, CPU))
    monkeypatch.setattr("lensmith.training.linear_probe.lbfgs._MEMORY_SHARE", 0.0)
    monkeypatch.setattr("lensmith.training.linear_probe.lbfgs._PIECE_BYTES", 4 * FEATURES * 64)
    table = FeatureTable([rows], labels, CPU)
    assert [len(truth) for _, truth in table] == [64] * 4 + [44]
    pieces = fitted(table)
    assert loss(pieces, rows, labels) == pytest.approx(loss(whole, rows, labels), rel=1e-3)


def test_rows_of_unreadable_images_do_not_count() -> None:
    rows, labels = data(80, 1.0)
    values = rows.values.copy()
    values[5] = np.nan
    holes = FeatureTable([Features(values, {5: "broken"}), rows], labels, CPU)
    assert holes.count == 159
    assert torch.isfinite(fitted(holes).weight).all()


def test_nearest_means_win_where_classes_are_tiny_and_lose_where_they_are_not() -> None:
    held = data(2000, 2.0, seed=1)
    ways = {}
    for count in (8, 2000):
        rows, labels = data(count, 2.0)
        chosen = fit_linear_probe([rows], labels, CLASSES, held, Classification(), settings(monitor="accuracy"), CPU)
        ways[count] = {one["way"] for one in chosen.tried}
        best = max(chosen.tried, key=lambda one: one["score"])
        assert (chosen.head.name, chosen.head.strength) == (best["way"], best["strength"])
    assert ways == {8: {"L-BFGS", "nearest mean"}, 2000: {"L-BFGS"}}
    rows, labels = data(4, 2.0)  # one image a class
    chosen = fit_linear_probe([rows], labels, CLASSES, held, Classification(), settings(monitor="loss"), CPU)
    assert {one["way"] for one in chosen.tried} == {"L-BFGS", "nearest mean"}


@pytest.mark.parametrize("solver", ["ncm", "lbfgs", "auto"])
@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
@pytest.mark.parametrize("count", [9, 30])
def test_validation_without_mistakes_proves_no_certainty(solver: str, monitor: str, count: int) -> None:
    """Sharper heads and weaker decay lose ever less on such a part, so that the most extreme would always win."""
    rows, labels = data(48, 0.01)
    held, truth = data(count, 0.01, seed=1)
    chosen = fit_linear_probe(
        [rows], labels, CLASSES, (held, truth), Classification(), settings(head_solver=solver, monitor=monitor), CPU
    )
    answered = chosen.head(torch.from_numpy(held.values.astype(np.float32))).softmax(1)
    assert torch.equal(answered.argmax(1), truth)
    assert float(answered.max(1).values.mean()) <= supported_confidence(count) + 1e-4


def test_equal_scores_go_to_the_strongest_decay_and_the_least_sharp_head() -> None:
    rows, labels = data(48, 0.01)
    tried = fit_lbfgs(FeatureTable([rows], labels, CPU), CLASSES, Classification(), lambda head: 1.0)
    assert max(tried, key=lambda pair: pair[1])[0].strength == STRENGTHS[0]
    head, _ = nearest_mean(FeatureTable([rows], labels, CPU), CLASSES, lambda head: 1.0)
    assert head.strength == min(SHARPNESS)


def test_nearest_means_are_the_nearest() -> None:
    rows, labels = data(400, 0.5)
    table = FeatureTable([rows], labels, CPU)
    head, _ = nearest_mean(table, CLASSES, lambda head: -loss(head, rows, labels))
    plain = (torch.from_numpy(rows.values.astype(np.float32)) - table.mean) / table.std
    means = torch.stack([plain[labels == label].mean(0) for label in range(CLASSES)])
    spread = ((plain - means[labels]) ** 2).sum(0).add(CLASSES) / (len(labels) + CLASSES)
    distances = ((plain[:, None] - means[None]) ** 2 / spread).sum(2)
    answered = head(torch.from_numpy(rows.values.astype(np.float32))).argmax(1)
    assert torch.equal(answered, distances.argmin(1))


def test_without_a_validation_part_there_is_still_a_head_that_a_layer_takes() -> None:
    rows, labels = data(40, 1.0)
    for solver, way in (("auto", "L-BFGS"), ("lbfgs", "L-BFGS"), ("ncm", "nearest mean")):
        chosen = fit_linear_probe([rows], labels, CLASSES, None, Classification(), settings(head_solver=solver), CPU)
        assert [one["way"] for one in chosen.tried] == [way]
        assert chosen.correct > 30
    layer = torch.nn.Linear(FEATURES, CLASSES)
    copy_head(chosen.head, layer)
    features = torch.from_numpy(rows.values.astype(np.float32))
    assert torch.allclose(layer(features), chosen.head(features), rtol=1e-4, atol=1e-4)
