"""Benchmark of exports: each backbone's engine search, with every candidate's accuracy, speed and size.

    python bench/export.py [--models resnet18,...] [--images 300] [--runs RUN ...] [--quick] [--json]

Pictures of clothes (Fashion-MNIST) at the backbone's own size. Backbones whose weights are on this machine begin with
them and train their head; the others have random weights, which show nothing about accuracy but all about speed and
export. `--runs` uses finished runs of one's own instead of backbones. Speeds are ratios to ONNX Runtime in fp32 in the
same export.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import lensmith
from lensmith.core.machine import allowed_cores, share_cores

MODELS = (
    "resnet18", "resnet50", "mobilenetv3_large_100", "tf_efficientnet_lite0", "convnext_tiny",
    "swin_tiny_patch4_window7_224", "vit_base_patch16_224",
)  # fmt: skip
BASELINE = "onnxruntime-fp32"


def images(given: argparse.Namespace) -> Path:
    """Fashion-MNIST as a folder, made once."""
    folder = Path(given.out) / f"data-{given.train}"
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        shutil.rmtree(part, ignore_errors=True)
        lensmith.fetch("fashion-mnist", part, max_train=given.train, max_test=10)
        part.rename(folder)
    return folder


def run_of(given: argparse.Namespace, model: str) -> Path:
    """A run with a trained head, made once."""
    from lensmith.config import TrainSettings
    from lensmith.training.models import zoo
    from lensmith.training.trainer import Trainer

    out = Path(given.out) / "runs" / model
    if not (out / "checkpoints" / "best.pt").exists():
        shutil.rmtree(out, ignore_errors=True)
        pretrained = any(backbone.on_this_machine for backbone in zoo.find(model) if backbone.name == model)
        chosen = {"data": images(given), "model": model, "out": out, "preset": "fast", "pretrained": pretrained}
        Trainer().start(TrainSettings.resolve({**chosen, "epochs": 1, "head_epochs": 1, "cache_gb": 0}))
    return out


def row(record: dict[str, Any], baseline: float) -> dict[str, Any]:
    """A candidate's figures, with its speed as a ratio to the baseline."""
    speed = record["images_per_second"]
    names = ("name", "accuracy", "drop", "agreement", "latency_ms", "images_per_second", "bytes", "chosen", "why")
    return {**{name: record[name] for name in names}, "ratio": speed and round(speed / baseline, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--runs", nargs="*", default=[])
    parser.add_argument("--train", type=int, default=1000, help="images, of which 15 %% validate")
    parser.add_argument("--images", type=int, default=300, help="images that each candidate answers, at most")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--out", default="runs/bench-export")
    parser.add_argument("--quick", action="store_true", help="two small backbones on few images")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    if given.quick:
        given.models, given.train, given.images = "test_resnet,test_vit", 300, 40
    share_cores()
    found: dict[str, Any] = {"cores": allowed_cores(), "images": given.images, "exports": []}
    runs = map(Path, given.runs) if given.runs else (run_of(given, model) for model in given.models.split(","))
    for run in runs:
        print(f"== {run.name}", file=sys.stderr, flush=True)
        bundle = Path(given.out) / "bundles" / run.name
        made = lensmith.export(run, out=bundle, images=given.images, target=given.target, overwrite=True).as_dict()
        baseline = next(each["images_per_second"] for each in made["candidates"] if each["name"] == BASELINE)
        rows = [row(each, baseline) for each in made["candidates"]]
        found["exports"].append({"run": run.name, "seconds": round(made["seconds"], 1), "candidates": rows})
        if not given.json:
            print(f"{run.name}: {made['seconds']:.0f} s")
            for each in rows:
                speed = f"{each['images_per_second'] or 0:7.1f}/s {each['ratio'] or 0:5.2f}×"
                drop = "  –  " if each["drop"] is None else f"{each['drop']:+5.2f}"
                print(
                    f"  {'→' if each['chosen'] else ' '} {each['name']:26} {speed} drop {drop}  {each['why']}",
                    flush=True,
                )
    if given.json:
        print(json.dumps(found))


if __name__ == "__main__":
    os.environ.setdefault("PYTHONWARNINGS", "ignore")
    main()
