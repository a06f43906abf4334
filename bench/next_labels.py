"""What to label next, and self-training: accuracy of a head after 100 more labels, by which pictures were labelled.

    python bench/next_labels.py [--data DATA] [--draws 3] [--quick] [--json]

DATA has the parts train and test; 6,000 and 2,000 images of Fashion-MNIST by default. A linear head on features of the
frozen backbone learns from a few labels of each class. Then 100 of the other training images are labelled: at random,
by the smallest margin alone, or by margin and diversity (`lensmith data next`). Each figure is the mean accuracy on the
test part, with its range over the draws. Beside them: self-training on all others without a label, and how often it was
kept.
"""

import argparse
import json
from collections import Counter
from pathlib import Path

import numpy as np
import torch

import lensmith
from lensmith.config import TrainSettings
from lensmith.core.machine import cache_dir
from lensmith.core.stats import evenly_spaced
from lensmith.curation.next_labels import CANDIDATES, diverse
from lensmith.data.scan import scan
from lensmith.training.feature_cache.feature_batches import Features
from lensmith.training.feature_cache.image_features import image_features
from lensmith.training.linear_probe.fit import fit_linear_probe
from lensmith.training.linear_probe.self_training import self_train
from lensmith.training.loss import task_of

MORE, VALIDATION_SHARE = 100, 0.375


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one draw, five labels a class")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args()
    if arguments.data is None:
        arguments.data = cache_dir() / "bench" / "fashion-6000"
        lensmith.fetch("fashion-mnist", arguments.data, max_train=6000, max_test=2000)
    draws, sizes = (1, (5,)) if arguments.quick else (arguments.draws, (5, 10, 20))
    images, settings, cpu = scan(arguments.data), TrainSettings(data=arguments.data), torch.device("cpu")
    train, test = (evenly_spaced(images.part(part), 6000) for part in ("train", "test"))
    rows, seen = (image_features(images, part, settings).values.astype(np.float32) for part in (train, test))
    truth, expected = (np.array([sample.label for sample in part]) for part in (train, test))
    classes = len(images.labels)

    def solve(values, labels, validation):
        task = task_of(settings, images.labels, Counter(labels.tolist()), cpu, None)
        return fit_linear_probe([Features(values, {})], labels, classes, validation, task, settings, cpu)

    def fitted(chosen, random):
        """A probe from these rows, some of which validate, class by class."""
        validates = np.zeros(len(chosen), dtype=bool)
        for label in range(classes):
            members = random.permutation(np.flatnonzero(truth[chosen] == label))
            validates[members[: max(1, round(VALIDATION_SHARE * len(members)))]] = True
        held, learnt = chosen[validates], chosen[~validates]
        validation = Features(rows[held], {}), torch.from_numpy(truth[held])
        labels = torch.from_numpy(truth[learnt])
        return solve(rows[learnt], labels, validation), (rows[learnt], labels, validation)

    def accuracy(probe):
        return float((probe.head(torch.from_numpy(seen)).argmax(1).numpy() == expected).mean())

    result = {}
    if not arguments.json:
        print(
            f"{'a class':>8} {'before':>19} {'random':>19} {'margin':>19} {'diverse':>19} {'self-training':>19}  kept"
        )
    for per_class in sizes:
        found: dict[str, list[float]] = {}
        kept = 0
        for draw in range(draws):
            random = np.random.default_rng(draw)
            by_class = [random.permutation(np.flatnonzero(truth == label))[:per_class] for label in range(classes)]
            start = np.concatenate(by_class)
            others = np.setdiff1d(np.arange(len(truth)), start)
            probe, (values, labels, validation) = fitted(start, random)
            found.setdefault("before", []).append(accuracy(probe))
            top = probe.head(torch.from_numpy(rows[others])).softmax(1).topk(2, 1).values.numpy()
            margins = top[:, 0] - top[:, 1]
            near = np.argsort(margins, kind="stable")[: CANDIDATES * MORE]
            ways = {
                "random": random.permutation(len(others))[:MORE],
                "margin": near[:MORE],
                "diverse": near[diverse(rows[others[near]], 1 - margins[near], MORE)],
            }
            for way, chosen in ways.items():
                more = np.concatenate([start, others[chosen]])
                found.setdefault(way, []).append(accuracy(fitted(more, random)[0]))
            again = self_train(
                probe, [Features(values, {})], labels, validation, Features(rows[others], {}), "loss",
                lambda views, names, held=validation: solve(views[0].values, names, held),
            )  # fmt: skip
            found.setdefault("self-training", []).append(accuracy(again.probe))
            kept += again.kept
        cells = [f"{np.mean(each):.3f} ({min(each):.3f}–{max(each):.3f})" for each in found.values()]
        if not arguments.json:
            print(f"{per_class:>8} {' '.join(f'{cell:>19}' for cell in cells)}  {kept} of {draws}", flush=True)
        result[per_class] = {**{way: float(np.mean(each)) for way, each in found.items()}, "kept": kept, "draws": draws}
    if arguments.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
