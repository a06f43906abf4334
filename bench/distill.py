"""Benchmark of distillation: a small network trained alone, on a teacher's answers, and on its features as well.

    python bench/distill.py [--student NAME] [--train 1200] [--epochs 24] [--seeds 0 1 2] [--quick] [--json]

Pictures of clothes (Fashion-MNIST), divided once: 85 % of `--train` images train, 15 % validate, `--test` others test.
The teacher, EfficientNet-Lite0 from ImageNet's weights, is fine-tuned once. Each student begins from random weights,
the same in all three variants for each seed, and trains as many epochs with the same settings; only the loss differs.
With features, their share comes from that of the answers, so that the share of labels is unchanged. Each run's best
epoch on the validation part is evaluated on the test part. Spread is the standard deviation over the seeds; gains over
the student alone are computed seed by seed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import lensmith
from lensmith.core.machine import allowed_cores, share_cores

TEACHER = "tf_efficientnet_lite0"
SPLIT = "0.85:0.15:0"


def images(given: argparse.Namespace) -> Path:
    """Fashion-MNIST as a folder whose manifest names the part of each image, made once."""
    folder = Path(given.out) / f"data-{given.train}-{given.test}"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        lensmith.fetch("fashion-mnist", part, max_train=given.train, max_test=given.test)
        lensmith.split(part, ratio=SPLIT)
        part.rename(folder)
    return folder


def trained(given: argparse.Namespace, name: str, **settings: Any) -> dict[str, Any]:
    """Train, and evaluate the best epoch on the test part."""
    from lensmith.config import TrainSettings
    from lensmith.training.trainer import Trainer

    out = Path(given.out) / "runs" / name
    shutil.rmtree(out, ignore_errors=True)
    shared = {"resize": "squash", "augment": "light", "patience": settings["epochs"], "monitor": "loss"}
    print(f"{name} …", file=sys.stderr, flush=True)
    started = time.perf_counter()
    result = Trainer().start(TrainSettings.resolve({"data": images(given), "out": out, **shared, **settings}))
    seconds = time.perf_counter() - started
    accuracy = test_accuracy(out)
    print(f"{name}: {accuracy:.4f} in {seconds:.0f} s", file=sys.stderr, flush=True)
    return {"run": str(out), "accuracy": accuracy, "val_accuracy": result.metrics["val_accuracy"], "seconds": seconds}


def test_accuracy(path: Path) -> float:
    """Accuracy of a run's best epoch on the test part."""
    import torch

    from lensmith.training.dataloading.dataset import ImageDataset
    from lensmith.training.dataloading.loader import build_loader, close_loader, default_loader_workers
    from lensmith.training.dataloading.sampler import EpochSampler
    from lensmith.training.models import backbone
    from lensmith.training.run_dir import checkpoint
    from lensmith.training.run_dir.run import Run
    from lensmith.training.validate import compute_outputs

    run, device = Run.open(path), torch.device("cpu")
    model = backbone.rebuild(run.settings, len(run.images.labels), checkpoint.load(run.best)["model"])
    samples = run.images.part("test")
    dataset = ImageDataset(run.images, samples, run.preprocessing, None, 0)
    batches = build_loader(dataset, EpochSampler(len(samples), 128, None), default_loader_workers(device), device)
    try:
        return compute_outputs(model, batches, device).accuracy
    finally:
        close_loader(batches)


def variants(given: argparse.Namespace, teacher: Path) -> dict[str, dict[str, Any]]:
    """Variant → the settings in which it differs from the others."""
    distilled = {"teacher": teacher, "teacher_weight": given.teacher_weight, "teacher_temperature": given.temperature}
    shares = {"teacher_weight": given.teacher_weight - given.feature_weight, "feature_weight": given.feature_weight}
    return {"alone": {}, "answers": distilled, "answers and features": {**distilled, **shares}}


def spread(values: list[float]) -> dict[str, Any]:
    """Mean, standard deviation, and the values."""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.mean(values), "spread": deviation, "of": values}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--student", default="test_resnet")
    parser.add_argument("--train", type=int, default=1200, help="training and validation images")
    parser.add_argument("--test", type=int, default=4000, help="test images")
    parser.add_argument("--epochs", type=int, default=24, help="of each student")
    parser.add_argument("--teacher-epochs", type=int, default=8)
    parser.add_argument("--teacher-size", type=int, default=96, help="pixels a side")
    parser.add_argument("--image-size", type=int, default=32, help="pixels a side, of the students")
    parser.add_argument("--lr", type=float, default=3e-3, help="of the students")
    parser.add_argument("--teacher-weight", type=float, default=0.8)
    parser.add_argument("--temperature", type=float, default=4.0)
    parser.add_argument("--feature-weight", type=float, default=0.1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="fewer images, epochs and seeds")
    parser.add_argument("--out", default="runs/distill", help="folder for data and runs")
    parser.add_argument("--json", action="store_true", help="print one line of JSON at the end")
    given = parser.parse_args()
    if given.quick:
        given.train, given.test, given.epochs, given.teacher_epochs, given.seeds = 800, 500, 4, 3, [0, 1]
    share_cores()
    load, started = os.getloadavg()[0], time.perf_counter()

    large = {"image_size": given.teacher_size, "epochs": given.teacher_epochs, "head_epochs": 1, "lr": 2e-3}
    teacher = trained(given, "teacher", model=TEACHER, **large)
    student = {
        "model": given.student, "pretrained": False, "image_size": given.image_size, "epochs": given.epochs,
        "head_epochs": 0, "lr": given.lr, "backbone_lr_ratio": 1.0, "batch_norm": "train", "batch_size": 64,
    }  # fmt: skip
    runs: dict[str, list[dict[str, Any]]] = {}
    for seed in given.seeds:
        for way, settings in variants(given, Path(teacher["run"])).items():
            name = f"{way.replace(' ', '-')}-{seed}"
            runs.setdefault(way, []).append(trained(given, name, seed=seed, **student, **settings))

    found = {way: spread([run["accuracy"] for run in runs_of]) for way, runs_of in runs.items()}
    alone = found["alone"]["of"]
    gains = {
        way: spread([ours - theirs for ours, theirs in zip(figure["of"], alone, strict=True)])
        for way, figure in found.items()
        if way != "alone"
    }
    seconds = {way: statistics.mean(run["seconds"] for run in runs_of) for way, runs_of in runs.items()}
    print(f"{given.student} at {given.image_size} px, {given.epochs} epochs, seeds {given.seeds}; ", end="")
    print(f"teacher {TEACHER}: {teacher['accuracy']:.4f}\n")
    print("way                   test accuracy      gain over alone   seconds a run")
    for way, figure in found.items():
        gain = f"{gains[way]['mean']:+.4f} ± {gains[way]['spread']:.4f}" if way in gains else ""
        print(f"{way:20}  {figure['mean']:.4f} ± {figure['spread']:.4f}  {gain:16}  {seconds[way]:13.0f}")
    result = {
        "bench": "distill", "teacher": teacher, "accuracy": found, "gain": gains, "seconds_a_run": seconds,
        "runs": runs, "settings": {name: value for name, value in vars(given).items() if name not in ("json", "out")},
        "seconds": time.perf_counter() - started, "cores": allowed_cores(), "load_average": load,
    }  # fmt: skip
    (Path(given.out) / "distill.json").write_text(json.dumps(result, indent=2) + "\n")
    if given.json:
        print(json.dumps(result))


if __name__ == "__main__":
    main()
