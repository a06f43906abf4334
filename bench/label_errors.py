"""The label doctor on planted label errors: how many it lists and flags, how many right labels it flags, and its time.

    python bench/label_errors.py [--share 0.05] [--draws 3] [--quick] [--json]

6,000 images of Fashion-MNIST, of which a share gets a wrong label: any other class at random, or one that resembles the
right one (shirts, pullovers and coats among themselves, and so on). Fashion-MNIST has wrong and doubtful labels of its
own, which count here as right ones that were flagged. The features are cached before the time is taken.
"""

import argparse
import csv
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

import lensmith
from lensmith.config import TrainSettings
from lensmith.core.machine import cache_dir
from lensmith.curation.label_doctor import examine
from lensmith.data.scan import scan

ALIKE = {
    "T-shirt-top": ("Shirt", "Dress"), "Shirt": ("T-shirt-top", "Pullover", "Coat"), "Pullover": ("Shirt", "Coat"),
    "Coat": ("Pullover", "Shirt"), "Dress": ("T-shirt-top", "Coat"), "Sandal": ("Sneaker", "Ankle boot"),
    "Sneaker": ("Sandal", "Ankle boot"), "Ankle boot": ("Sneaker", "Sandal"),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=0.05, help="share of wrong labels")
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one draw")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    data = cache_dir() / "bench" / "fashion-6000"
    lensmith.fetch("fashion-mnist", data, max_train=6000, max_test=2000)
    clean = scan(data)
    samples, settings = clean.part("train"), TrainSettings(data=data)
    result = {}
    with TemporaryDirectory() as folder:
        for way in ("any class", "a class alike"):
            rows = []
            for draw in range(1 if given.quick else given.draws):
                labels = [clean.labels[sample.label] for sample in samples]
                wrong = plant(labels, way, given.share, np.random.default_rng(draw))
                table = Path(folder) / "labels.csv"
                with table.open("w", newline="") as file:
                    writer = csv.writer(file)
                    writer.writerow(("path", "label"))
                    writer.writerows(
                        (clean.file(each), wrong.get(row, labels[row])) for row, each in enumerate(samples)
                    )
                planted = {clean.file(samples[row]).resolve() for row in wrong}
                images = scan(table)
                examine(images, settings)
                started = time.perf_counter()
                found = examine(images, settings)
                seconds = time.perf_counter() - started
                ranked = [(images.root / each.path).resolve() in planted for each in found.suspects]
                rows.append(
                    {
                        "found_in_first_tenth": sum(ranked[: len(samples) // 10]) / len(planted),
                        "found_flagged": sum(ranked[: len(found.flagged)]) / len(planted),
                        "clean_flagged": ranked[: len(found.flagged)].count(False) / (len(samples) - len(planted)),
                        "suspects": len(ranked),
                        "estimated_wrong": found.wrong_labels,
                        "planted": len(planted),
                        "seconds": seconds,
                    }
                )
            result[way] = {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}
    if given.json:
        print(json.dumps(result))
        return
    for way, row in result.items():
        print(
            f"{way:14} {row['found_in_first_tenth']:.1%} of {row['planted']:.0f} planted errors in the first tenth, "
            f"{row['found_flagged']:.1%} flagged; "
            f"{row['clean_flagged']:.1%} of the other labels flagged; {row['estimated_wrong']:.0f} estimated; "
            f"{row['seconds']:.1f} s"
        )


def plant(labels: list[str], way: str, share: float, random: np.random.Generator) -> dict[int, str]:
    """Row → wrong label of a share of the labels."""
    possible = [row for row, label in enumerate(labels) if way == "any class" or label in ALIKE]
    names = sorted(set(labels))
    return {
        int(row): str(
            random.choice(ALIKE[labels[row]] if way != "any class" else [name for name in names if name != labels[row]])
        )
        for row in random.choice(possible, int(share * len(labels)), replace=False)
    }


if __name__ == "__main__":
    main()
