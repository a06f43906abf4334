"""Self-training of a solved head: unlabelled pictures join with the classes that the head is fairly sure of.

The head answers with its temperature fitted on the validation part. Of each class the most confident answers are taken,
no more than the median class has, since easy classes would crowd out the others. The head that is solved for with these
pseudo-labels is kept only where the validation part shows that it is better: by more than one standard error of the
difference, image by image, and without a worse score of the monitored metric.

Sources: Lee, Pseudo-Label, 2013, for the method; Zou et al., Class-Balanced Self-Training, 2018, for equal shares.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from lensmith.evaluation.confidence import at_temperature, scale
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.linear_probe.fit import LinearProbe
from lensmith.training.linear_probe.lbfgs import LinearHead
from lensmith.training.validate import ModelOutputs

CONFIDENT = 0.5
"""Least calibrated confidence of a pseudo-label. At 0.9 the head learns what it knows already; docs/log.md has both."""

Solve = Callable[[list[Features], Tensor], LinearProbe]
"""Features of each view and labels, int64 (N,) → the head that is solved for with them."""


@dataclass(frozen=True)
class SelfTraining:
    """What became of the unlabelled pictures.

    Attributes:
        probe: the head that is kept.
        kept: whether it learnt from pseudo-labels.
        rows: numbers of the unlabelled pictures that were given a pseudo-label.
        labels: int64 (K,), their classes.
        confidences: float32 (K,), their calibrated confidences, 0..1.
        gain: mean fall of the loss on the validation part, in nats.
        error: standard error of `gain`.
        score_before: score of the monitored metric on the validation part without pseudo-labels; more is better.
        score_after: the same with them.
    """

    probe: LinearProbe
    kept: bool
    rows: npt.NDArray[np.int64]
    labels: npt.NDArray[np.int64]
    confidences: npt.NDArray[np.float32]
    gain: float
    error: float
    score_before: float = 0.0
    score_after: float = 0.0


def self_train(
    probe: LinearProbe,
    views: list[Features],
    labels: Tensor,
    validation: tuple[Features, Tensor],
    unlabelled: Features,
    monitor: str,
    solve: Solve,
) -> SelfTraining:
    """Solve for the head again with pseudo-labels, and keep the better of both heads.

    Args:
        probe: the head that was solved for with the labelled images alone.
        views: features of the training part in each view, float16 (N, F) each.
        labels: int64 (N,), class indices of the training part.
        validation: features (M, F) and labels int64 (M,) of the validation part.
        unlabelled: features of the unlabelled pictures, (U, F).
        monitor: metric that must not become worse: loss, accuracy, balanced_accuracy or f1.
        solve: solver, with the settings of the run.
    """
    before = _outputs(probe.head, *validation)
    temperature = scale(before.labels.numpy(), before.logits.softmax(1).numpy()).temperature
    readable = np.delete(np.arange(len(unlabelled.values)), list(unlabelled.unreadable))
    answers = at_temperature(_logits(probe.head, unlabelled, readable).softmax(1).numpy(), temperature)
    chosen = pseudo_labels(answers)
    rows, guesses, confidences = readable[chosen], answers[chosen].argmax(1), answers[chosen].max(1)
    if not len(rows):
        return SelfTraining(probe, False, rows, guesses, confidences, 0.0, 0.0)
    again = solve(
        [_joined(view, unlabelled, rows, first=number == 0) for number, view in enumerate(views)],
        torch.cat([labels, torch.from_numpy(guesses)]),
    )
    after = _outputs(again.head, *validation)
    fall = _losses(before) - _losses(after)
    gain, error = float(fall.mean()), float(fall.std(ddof=1) / np.sqrt(len(fall))) if len(fall) > 1 else np.inf
    scores = before.score(monitor), after.score(monitor)
    kept = bool(gain > error and scores[1] >= scores[0])
    return SelfTraining(again if kept else probe, kept, rows, guesses, confidences, gain, error, *scores)


def pseudo_labels(answers: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Rows with a confidence of at least CONFIDENT, of each class at most as many as the median class has.

    Args:
        answers: float32 (N, C), calibrated probabilities.

    Returns:
        int64 (K,), rising.
    """
    confidences, guesses = answers.max(1), answers.argmax(1)
    sure = np.flatnonzero(confidences >= CONFIDENT)
    counts = np.bincount(guesses[sure], minlength=answers.shape[1])
    most = int(np.median(counts[counts > 0])) if len(sure) else 0
    taken: list[int] = []
    for label in np.flatnonzero(counts):
        members = sure[guesses[sure] == label]
        taken += members[np.argsort(-confidences[members], kind="stable")][:most].tolist()
    return np.array(sorted(taken), dtype=np.int64)


def _joined(view: Features, unlabelled: Features, rows: npt.NDArray[np.int64], first: bool) -> Features:
    """One view of the training part with the pictures that got a pseudo-label, which have the first view only."""
    count = len(view.values)
    values = np.concatenate([view.values, unlabelled.values[rows].astype(view.values.dtype)])
    lost = {} if first else {count + row: "it has one view" for row in range(len(rows))}
    return Features(values, {**view.unreadable, **lost})


def _logits(head: LinearHead, features: Features, rows: npt.NDArray[np.int64]) -> Tensor:
    """Logits float32 (K, C) of some rows, piece by piece."""
    pieces = [rows[start : start + 4096] for start in range(0, len(rows), 4096)] or [rows]
    return torch.cat([head(torch.from_numpy(features.values[piece].astype(np.float32))) for piece in pieces])


def _outputs(head: LinearHead, features: Features, labels: Tensor) -> ModelOutputs:
    readable = np.delete(np.arange(len(labels)), list(features.unreadable))
    return ModelOutputs(_logits(head, features, readable), labels[torch.from_numpy(readable)], [], [])


def _losses(outputs: ModelOutputs) -> npt.NDArray[np.float64]:
    """float64 (M,): cross-entropy of each image in nats."""
    found = torch.nn.functional.cross_entropy(outputs.logits, outputs.labels, reduction="none")
    losses: npt.NDArray[np.float64] = found.double().numpy()
    return losses
