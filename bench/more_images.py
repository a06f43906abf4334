"""Promises of the label doctor's learning curve against what more images bring.

    python bench/more_images.py [--per-class 9 20 50 -80 -200] [--draws 3] [--json]

From Fashion-MNIST's training images so many of each class are drawn (a negative number: so many of the first class,
half of it of the second, and so on, at least nine). The curve promises what more images bring; they are added from the
rest, to all classes at once and to one class at a time, and heads are evaluated on 2,000 test images.
"""

import argparse
import json

import numpy as np
from threadpoolctl import threadpool_limits

import lensmith
from lensmith.config import TrainSettings
from lensmith.core.machine import cache_dir
from lensmith.curation.discriminant import FeatureRows, fit_discriminant, moments_by_part
from lensmith.curation.learning_curve import learning_curve
from lensmith.curation.out_of_fold import evaluate_labels
from lensmith.data.scan import scan
from lensmith.training.feature_cache.image_features import image_features


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--per-class", type=int, nargs="+", default=[9, 20, 50, -80, -200])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    data = cache_dir() / "bench" / "fashion-6000"
    lensmith.fetch("fashion-mnist", data, max_train=6000, max_test=2000)
    images = scan(data)
    labels = np.array([sample.label for sample in images.samples])
    values = image_features(images, images.samples, TrainSettings(data=data)).values.reshape(len(labels), -1)
    test = np.array([sample.part == "test" for sample in images.samples])
    classes = len(images.labels)

    def recall(rows: np.ndarray, shrinkage: float) -> np.ndarray:
        """Recall of each class on the test images, in per cent, by a head learnt on some rows."""
        both = np.concatenate([rows, np.flatnonzero(test)])
        features, parts = FeatureRows(values[both]), np.where(np.arange(len(both)) < len(rows), 0, -1)
        head = fit_discriminant(moments_by_part(features, labels[both], classes, parts, 1)[0], shrinkage)
        guesses = [head.logits(x).argmax(axis=1) for _, x in features.blocks(np.arange(len(rows), len(both)))]
        right = np.concatenate(guesses) == labels[test]
        return 100 * np.array([right[labels[test] == label].mean() for label in range(classes)])

    result = {}
    for count in given.per_class:
        rows = []
        for draw in range(given.draws):
            random = np.random.default_rng(draw)
            order = [random.permutation(np.flatnonzero((labels == label) & ~test)) for label in range(classes)]
            sizes = [count if count > 0 else max(9, -count >> label % 4) for label in range(classes)]
            some = np.concatenate([each[:size] for each, size in zip(order, sizes, strict=True)])
            features, truth, names = FeatureRows(values[some]), labels[some], [str(label) for label in range(classes)]
            shrinkage = evaluate_labels(features, truth, classes).shrinkage
            everything = np.ones(len(some), dtype=bool)
            curve = learning_curve(features, truth, names, shrinkage, [""] * len(some), everything)
            needs = {int(need.label): need for need in curve.needs}
            added = [order[label][size : size + needs[label].more] for label, size in enumerate(sizes)]
            before = recall(some, shrinkage)
            alone = [recall(np.concatenate([some, more]), shrinkage) - before for more in added]
            together = recall(np.concatenate([some, *added]), shrinkage) - before
            rows.append(
                {
                    "together_promised": curve.gain_pp,
                    "together": together.mean(),
                    "alone_promised": np.mean([need.gain_pp for need in needs.values()]),
                    "alone": np.mean([gain[label] for label, gain in enumerate(alone)]),
                    "first_promised": curve.needs[0].gain_pp,
                    "first": alone[int(curve.needs[0].label)][int(curve.needs[0].label)],
                    "balanced_alone": np.mean(alone),
                    "balanced_first": alone[int(curve.needs[0].label)].mean(),
                }
            )
        result[str(count)] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
        if not given.json:
            print(f"{count:5}: " + "; ".join(f"{name} {value:.1f}" for name, value in result[str(count)].items()))
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    with threadpool_limits(limits=1, user_api="blas"):
        main()
