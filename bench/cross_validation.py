"""How often intervals of a cross-validation cover: many small sets are drawn from one, and tested on the other images.

Of each set the folds solve for their heads, and one more is solved for on all images with what they chose, as
`lensmith train --cv` does with a frozen backbone. Covered is the mean accuracy of the folds' models, and the accuracy
of the last one, on 8,000 images that are in no fold.

    lensmith data fetch fashion-mnist DIR --max-train 6000
    python bench/cross_validation.py DIR --images 600 --sets 200
"""

import argparse
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from lensmith.config import TrainSettings
from lensmith.data.folds import divide
from lensmith.data.scan import scan
from lensmith.evaluation.cross_validation import group_interval, variance_inflation
from lensmith.training.cross_validation import choose_head
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_cache.image_features import image_features
from lensmith.training.linear_probe.fit import fit_linear_probe
from lensmith.training.loss import task_of

FOLDS, TESTED = 5, 8000


def main() -> None:
    """Draw the sets, and print how often each interval covers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=600, help="number of images in a set")
    parser.add_argument("--sets", type=int, default=200)
    given = parser.parse_args()
    settings = TrainSettings.model_validate({"data": given.folder, "image_size": 96, "label_smoothing": 0.1})
    images, device = scan(given.folder), torch.device("cpu")
    found = image_features(images, images.samples, settings)
    values = found.values.astype(np.float16).reshape(len(images.samples), -1)
    labels = torch.tensor([sample.label for sample in images.samples])

    def fit(rows, validation=None, chosen=None):  # type: ignore[no-untyped-def]
        task = task_of(settings, images.labels, Counter(labels[rows].tolist()), device)
        held_out = None if validation is None else (Features(values[validation], {}), labels[validation])
        return fit_linear_probe(
            [Features(values[rows], {})], labels[rows], len(images.labels), held_out, task, settings, device,
            chosen=chosen,
        )  # fmt: skip

    def correct(head, rows):  # type: ignore[no-untyped-def]
        answers = head(torch.from_numpy(values[rows].astype(np.float32))).argmax(1)
        return (answers == labels[rows]).numpy()

    covered = Counter()  # type: ignore[var-annotated]
    for number in range(given.sets):
        order = np.random.default_rng(1000 + number).permutation(len(labels))
        rows, others = order[: given.images], order[given.images : given.images + TESTED]
        folds = np.array(divide(labels[rows].tolist(), [f"{number}-{row}" for row in rows], FOLDS, number))
        probes = [fit(rows[folds != fold], rows[folds == fold]) for fold in range(FOLDS)]
        pooled = np.concatenate([correct(probe.head, rows[folds == fold]) for fold, probe in enumerate(probes)])
        last = fit(rows, chosen=choose_head([{"tried": each.tried, "temperature": 1.0} for each in probes])).head
        truth = {
            "folds' models": np.mean([correct(probe.head, others).mean() for probe in probes]),
            "last model": correct(last, others).mean(),
        }
        for name, inflation in (("answers alone", 1.0), ("widened", variance_inflation(FOLDS))):
            low, high = group_interval(pooled, np.arange(given.images), inflation)
            for model, accuracy in truth.items():
                covered[name, model] += bool(low <= accuracy <= high)
    for (name, model), count in covered.items():
        print(f"{name}: covers the {model} in {count / given.sets:.1%} of {given.sets} sets of {given.images}")


if __name__ == "__main__":
    main()
