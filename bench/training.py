"""Training images a second of whole steps: plain PyTorch, PyTorch with what is commonly turned on, and lensmith.

    python bench/training.py [--models resnet18 …] [--image-size 224] [--batch 32] [--batch-norm train] [--quick]

Plain: fp32, contiguous. Tuned: channels_last, and bfloat16 or fp32, whichever is faster. Heap retained: the same in
bfloat16 with glibc configured by the environment to retain freed memory, as few do. lensmith: its `Learner`, which
tunes all that by itself; its images are uint8, so augmenting and normalising are part of its step. With `--batch-norm
frozen` BatchNorm's statistics are frozen in all variants. All take SGD steps on noise. Each variant runs in a process
of its own, in turns and for two rounds, since memory that one has used makes the next one faster; a figure is the best
of its medians. Page faults are those of one step: pages that the system handed out anew.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from lensmith.core.machine import share_cores

MODELS = ("resnet18", "tf_efficientnet_lite0", "mobilenetv3_large_100", "convnext_atto")
VARIANTS = ("plain", "tuned fp32", "tuned bf16", "heap retained", "lensmith")
HEAP_RETAINED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
WARM_UP, STEPS, ROUNDS, CLASSES = 4, 7, 2, 10


def of_torch(given: argparse.Namespace) -> Callable[[], None]:
    """A step of plain PyTorch."""
    import timm
    import torch
    from torch.nn import functional

    layout = torch.contiguous_format if given.variant == "plain" else torch.channels_last
    model = timm.create_model(given.model, num_classes=CLASSES).to(memory_format=layout).train()
    if given.batch_norm == "frozen":
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9)
    images = torch.rand(given.batch, 3, given.image_size, given.image_size).to(memory_format=layout)
    labels = torch.randint(CLASSES, (given.batch,))

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=given.variant in ("tuned bf16", "heap retained")):
            loss = functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def of_lensmith(given: argparse.Namespace) -> Callable[[], None]:
    """A step of lensmith."""
    import torch

    from lensmith.config import TrainSettings
    from lensmith.training.dataloading.dataset import Batch
    from lensmith.training.learner import Learner
    from lensmith.training.models import backbone
    from lensmith.training.schedule import TrainingSchedule

    settings = TrainSettings(
        data=".", model=given.model, pretrained=False, image_size=given.image_size, batch_size=given.batch,
        optimizer="sgd", lr=1e-3, head_epochs=0, batch_norm=given.batch_norm, augment="none", label_smoothing=0.0,
    )  # fmt: skip
    labels = [str(number) for number in range(CLASSES)]
    network = backbone.build(settings, CLASSES)
    learner = Learner(network, settings, network.preprocessing, labels, Counter(range(CLASSES)), torch.device("cpu"))
    schedule = TrainingSchedule.of(settings, 1000 * given.batch, len(network.stages))
    print(learner.enter(schedule.phases[0]), file=sys.stderr)
    size = (given.batch, given.image_size, given.image_size, 3)
    batch = Batch(
        images=torch.randint(256, size, dtype=torch.uint8), labels=torch.randint(CLASSES, (given.batch,)),
        factors=torch.ones(given.batch, 4), indices=list(range(given.batch)), unreadable=[],
    )  # fmt: skip

    def step() -> None:
        learner.training_step(batch, schedule, 0)

    return step


def child(given: argparse.Namespace) -> None:
    """Print one variant's figures as a line of JSON."""
    share_cores()  # before torch is loaded: how threads wait is the same for all
    import torch

    torch.manual_seed(0)
    step = of_lensmith(given) if given.variant == "lensmith" else of_torch(given)
    for _ in range(WARM_UP):
        step()
    before, seconds = resource.getrusage(resource.RUSAGE_SELF), []
    for _ in range(STEPS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    after = resource.getrusage(resource.RUSAGE_SELF)
    found = {
        "images_per_second": given.batch / statistics.median(seconds),
        "page_faults": (after.ru_minflt - before.ru_minflt) // STEPS,
        "peak_memory_bytes": after.ru_maxrss * 1024,
    }
    print(json.dumps(found))


def run(given: argparse.Namespace, model: str, variant: str, cache: str) -> dict[str, Any]:
    command = [sys.executable, __file__, "--variant", variant, "--model", model, "--batch", str(given.batch)]
    command += ["--image-size", str(given.image_size), "--batch-norm", given.batch_norm]
    environment = {**os.environ, "LENSMITH_CACHE": cache, **(HEAP_RETAINED if variant == "heap retained" else {})}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batch-norm", choices=("frozen", "train"), default="frozen")
    parser.add_argument("--quick", action="store_true", help="two networks, one round, 96 px")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--model", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.variant:
        child(given)
        return
    if given.quick:
        given.models, given.image_size = MODELS[:2], 96
    rounds_run = 1 if given.quick else ROUNDS
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as cache:
        for model in given.models:
            rounds = [{variant: run(given, model, variant, cache) for variant in VARIANTS} for _ in range(rounds_run)]
            found = {
                variant: max((one[variant] for one in rounds), key=lambda one: one["images_per_second"])
                for variant in VARIANTS
            }
            speed = {variant: one["images_per_second"] for variant, one in found.items()}
            ratios = {
                "speedup_vs_plain": speed["lensmith"] / speed["plain"],
                "speedup_vs_tuned": speed["lensmith"] / max(speed["tuned fp32"], speed["tuned bf16"]),
                "speedup_vs_heap_retained": speed["lensmith"] / speed["heap retained"],
            }
            results[model] = {**ratios, "variants": found}
            if not given.json:
                print(f"{model}, {given.image_size} px, BatchNorm {given.batch_norm}")
                for variant, one in found.items():
                    print(
                        f"  {variant:13}  {one['images_per_second']:6.1f} images/s  {one['page_faults']:8,} page faults"
                        f"  {one['peak_memory_bytes'] / 1e9:.1f} GB"
                    )
                print("  " + "  ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    if given.json:
        sizes = {"image_size": given.image_size, "batch": given.batch, "batch_norm": given.batch_norm}
        print(json.dumps({"bench": "training", **results, **sizes, "load_average": os.getloadavg()[0]}))


if __name__ == "__main__":
    main()
