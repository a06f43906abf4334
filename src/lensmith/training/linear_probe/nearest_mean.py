"""Nearest class mean as a linear head, which does not overfit with few images.

Source: Mensink et al., Distance-Based Image Classification, 2013; the distance here counts each feature by the inverse
of its variance within the classes. −s ‖x − μ‖² is linear in x but for a part that all classes share.
"""

from collections.abc import Callable

import torch

from lensmith.training.linear_probe.lbfgs import FeatureTable, LinearHead

SHARPNESS = tuple(2.0**-power for power in range(2, 16))
"""Candidates of the sharpness s, which changes confidences but not the nearest class."""

SMALL_CLASS = 50
"""Images of the smallest class, above which L-BFGS always won where it was measured."""


def nearest_mean(
    table: FeatureTable, classes: int, score: Callable[[LinearHead], float] | None
) -> tuple[LinearHead, float]:
    """The nearest-mean head whose sharpness has the best score, and that score.

    Args:
        table: features and labels, with at least one row of each class.
        classes: number of classes C.
        score: a head's score on the validation part, which depends on confidences; None: there is none, and s is 1 / F.
    """
    sums = torch.zeros(classes, table.features, device=table.device)
    counts = torch.zeros(classes, device=table.device)
    for features, labels in table:
        sums.index_add_(0, labels, (features - table.mean) / table.std)
        counts.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float32))
    means = sums / counts.clamp(min=1)[:, None]
    spread = torch.zeros(table.features, device=table.device)
    for features, labels in table:
        spread += ((features - table.mean) / table.std - means[labels]).square().sum(0)
    # Shrunk towards the variance of all features, 1, as few images tell little about that within a class.
    spread = (spread + classes) / (table.count + classes)
    gone = torch.where(counts > 0, 0.0, -1e4)  # a class without images is never predicted
    weight, bias = 2 * means / spread, (means.square() / spread).sum(1)
    heads = [
        table.folded(sharp * weight, gone - sharp * bias, table.std, "nearest mean", sharp)
        for sharp in (SHARPNESS if score else (1 / table.features,))
    ]
    return max(((head, score(head) if score else 0.0) for head in heads), key=lambda pair: pair[1])
